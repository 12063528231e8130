"""Steps 2 and 3 of the loop: n responses per problem, each one judged as soon as it is there."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sandbox import Judgement, Sandbox, extract_code
from sdpo.config.schema import Recipe
from sdpo.prompts.context import ContextBuilder
from sdpo.prompts.sources import dataset_text
from sdpo.rollout.pool import EnginePool
from sdpo.rollout.requests import RawRollout, Sampling
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

    def __init__(
        self, recipe: Recipe, contexts: ContextBuilder, tokenizer: Any, pool: EnginePool, sandbox: Sandbox
    ) -> None:
        self.recipe, self.contexts, self.tokenizer = recipe, contexts, tokenizer
        self.pool, self.sandbox = pool, sandbox
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
        return [self._rollout(prompt, raw) for raw in self.pool.generate(prompt, n, sampling, number)]

    async def _rollout(self, prompt: Sequence[int], sampled: Awaitable[RawRollout]) -> Rollout:
        raw = await sampled
        return Rollout(
            prompt_ids=prompt,
            response_ids=raw.response_ids,
            text=self.tokenizer.decode(raw.response_ids, skip_special_tokens=True),
            sampler_log_probs=raw.log_probs,
            finish_reason=raw.finish_reason,
            policy_version=raw.policy_version,
        )

    def _demonstrated(self, problem: Problem) -> Rollout:
        """The dataset's demonstration as a response; nothing sampled it, so its log-probs are NaN."""
        text = dataset_text(self.recipe.rollout.source, self.recipe.context.column)(problem)
        ids = [*self.tokenizer.encode(text, add_special_tokens=False), self.tokenizer.eos_token_id]
        most = self.recipe.rollout.max_response_tokens
        unknown = np.full(min(len(ids), most), np.nan, np.float32)
        reason = "stop" if len(ids) <= most else "length"
        return Rollout(self.contexts.prompt(problem), tuple(ids[:most]), text, unknown, reason, policy_version=0)

    async def _judge(self, problem: Problem, rollout: Rollout, tests, stop: str) -> Judgement:
        return await self.sandbox.ajudge(
            extract_code(rollout.text),
            tests,
            problem.limits,
            files=problem.files,
            stop=stop,
            truncated=rollout.truncated,
        )
