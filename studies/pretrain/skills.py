"""The skills on which self-distillation rests, measured through the sandbox on worlds that the policy has not seen.

Four conditions, all sampled at temperature 1, prompts from the same `sdpo.prompts.context` that training uses:

* first try: the question alone;
* with feedback: a failed first try's feedback is shown (training tests), the answer is judged on the evaluation tests;
* with solution: another attempt that passed is shown (the reference program where none did);
* known words: questions of English words alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sandbox import Judgement, Sandbox
from sdpo.config.sections import ContextSettings
from sdpo.envs.code.compact import compact_feedback
from sdpo.envs.code.judging import judge_responses
from sdpo.envs.code.problem import Problem, fenced
from sdpo.envs.minicode.family import LISTS, Family
from sdpo.envs.minicode.load import read_rows
from sdpo.envs.minicode.rows import task_rows, world_rows
from sdpo.envs.minicode.world import make_known_tasks, make_world
from sdpo.prompts.context import ContextBuilder
from sdpo.types import Hint
from studies.pretrain.sampling import Sampler

CONDITIONS = ("first try", "with feedback", "with solution", "known words")
KNOWN_PROBLEMS = 48  # of English words only, for each world
Progress = Callable[[str, int, int], None]  # what, done, total


@dataclass(frozen=True)
class Judged:
    """One judged response."""

    condition: str
    seed: int
    problem: str
    kind: str
    difficulty: str
    passed: bool


def measure_skills(
    folder: str | Path,
    seeds: Sequence[int] = (101, 102, 103),
    samples: int = 8,
    sampling_seed: int = 0,
    family: Family = LISTS,
    progress: Progress | None = None,
) -> list[Judged]:
    """Outcomes of `samples` responses per problem, condition and world; UserError if `folder` is no model folder."""
    sampler = Sampler(folder, sampling_seed)
    builder = ContextBuilder(sampler.tokenizer, ContextSettings(template="compact", feedback="always"))
    outcomes: list[Judged] = []
    with Sandbox() as sandbox:
        measure = _Measure(sampler, builder, sandbox, samples, family, progress, outcomes)
        for seed in seeds:
            measure.world(seed)
    return outcomes


@dataclass
class _Measure:
    sampler: Sampler
    builder: ContextBuilder
    sandbox: Sandbox
    samples: int
    family: Family
    progress: Progress | None
    outcomes: list[Judged]

    def world(self, seed: int) -> None:
        problems, kinds = read_rows(list(world_rows(make_world(seed, self.family))))
        tasks = make_known_tasks(seed, KNOWN_PROBLEMS, self.family)
        known, known_kinds = read_rows(list(task_rows(f"known-{seed}", tasks, ())))
        each = [p for p in problems for _ in range(self.samples)]
        texts = self._sample(f"{self.family.name} {seed}, first try", each, self._prompts(each))
        first = judge_responses(self.sandbox, each, texts, training=True)
        self._record("first try", seed, kinds, each, judge_responses(self.sandbox, each, texts, training=False))

        solution = {p.id: fenced(p.solution or "") for p in problems}
        solution |= {p.id: t for p, t, j in zip(each, texts, first, strict=True) if j.passed}
        hints = [Hint(solution[p.id], None) for p in each]
        self._retry("with solution", seed, kinds, each, hints)

        failed = [(p, Hint(None, compact_feedback(j))) for p, j in zip(each, first, strict=True) if not j.passed]
        self._retry("with feedback", seed, kinds, [p for p, _ in failed], [hint for _, hint in failed])

        each = [p for p in known for _ in range(self.samples)]
        texts = self._sample(f"{self.family.name} {seed}, known words", each, self._prompts(each))
        self._record("known words", seed, known_kinds, each, judge_responses(self.sandbox, each, texts, training=False))

    def _retry(
        self, condition: str, seed: int, kinds: dict[str, str], problems: list[Problem], hints: list[Hint]
    ) -> None:
        prompts = [self.builder.reprompt(p.task("compact"), h) for p, h in zip(problems, hints, strict=True)]
        texts = self._sample(f"{self.family.name} {seed}, {condition}", problems, prompts)
        self._record(condition, seed, kinds, problems, judge_responses(self.sandbox, problems, texts, training=False))

    def _prompts(self, problems: list[Problem]) -> list[tuple[int, ...]]:
        return [self.builder.prompt(p.task("compact")) for p in problems]

    def _sample(self, what: str, problems: list[Problem], prompts: list[tuple[int, ...]]) -> list[str]:
        done = 0

        def report(count: int) -> None:
            nonlocal done
            done += count
            if self.progress:
                self.progress(what, done, len(problems))

        return self.sampler.sample(prompts, report)

    def _record(
        self, condition: str, seed: int, kinds: dict[str, str], problems: list[Problem], judgements: list[Judgement]
    ) -> None:
        for p, j in zip(problems, judgements, strict=True):
            self.outcomes.append(Judged(condition, seed, p.id, kinds[p.id], p.difficulty, j.passed))


def rates(outcomes: Sequence[Any], by: str, conditions: Sequence[str] = CONDITIONS) -> dict[str, dict[str, float]]:
    """Pass rates: value of the outcomes' attribute `by` (or "all") → condition → rate."""
    table: dict[str, dict[str, float]] = {}
    for name in ("all", *sorted({str(getattr(o, by)) for o in outcomes})):
        for condition in conditions:
            some = [o.passed for o in outcomes if o.condition == condition and name in ("all", str(getattr(o, by)))]
            if some:
                table.setdefault(name, {})[condition] = sum(some) / len(some)
    return table
