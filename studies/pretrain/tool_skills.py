"""The skills of the policy of minitools, measured on worlds that it has not seen.

All are sampled at temperature 1, with prompts from the same `sdpo.prompts.context` that training uses:

* first try: the request alone;
* with feedback: what the service says of a failed first try is shown;
* with solution: the right call is shown;
* next turn: the conversation goes on after a failed first try.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from sdpo.config.sections import ContextSettings
from sdpo.envs.minitools.environment import task_of
from sdpo.envs.minitools.service import converse
from sdpo.envs.minitools.world import make_world
from sdpo.prompts.context import ContextBuilder
from sdpo.types import Hint, Outcome, Task
from studies.pretrain.sampling import Sampler

CONDITIONS = ("first try", "with feedback", "with solution", "next turn")
Progress = Callable[[str, int, int], None]  # what, done, total


@dataclass(frozen=True)
class Answered:
    """One graded response."""

    condition: str
    seed: int
    difficulty: str
    passed: bool


def measure_tool_skills(
    folder: str | Path,
    seeds: Sequence[int] = (101, 102, 103),
    samples: int = 8,
    sampling_seed: int = 0,
    progress: Progress | None = None,
) -> list[Answered]:
    """Outcomes of `samples` responses per request, condition and world; UserError if `folder` is no model folder."""
    sampler = Sampler(folder, sampling_seed, max_new_tokens=32)
    contexts = ContextBuilder(sampler.tokenizer, ContextSettings(template="compact", feedback="always"))
    found: list[Answered] = []
    for seed in seeds:
        world = make_world(seed)
        each = [task_of("", request) for request in (*world.train, *world.held_out) for _ in range(samples)]
        first = sampler.sample([contexts.prompt(task) for task in each])
        outcomes = [converse(task.content, [text]) for task, text in zip(each, first, strict=True)]
        found += _answered("first try", seed, each, outcomes)
        shown = [contexts.reprompt(task, Hint(task.solution, None)) for task in each]
        found += _retried("with solution", seed, each, sampler.sample(shown))
        failed = [(task, o) for task, o in zip(each, outcomes, strict=True) if not o.solved]
        tasks = [task for task, _ in failed]
        told = [contexts.reprompt(task, Hint(None, o.feedback)) for task, o in failed]
        found += _retried("with feedback", seed, tasks, sampler.sample(told))
        said = [text for text, o in zip(first, outcomes, strict=True) if not o.solved]
        later = [
            contexts.chat.prompt([*task.messages, {"role": "assistant", "content": text}, *o.reply])
            for (task, o), text in zip(failed, said, strict=True)
        ]
        found += _retried("next turn", seed, tasks, sampler.sample(later))
        if progress:
            progress(f"minitools {seed}", len(found), len(found))
    return found


def _retried(condition: str, seed: int, tasks: Sequence[Task], texts: Sequence[str]) -> list[Answered]:
    outcomes = [converse(task.content, [text]) for task, text in zip(tasks, texts, strict=True)]
    return _answered(condition, seed, tasks, outcomes)


def _answered(condition: str, seed: int, tasks: Sequence[Task], outcomes: Sequence[Outcome]) -> list[Answered]:
    return [Answered(condition, seed, t.difficulty, o.solved) for t, o in zip(tasks, outcomes, strict=True)]
