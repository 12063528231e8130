"""Steps 2 and 3 of the loop: n responses per task, each one graded as soon as it is there."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from sdpo.config.schema import Recipe
from sdpo.envs.base import Environment, Purpose
from sdpo.prompts.chat_format import ChatFormat
from sdpo.prompts.context import ContextBuilder
from sdpo.prompts.inserted_text import Neutraliser
from sdpo.prompts.sources import dataset_text
from sdpo.rollout.pool import EnginePool
from sdpo.rollout.requests import Sampling
from sdpo.types import Group, Rollout, Task, Turn

EVALUATION_ATTEMPTS = 3  # to grade a response, where the environment itself fails


@dataclass(frozen=True)
class PendingGroup:
    """A task with its responses, while the environment still grades them."""

    task: Task
    grading: tuple[Awaitable[Turn], ...]  # of each response

    async def graded(self, on_outcome: Callable[[], None] = lambda: None) -> Group:
        rollouts = []
        for waiting in self.grading:
            rollouts.append(Rollout((await waiting,)))
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
    ) -> None:
        self.recipe, self.environment, self.contexts = recipe, environment, contexts
        self.tokenizer, self.pool = tokenizer, pool
        rollout = recipe.rollout
        self.training_sampling = Sampling(
            temperature=rollout.temperature,
            top_p=rollout.top_p,
            top_k=rollout.top_k,
            max_tokens=rollout.max_response_tokens,
        )
        self.evaluation_sampling = evaluation_sampling(recipe)
        self._safe_demonstration = _safe_demonstration(contexts.chat)

    async def training_group(
        self,
        task: Task,
        seed: Sequence[int],
        on_response: Callable[[int], None] = lambda count: None,
        graded: bool = True,
    ) -> PendingGroup:
        """The group of a training step, as soon as all its responses are there.

        graded: False for an algorithm that needs no rewards; its responses come without outcomes.
        """
        if self.recipe.rollout.source != "policy":
            on_response(1)
            return PendingGroup(task, (_done(self._demonstrated(task)),))
        n, purpose = self.recipe.rollout.responses, "training" if graded else None
        return await self._group(task, n, self.training_sampling, seed, purpose, on_response)

    async def evaluation_group(self, task: Task, n: int, on_outcome: Callable[[], None] = lambda: None) -> Group:
        """n graded responses, seeded by the task alone: evaluations of different steps differ by the policy only."""
        seed = [self.recipe.seed, *task.id.encode()]
        pending = await self._group(task, n, self.evaluation_sampling, seed, "evaluation")
        return await pending.graded(on_outcome)

    async def _group(
        self,
        task: Task,
        n: int,
        sampling: Sampling,
        seed: Sequence[int],
        purpose: Purpose | None,
        on_response: Callable[[int], None] = lambda count: None,
    ) -> PendingGroup:
        prompt = self.contexts.prompt(task)
        number = int(np.random.SeedSequence(list(seed)).generate_state(1)[0])

        async def respond(sampled: Awaitable[Turn]) -> Awaitable[Turn]:
            turn = await sampled
            on_response(1)
            text = self.contexts.chat.decode(turn.response_ids)
            turn = replace(turn, text=text, answer=self._answer(text, purpose))
            return _done(turn) if purpose is None else asyncio.ensure_future(self._graded(task, turn, purpose))

        sampled = self.pool.generate(prompt, n, sampling, number)
        return PendingGroup(task, tuple(await asyncio.gather(*map(respond, sampled))))

    def _answer(self, text: str, purpose: Purpose | None) -> str:
        """What was thought is no answer, unless the rule of an evaluation looks there too."""
        official = purpose == "evaluation" and self.recipe.evaluation.thinking == "official"
        return text if official else self.contexts.chat.answer(text)

    async def _graded(self, task: Task, turn: Turn, purpose: Purpose) -> Turn:
        """The turn with its outcome.  Where an evaluation could not grade it, it is tried again."""
        for _ in range(EVALUATION_ATTEMPTS if purpose == "evaluation" else 1):
            turn = replace(turn, outcome=await self.environment.grade(task, turn, purpose))
            if turn.outcome is not None and turn.outcome.reward is not None:
                break
        return turn

    def _demonstrated(self, task: Task) -> Turn:
        """The dataset's demonstration as a response; nothing sampled it, so its log-probs are NaN.

        It ends as the chat template ends an assistant's turn.  Its thoughts keep their tags; no other special token of
        its own text may end it before.
        """
        demonstrated = dataset_text(self.recipe.rollout.source, self.recipe.context.column)(task)
        assert demonstrated is not None  # checked before the start
        text = self._safe_demonstration.text(demonstrated)
        ids = [*self.tokenizer.encode(text, add_special_tokens=False), *self.contexts.chat.turn_end]
        most = self.recipe.rollout.max_response_tokens
        return Turn(
            prompt_ids=self.contexts.prompt(task),
            response_ids=tuple(ids[:most]),
            sampler_log_probs=np.full(min(len(ids), most), np.nan, np.float32),
            finish_reason="stop" if len(ids) <= most else "length",
            text=text,
        )


def _safe_demonstration(chat: ChatFormat) -> Neutraliser:
    """Breaks up special tokens in demonstrations, but for the tags of their thoughts."""
    tags = "".join(tag for pair in chat.thinking_tags for tag in pair)
    return Neutraliser(chat, kept=[token for token in chat.turn_tokens.values() if token in tags])


def evaluation_sampling(recipe: Recipe) -> Sampling:
    """Temperature 0 is greedy decoding."""
    settings, tokens = recipe.evaluation, recipe.evaluation_tokens
    if settings.temperature == 0:
        return Sampling.argmax(tokens)
    return Sampling(temperature=settings.temperature, top_p=settings.top_p, max_tokens=tokens)


def _done(turn: Turn) -> asyncio.Future[Turn]:
    future: asyncio.Future[Turn] = asyncio.get_running_loop().create_future()
    future.set_result(turn)
    return future
