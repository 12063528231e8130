"""Runs of a few steps on engines and learner ranks that are there already, and what must hold after each step."""

from __future__ import annotations

import asyncio

import numpy as np

from sdpo.algorithms import build_algorithm
from sdpo.config.files import find_recipe, load_recipe
from sdpo.learner.rows import assign_to_ranks, loss_weighted_rows, split
from sdpo.tracking import Console, RunFolder, Tracker
from sdpo.training.interrupt import Interrupt
from sdpo.training.parts import prepared
from sdpo.training.resume import begin, resume
from sdpo.training.sinks import make_sinks
from sdpo.training.trainer import Trainer
from sdpo.types import Sample
from tests.helpers.glossary import undescribed

SAME_TOKENS = 1e-4  # fp32: engine and learner add up in different orders
COMMON = (
    "learner.ranks=2",
    "learner.cpu_threads=1",
    "run.questions=4",
    "rollout.responses=4",
    "run.steps=3",
    "run.checkpoint_every=2",
    "evaluation.every=0",
    "evaluation.at_start=false",
    "evaluation.training_problems=false",
    "evaluation.samples=1",
    "evaluation.ks=[1]",
    "tracking.wandb=offline",
)
TURNS = ("environment.turns=3",)


def make_recipe(algorithm: str, *overrides: str):
    return load_recipe(find_recipe("livecodebench", algorithm), "cpu", (*COMMON, *overrides))


class CheckedTrainer(Trainer):
    """After every publication the engines must hold the learner's weights."""

    checked = 0

    def _record(self, groups, *learned):
        super()._record(groups, *learned)
        self.seen = groups

    async def step(self):
        await super().step()
        assert await self.pool.versions() == [self.state.step + 1]
        assert {r.last.policy_version for g in self.seen for r in g.rollouts} == {self.state.step}
        await assert_engine_agrees(self.pool, self.learner, self.seen)
        self.checked += 1


async def assert_engine_agrees(pool, learner, groups):
    """Log-probs of the same tokens by the engine and by the learner, two responses of every group."""
    turns = [r.last for g in groups for r in g.rollouts[:2]]
    samples = [Sample(t.prompt_ids, t.response_ids, t.sampler_log_probs) for t in turns]
    rows = loss_weighted_rows(samples, learner.plan, 1)
    shares = split(rows, 2, 8192)
    results = await asyncio.gather(
        *(
            rank.log_probs.remote(dealt)
            for rank, dealt in zip(learner.ranks, assign_to_ranks(rows, shares), strict=True)
        )
    )
    for share, result in zip(shares, results, strict=True):
        for indices, values in zip(share, result, strict=True):
            for i, wanted in zip(indices, values, strict=False):
                found = await pool.score(turns[i].prompt_ids, turns[i].response_ids)
                np.testing.assert_allclose(found, wanted, atol=SAME_TOKENS)


async def run(recipe, path, workers, learner_for, kind=CheckedTrainer, finishes=True):
    """Train the recipe to its end, or go on with the run of `path`.  Returns the trainer and the run's folder.

    finishes: False where its guard is expected to stop it.
    """
    pool, learner = workers
    algorithm = build_algorithm(recipe)
    await learner_for(recipe, algorithm)
    with (
        Console(recipe.name, recipe.run.steps, plain=True) as console,
        prepared(recipe, console) as parts,
        RunFolder(path) as folder,
    ):
        if folder.info is None:
            begin(recipe, parts.dataset, folder, console)
        else:
            resume(recipe, parts.dataset, folder, console)
        tracker = Tracker(folder, console, make_sinks(recipe, folder, console))
        with Interrupt(console.message) as interrupt:
            given = parts.environment, algorithm, parts.dataset, parts.tokenizer
            trainer = kind(recipe, *given, pool, learner, folder, tracker, interrupt)
            assert await trainer.run() == finishes
        tracker.finish()
    assert not undescribed(folder.metrics)
    return trainer, folder
