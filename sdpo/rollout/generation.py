"""Steps 2 and 3 of the loop: n rollouts per task, each turn graded as soon as it is there, then the next one."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from sdpo.config.schema import Recipe
from sdpo.envs.base import Environment, Purpose
from sdpo.envs.rewards import sound
from sdpo.prompts.context import ContextBuilder
from sdpo.prompts.sources import dataset_text
from sdpo.rollout.pool import EnginePool
from sdpo.rollout.requests import Sampling
from sdpo.types import Group, Outcome, Rollout, Task, Turn

EVALUATION_ATTEMPTS = 3  # to grade a response, where the environment itself fails

# Of a response whose log-probs are NaN or infinite where it was sampled: its text is no sample of the policy.
BROKEN = Outcome(None, label="not finite", details={"message": "the engine's log-probs are not finite"})


@dataclass(frozen=True)
class PendingGroup:
    """A task with its rollouts, while the environment still grades their last turns."""

    task: Task
    grading: tuple[Awaitable[Rollout], ...]

    async def graded(self, on_outcome: Callable[[], None] = lambda: None) -> Group:
        rollouts = []
        for waiting in self.grading:
            rollouts.append(await waiting)
            on_outcome()
        return Group(self.task, tuple(rollouts))


class Generation:
    """Samples responses from the engines and has them graded, for training and for evaluation."""

    def __init__(
        self,
        recipe: Recipe,
        environment: Environment,
        contexts: ContextBuilder,
        tokenizer: Any,
        pool: EnginePool,
        slot: int = 0,
    ) -> None:
        """slot: of the adapter that is sampled from, where engines load several."""
        self.recipe, self.environment, self.contexts = recipe, environment, contexts
        self.tokenizer, self.pool, self._slot = tokenizer, pool, slot
        self.evaluation_sampling = evaluation_sampling(recipe)

    async def training_group(
        self,
        task: Task,
        seed: Sequence[int],
        on_response: Callable[[int], None] = lambda count: None,
        graded: bool = True,
        step: int = 1,
    ) -> PendingGroup:
        """The group of a training step (counted from 1), as soon as all its responses are there.

        on_response: hears of every rollout that needs no further response.  graded: False for an algorithm that needs
        no rewards; its responses come without outcomes, unless replies to them are needed.
        """
        if self.recipe.rollout.source != "policy":
            on_response(1)
            return PendingGroup(task, (_done(Rollout((self._demonstrated(task),))),))
        n, purpose = self.recipe.rollout.responses, "training" if graded or self.recipe.environment.turns > 1 else None
        return await self._group(task, n, training_sampling(self.recipe, step), seed, purpose, on_response)

    async def evaluation_group(self, task: Task, n: int, on_outcome: Callable[[], None] = lambda: None) -> Group:
        """n graded rollouts, seeded by the task alone: evaluations of different steps differ by the policy only."""
        seed = [self.recipe.seed, *task.id.encode()]
        pending = await self._group(task, n, self.evaluation_sampling, seed, "evaluation")
        return await pending.graded(on_outcome)

    async def group_behind(self, task: Task, prompts: Sequence[Sequence[int]], seed: Sequence[int]) -> Group:
        """One graded rollout behind each of these prompts, sampled and graded as in the last step of training."""
        number, sampling = _number(seed), training_sampling(self.recipe, self.recipe.run.steps)
        drawn = [_number([number, i]) for i in range(len(prompts))]
        sampled = [self._sampled(prompt, 1, sampling, seed)[0] for prompt, seed in zip(prompts, drawn, strict=True)]
        return await (await self._rollouts(task, sampled, sampling, number, "training")).graded()

    async def _group(
        self,
        task: Task,
        n: int,
        sampling: Sampling,
        seed: Sequence[int],
        purpose: Purpose | None,
        on_response: Callable[[int], None] = lambda count: None,
    ) -> PendingGroup:
        number = _number(seed)
        sampled = self._sampled(self.contexts.prompt(task), n, sampling, number)
        return await self._rollouts(task, sampled, sampling, number, purpose, on_response)

    async def _rollouts(
        self,
        task: Task,
        sampled: Sequence[Awaitable[Turn]],
        sampling: Sampling,
        number: int,
        purpose: Purpose | None,
        on_response: Callable[[int], None] = lambda count: None,
    ) -> PendingGroup:
        """The rollouts that begin with these responses; `number` is the seed of what is sampled after them."""
        most = self.recipe.turns(purpose)

        async def rollout(index: int, sampled: Awaitable[Turn]) -> Awaitable[Rollout]:
            """Turn after turn; there when the last one is sampled, though it may still be graded."""
            turns: tuple[Turn, ...] = ()
            while True:
                turns = (*turns, self._read(await sampled, purpose))
                if turns[-1].broken:
                    on_response(1)
                    return _done(Rollout((*turns[:-1], replace(turns[-1], outcome=BROKEN))))
                if purpose is None or len(turns) == most:
                    on_response(1)
                    return _done(Rollout(turns)) if purpose is None else self._ended(task, turns, purpose)
                turns = await self._graded(task, turns, purpose)
                prompt = self._next_prompt(task, turns)
                full = prompt is not None and len(prompt) + sampling.max_tokens > self.recipe.max_model_len
                if prompt is None or full:
                    on_response(1)
                    return _done(Rollout(turns, context_full=full))
                drawn = _number([number, index, len(turns)])
                [sampled] = self._sampled(prompt, 1, sampling, drawn, turns[-1].engine)

        return PendingGroup(task, tuple(await asyncio.gather(*itertools.starmap(rollout, enumerate(sampled)))))

    def _sampled(
        self, prompt: Sequence[int], n: int, sampling: Sampling, number: int, engine: int | None = None
    ) -> list[asyncio.Future[Turn]]:
        return self.pool.generate(prompt, n, sampling, number, engine, self._slot)

    def _read(self, turn: Turn, purpose: Purpose | None) -> Turn:
        text = self.contexts.chat.decode(turn.response_ids)
        return replace(turn, text=text, answer=self._answer(text, purpose))

    def _next_prompt(self, task: Task, turns: tuple[Turn, ...]) -> tuple[int, ...] | None:
        """None where the rollout is over."""
        outcome = turns[-1].outcome
        return self.contexts.prompt(task, turns) if outcome and outcome.reply and not outcome.solved else None

    def _ended(self, task: Task, turns: tuple[Turn, ...], purpose: Purpose) -> asyncio.Future[Rollout]:
        async def rollout() -> Rollout:
            return Rollout(await self._graded(task, turns, purpose))

        return asyncio.ensure_future(rollout())

    def _answer(self, text: str, purpose: Purpose | None) -> str:
        """What was thought is no answer, unless the rule of an evaluation looks there too."""
        official = purpose == "evaluation" and self.recipe.evaluation.thinking == "official"
        return text if official else self.contexts.chat.answer(text)

    async def _graded(self, task: Task, turns: tuple[Turn, ...], purpose: Purpose) -> tuple[Turn, ...]:
        """The turns, the last one with its outcome.  Where an evaluation could not grade it, it is tried again."""
        for _ in range(EVALUATION_ATTEMPTS if purpose == "evaluation" else 1):
            last = replace(turns[-1], outcome=sound(await self.environment.respond(task, turns, purpose)))
            if last.graded:
                break
        return (*turns[:-1], last)

    def _demonstrated(self, task: Task) -> Turn:
        """The dataset's demonstration as a response; nothing sampled it, so its log-probs are NaN.

        It ends as the chat template ends an assistant's turn.  Its thoughts keep their tags; no other special token of
        its own text may end it before.
        """
        demonstrated = dataset_text(self.recipe.rollout.source, self.recipe.context.column)(task)
        assert demonstrated is not None  # checked before the start
        text = self.contexts.safe_response.text(demonstrated)
        ids = [*self.tokenizer.encode(text, add_special_tokens=False), *self.contexts.chat.turn_end]
        most = self.recipe.rollout.max_response_tokens
        return Turn(
            prompt_ids=self.contexts.prompt(task),
            response_ids=tuple(ids[:most]),
            sampler_log_probs=np.full(min(len(ids), most), np.nan, np.float32),
            finish_reason="stop" if len(ids) <= most else "length",
            text=text,
        )


def training_sampling(recipe: Recipe, step: int) -> Sampling:
    rollout = recipe.rollout
    return Sampling(
        temperature=rollout.temperature,
        top_p=rollout.top_p,
        top_k=rollout.top_k,
        max_tokens=rollout.response_tokens(step),
    )


def evaluation_sampling(recipe: Recipe) -> Sampling:
    """Temperature 0 is greedy decoding."""
    settings, tokens = recipe.evaluation, recipe.evaluation_tokens
    if settings.temperature == 0:
        return Sampling.argmax(tokens)
    return Sampling(temperature=settings.temperature, top_p=settings.top_p, max_tokens=tokens)


def _number(seed: Sequence[int]) -> int:
    return int(np.random.SeedSequence(list(seed)).generate_state(1)[0])


def _done(rollout: Rollout) -> asyncio.Future[Rollout]:
    future: asyncio.Future[Rollout] = asyncio.get_running_loop().create_future()
    future.set_result(rollout)
    return future
