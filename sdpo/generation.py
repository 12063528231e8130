"""Steps 2 and 3 of the loop: n responses per problem, each one judged as soon as it is there."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sandbox import Judgement, Sandbox, extract_code
from sdpo.chat_format import ChatFormat
from sdpo.context import ContextBuilder
from sdpo.inserted_text import Neutraliser
from sdpo.recipe import Recipe
from sdpo.rollout.fleet import Fleet
from sdpo.rollout.requests import RawRollout, Sampling
from sdpo.sources import dataset_text
from sdpo.types import Group, Problem, Rollout


def evaluation_sampling(recipe: Recipe) -> Sampling:
    """Temperature 0 is greedy decoding."""
    settings, tokens = recipe.evaluation, recipe.evaluation_tokens
    if settings.temperature == 0:
        return Sampling.argmax(tokens)
    return Sampling(temperature=settings.temperature, top_p=settings.top_p, max_tokens=tokens)


@dataclass(frozen=True)
class PendingGroup:
    """A problem with its responses, while the sandbox still works on them."""

    problem: Problem
    rollouts: tuple[Rollout, ...]
    judging: tuple[asyncio.Task[Judgement], ...]

    async def judged(self, on_judgement: Callable[[], None]) -> Group:
        judgements = []
        for task in self.judging:
            judgements.append(await task)
            on_judgement()
        return Group(self.problem, self.rollouts, tuple(judgements))


class Generation:
    """Samples responses from the engines and has them judged, for training and for evaluation."""

    _demonstrations: tuple[tuple[int, ...], Neutraliser] | None = None  # how they end; what makes their text safe

    def __init__(
        self, recipe: Recipe, contexts: ContextBuilder, tokenizer: Any, fleet: Fleet, sandbox: Sandbox
    ) -> None:
        self.recipe, self.contexts, self.tokenizer = recipe, contexts, tokenizer
        self.fleet, self.sandbox = fleet, sandbox
        rollout = recipe.rollout
        self.training_sampling = Sampling(
            temperature=rollout.temperature,
            top_p=rollout.top_p,
            top_k=rollout.top_k,
            max_tokens=rollout.max_response_tokens,
        )
        self.evaluation_sampling = evaluation_sampling(recipe)

    async def responses(
        self,
        problem: Problem,
        seed: Sequence[int],
        on_response: Callable[[int], None] = lambda count: None,
        judged: bool = True,
    ) -> PendingGroup:
        """The group of a training step: on the training tests, with the tests that the feedback policy asks for.

        judged: False for an algorithm that needs no rewards; its groups come without judgements.
        """
        if self.recipe.rollout.source != "policy":
            on_response(1)
            return PendingGroup(problem, (self._demonstrated(problem),), ())
        stop = self.recipe.sandbox.feedback_from

        async def respond(sampled: Awaitable[Rollout]) -> tuple[Rollout, asyncio.Task[Judgement] | None]:
            rollout = await sampled
            on_response(1)
            if not judged:
                return rollout, None
            return rollout, asyncio.ensure_future(self._judge(problem, rollout, problem.training_tests, stop))

        sampled = self._sample(problem, self.recipe.rollout.responses, self.training_sampling, seed)
        rollouts, judging = zip(*await asyncio.gather(*map(respond, sampled)), strict=True)
        return PendingGroup(problem, rollouts, tuple(task for task in judging if task is not None))

    async def evaluation_responses(self, problem: Problem, n: int) -> list[Rollout]:
        """Seeded by the problem alone, so that evaluations of different steps differ by the policy only."""
        seed = [self.recipe.seed, *problem.id.encode()]
        return await asyncio.gather(*self._sample(problem, n, self.evaluation_sampling, seed))

    async def evaluation_verdict(self, problem: Problem, code: str | None) -> Judgement:
        return await self.sandbox.ajudge(code, problem.evaluation_tests, problem.limits, files=problem.files)

    def _sample(self, problem: Problem, n: int, sampling: Sampling, seed: Sequence[int]) -> list[Awaitable[Rollout]]:
        prompt = self.contexts.prompt(problem)
        number = int(np.random.SeedSequence(seed).generate_state(1)[0])
        return [self._rollout(prompt, raw) for raw in self.fleet.generate(prompt, n, sampling, number)]

    def evaluation_program(self, rollout: Rollout) -> str | None:
        """The program that is measured, by the rule of `evaluation.thinking`."""
        if self.recipe.evaluation.thinking == "official":
            return extract_code(rollout.text, thinking="official")
        return self._program(rollout)

    def _program(self, rollout: Rollout) -> str | None:
        """What was thought is no answer; the rest is searched as it stands."""
        return extract_code(self.contexts.chat.answer(rollout.text), thinking="official")

    async def _rollout(self, prompt: Sequence[int], sampled: Awaitable[RawRollout]) -> Rollout:
        raw = await sampled
        return Rollout(
            prompt_ids=prompt,
            response_ids=raw.response_ids,
            text=self.contexts.chat.decode(raw.response_ids),
            sampler_log_probs=raw.log_probs,
            finish_reason=raw.finish_reason,
            policy_version=raw.policy_version,
        )

    def _demonstrated(self, problem: Problem) -> Rollout:
        """The dataset's demonstration as a response; nothing sampled it, so its log-probs are NaN.

        It ends as the chat template ends an assistant's turn.  Its thoughts keep their tags; no other special token of
        its own text may end it before.
        """
        if self._demonstrations is None:
            chat = ChatFormat(self.tokenizer, self.recipe.model.thinking)
            tags = "".join(tag for pair in chat.thinking_tags for tag in pair)
            kept = [token for token in chat.turn_tokens.values() if token in tags]
            self._demonstrations = chat.turn_end, Neutraliser(chat, kept=kept)
        end, safe = self._demonstrations
        text = safe.text(dataset_text(self.recipe.rollout.source, self.recipe.context.column)(problem))
        ids = [*self.tokenizer.encode(text, add_special_tokens=False), *end]
        most = self.recipe.rollout.max_response_tokens
        unknown = np.full(min(len(ids), most), np.nan, np.float32)
        reason = "stop" if len(ids) <= most else "length"
        return Rollout(self.contexts.prompt(problem), tuple(ids[:most]), text, unknown, reason, policy_version=0)

    async def _judge(self, problem: Problem, rollout: Rollout, tests, stop: str) -> Judgement:
        return await self.sandbox.ajudge(
            self._program(rollout),
            tests,
            problem.limits,
            files=problem.files,
            stop=stop,
            truncated=rollout.truncated,
        )
