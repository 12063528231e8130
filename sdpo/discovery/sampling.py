"""Searches that leave the policy as it is: independent samples, and attempts that are told what failed before."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from sdpo.discovery.record import Hardness, Search, Solution
from sdpo.rollout.generation import Generation
from sdpo.types import Hint, Task, Turn

BEST_OF_K, MULTI_TURN = "best-of-k", "multi-turn"
Advance = Callable[[int], None]


async def samples_of(
    generation: Generation, task: Task, count: int, seed: Sequence[int], advance: Advance = lambda n: None
) -> list[Turn]:
    """So many graded, independent samples: whole groups of the recipe's `rollout.responses`, the last one cut."""
    turns: list[Turn] = []
    while len(turns) < count:
        group = await (await generation.training_group(task, [*seed, len(turns)])).graded()
        new = [rollout.last for rollout in group.rollouts][: count - len(turns)]
        turns += new
        advance(len(new))
    return turns


async def hardness(
    generation: Generation, task: Task, count: int, seed: int, advance: Advance = lambda n: None
) -> Hardness:
    turns = await samples_of(generation, task, count, [seed, *task.id.encode()], advance)
    return Hardness(count, sum(turn.solved for turn in turns))


async def best_of_k(generation: Generation, task: Task, budget: int, seed: int, advance: Advance) -> Search:
    """All of the budget: discovery@k follows from how many of the samples are right, for every k."""
    started = time.monotonic()
    turns = await samples_of(generation, task, budget, [seed, 1, *task.id.encode()], advance)
    first = next((turn for turn in turns if turn.solved), None)
    return Search(
        method=BEST_OF_K,
        question=task.id,
        seed=seed,
        attempts=budget,
        solved=sum(turn.solved for turn in turns),
        seconds=time.monotonic() - started,
        response_tokens=sum(len(turn.response_ids) for turn in turns),
        solution=None if first is None else await solution_of(generation, task, first),
    )


async def multi_turn(generation: Generation, task: Task, budget: int, seed: int, advance: Advance) -> Search:
    """One attempt after the other, each told the feedback on those before it, as much of it as has room."""
    started, tokens, said = time.monotonic(), 0, []
    solved, attempts = None, 0
    while solved is None and attempts < budget:
        prompt = told(generation, task, said)
        group = await generation.group_behind(task, [prompt], [seed, 2, *task.id.encode(), attempts])
        turn = group.rollouts[0].last
        attempts, tokens = attempts + 1, tokens + len(turn.response_ids)
        advance(1)
        if turn.solved:
            solved = turn
        elif turn.outcome is not None and turn.outcome.feedback:
            said = [*said, turn.outcome.feedback]
    advance(budget - attempts)
    return Search(
        method=MULTI_TURN,
        question=task.id,
        seed=seed,
        attempts=attempts,
        solved=int(solved is not None),
        seconds=time.monotonic() - started,
        response_tokens=tokens,
        solution=None if solved is None else await solution_of(generation, task, solved),
    )


def told(generation: Generation, task: Task, said: list[str]) -> tuple[int, ...]:
    """The question with feedback behind it, in the words of a teacher's prompt; the oldest is left out, and forgotten,
    where all of it does not fit.  What does not fit by itself is cut."""
    contexts = generation.contexts
    while said:
        before = contexts.counts["feedback_cut"]
        prompt = contexts.reprompt(task, Hint(None, "\n\n".join(said)))
        if contexts.counts["feedback_cut"] == before or len(said) == 1:
            return prompt
        del said[0]
    return contexts.prompt(task)


async def solution_of(generation: Generation, task: Task, turn: Turn) -> Solution:
    """Graded once more, by the tests that measure."""
    outcome = await generation.environment.respond(task, (turn,), "evaluation")
    text = turn.text.encode(errors="backslashreplace").decode()  # half a pair of UTF-16, say
    return Solution(text, turn.response_ids, outcome.solved)
