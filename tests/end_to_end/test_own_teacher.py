"""Runs with a teacher of its own: they learn what runs without one learn, also where its ranks are killed."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Sequence

import psutil
import pytest

from sdpo.algorithms import build_algorithm
from sdpo.learner.group import Learner
from sdpo.learner.teacher_pool import key_of
from sdpo.supervision.part import Part
from sdpo.training.placement import plan_placement
from sdpo.training.supervision import Supervision
from sdpo.training.trainer import Trainer
from sdpo.training.workers import make_teachers
from tests.helpers.training import make_recipe, run

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(1800), pytest.mark.slow]

OWN = ("teacher.placement=own", "teacher.rate=0.1")
TOKENS = ("train/pass_rate", "response/tokens", "train/taught_fraction")
CLOSE = ("learner/loss", "learner/grad_norm", "distillation/loss", "distillation/teacher_entropy")


class Recording(Trainer):
    """The update begins when all that was foreseen is there."""

    async def _generate_and_grade(self, step):
        groups = await super()._generate_and_grade(step)
        foreseen = [task for task, of in self.foresight._tasks.items() if of == step]
        await asyncio.gather(*foreseen, return_exceptions=True)
        return groups


async def own_learner(recipe) -> Learner:
    """Learner and teacher ranks that reserve nothing: other tests' processes hold the cores."""
    import ray

    placement = plan_placement(recipe, ray.cluster_resources()["CPU"], 0)
    options = [None if each is None else each | {"num_cpus": 0} for each in (placement.learner, placement.teacher)]
    plan = build_algorithm(recipe).plan
    learner = Learner(recipe, plan, options[0], teachers=make_teachers(recipe, plan, options[1]))
    await learner.start()
    return learner


async def trained(recipe, path, pool, kind=Recording):
    """A run on learner and teacher ranks of its own, supervised."""
    learner = await own_learner(recipe)

    async def there(*_):
        return learner

    try:
        async with Supervision(recipe.supervision, pool, learner, print):
            return await run(recipe, path, (pool, learner), there, kind)
    finally:
        learner.shutdown()


def assert_same_learning(ours: Sequence[dict], theirs: Sequence[dict], first: float, later: float):
    """Metrics of two runs, step by step: what is counted is equal, the rest within a share of itself."""
    ours, theirs = ([row for row in rows if "learner/loss" in row] for rows in (ours, theirs))
    assert [row["step"] for row in ours] == [row["step"] for row in theirs] and ours
    for number, (own, other) in enumerate(zip(ours, theirs, strict=True)):
        assert {name: own[name] for name in TOKENS} == {name: other[name] for name in TOKENS}
        for name in CLOSE:
            assert own.get(name) == pytest.approx(other.get(name), rel=later if number else first), (number, name)


@pytest.mark.parametrize("kind", ["ema", "frozen"])
async def test_a_run_with_a_teacher_of_its_own_learns_the_same(kind, workers, tmp_path):
    """Responses to the same seeds, hints by the same draws: from the first batch to the last."""
    kinds = {"ema": OWN, "frozen": ("teacher.placement=own", "teacher.kind=frozen", "teacher.rate=null",
                                    "teacher.clock=null")}  # fmt: skip
    common = ("learner.ranks=1", "tracking.wandb=disabled", "learner.updates_per_batch=2")
    pool = workers[0]
    inside = make_recipe("sdpo", *common, *kinds[kind], "teacher.placement=learner")
    outside = make_recipe("sdpo", *common, *kinds[kind], "teacher.ranks=2")
    _, whole = await trained(inside, tmp_path / "inside", pool)
    trainer, own = await trained(outside, tmp_path / "own", pool)
    assert_same_learning(own.metrics, whole.metrics, 1e-5, 1e-2)
    rows = [row for row in own.metrics if "learner/loss" in row]
    assert all(row["teacher/wait_s"] < 5 for row in rows) and not trainer.foresight._tasks
    assert all("teacher/wait_s" not in row for row in whole.metrics)
    assert rows[-1]["memory/teacher_mb"] > 100 and 0 < rows[-1]["utilization/teacher"] < 1.05


class Struck(Recording):
    """Kills a rank of the teacher, and stops the one that takes its place."""

    blows = {1: signal.SIGKILL, 2: signal.SIGSTOP, 3: signal.SIGKILL}

    async def _generate_and_grade(self, step):
        if (how := self.blows.get(step)) is not None:
            part: Part = self.learner.teachers.parts[0]
            [number] = part.processes
            self.struck = [*getattr(self, "struck", []), number]
            os.kill(number, how)
        return await super()._generate_and_grade(step)


async def test_a_rank_of_the_teacher_that_is_lost_is_replaced(workers, tmp_path):
    """Also where it is the only one, and its weights are no longer those of the beginning."""
    recipe = make_recipe("sdpo", *OWN, "learner.ranks=1", "tracking.wandb=disabled")
    _, whole = await trained(recipe, tmp_path / "whole", workers[0])
    trainer, struck = await trained(recipe, tmp_path / "struck", workers[0], Struck)
    assert len(set(trainer.struck)) == 3 and not any(psutil.pid_exists(number) for number in trainer.struck)
    assert_same_learning(struck.metrics, whole.metrics, 1e-6, 1e-6)
    events = struck.info.events
    assert [(event["part"], event["action"].split(",")[0]) for event in events] == [
        ("teacher rank 0", "it is replaced")
    ] * 3
    assert ["stopped" in event["cause"] for event in events] == [False, True, False]


async def test_a_learner_that_is_lost_gives_the_teacher_its_weights_again(workers, tmp_path):
    """The teacher's ranks stay; they get the average of the checkpoint that the run goes on from."""
    recipe = make_recipe("sdpo", *OWN, "learner.ranks=1", "tracking.wandb=disabled", "run.checkpoint_every=1")

    class LearnerStruck(Recording):
        struck = None

        async def _generate_and_grade(self, step):
            if step == 3 and self.struck is None:
                [self.struck] = self.learner.parts[0].processes
                os.kill(self.struck, signal.SIGKILL)
            return await super()._generate_and_grade(step)

    _, whole = await trained(recipe, tmp_path / "whole", workers[0])
    trainer, struck = await trained(recipe, tmp_path / "struck", workers[0], LearnerStruck)
    assert trainer.struck is not None and [event["part"] for event in struck.info.events] == ["learner rank 0"]
    assert_same_learning(struck.metrics, whole.metrics, 1e-6, 1e-6)


async def test_a_run_goes_on_with_a_teacher_of_its_own(workers, tmp_path):
    """Its first steps with the learner's, the rest with its own; both end as a run of one kind."""
    given = ("teacher.rate=0.1", "learner.ranks=1", "tracking.wandb=disabled", "run.checkpoint_every=1")

    class StoppedTrainer(Recording):
        async def save(self, best):
            await super().save(best)
            if self.state.step == 2:
                raise ConnectionAbortedError

    inside = make_recipe("sdpo", *given)
    outside = make_recipe("sdpo", *given, "teacher.placement=own")
    _, whole = await trained(outside, tmp_path / "whole", workers[0])
    with pytest.raises(ConnectionAbortedError):
        await trained(inside, tmp_path / "broken", workers[0], StoppedTrainer)
    trainer, broken = await trained(outside, tmp_path / "broken", workers[0])
    assert trainer.state.step == 3
    assert_same_learning(broken.metrics, whole.metrics, 1e-5, 1e-2)


async def test_what_was_foreseen_is_all_that_the_update_asks_for(workers, tmp_path):
    """With rollout.staleness a frozen teacher scores the next batch while this one is learned from."""
    frozen = ("teacher.placement=own", "teacher.kind=frozen", "teacher.rate=null", "teacher.clock=null")
    recipe = make_recipe("sdpo", *frozen, "learner.ranks=1", "tracking.wandb=disabled", "rollout.staleness=1")

    class Counting(Recording):
        missed: list[int] = []

        async def _generate_and_grade(self, step):
            groups = await super()._generate_and_grade(step)
            self.known = set(self.learner.teachers._answers)
            return groups

        def _record(self, groups, samples, *learned):
            super()._record(groups, samples, *learned)
            pairs = [pair for own in samples for pair in self.learner.answers.foreseen(own)]
            assert pairs
            self.missed.append(sum(key_of(*pair) not in self.known for pair in pairs))

    trainer, _ = await trained(recipe, tmp_path / "run", workers[0], Counting)
    assert trainer.missed == [0, 0, 0]
