"""The driver's handle on the learner: starts its ranks, deals out rows, adds up metrics."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, TypeVar, cast

import numpy as np
import ray
from ray.actor import ActorHandle, ActorProxy
from ray.exceptions import RayError, RayTaskError
from ray.util.placement_group import PlacementGroup
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from sdpo.algorithms.base import LossPlan
from sdpo.checkpoints.manifest import Records
from sdpo.config.schema import Recipe
from sdpo.errors import PartFailed
from sdpo.learner.answers import Answers
from sdpo.learner.operators import Operator
from sdpo.learner.rank import LearnerRank, MicroBatches, Updated, for_a_rank
from sdpo.learner.rows import Row, assign_to_ranks, loss_weighted_rows, reweighed, split, with_advantages
from sdpo.learner.skipped import BrokenWeights, TooManySkipped
from sdpo.learner.sums import Sums
from sdpo.learner.teacher_pool import TeacherPool
from sdpo.supervision.part import Part, answered
from sdpo.supervision.watch import Watch
from sdpo.types import Sample, ScoredTokens, TokenCredit

_WRITTEN_S = 0.2  # between two questions whether a checkpoint is on the disk
Result = TypeVar("Result")
Scored = TypeVar("Scored")


class Learner:
    """N ranks of `LearnerWorker`.  Methods are coroutines of the driver; each one is a collective of all ranks."""

    answers: Answers | None = None  # of a teacher of its own

    def __init__(
        self,
        recipe: Recipe,
        plan: LossPlan,
        actor_options: dict[str, Any],
        group: PlacementGroup | None = None,
        teachers: TeacherPool | None = None,
    ) -> None:
        """`actor_options`: resources of one rank; in a placement group rank i takes bundle i.  `teachers`: a teacher of
        its own."""
        self.recipe, self.plan = recipe, plan
        self.ranks: list[ActorProxy[LearnerRank]] = []
        self.parts: list[Part] = []  # what there is to be watched, rank by rank
        self.watch = Watch()
        self.skipped = 0  # updates in a row
        self.skip_reason = ""
        self.credit: list[list[TokenCredit | None]] = []
        self._options, self._group = actor_options, group
        self._longest: dict[str, float] = {}
        self._aside: dict[int, int] = {}  # `skipped` of what was put aside
        self._launch()
        self.answers = None if teachers is None else Answers(teachers, plan)

    @property
    def teachers(self) -> TeacherPool | None:
        """The ranks of a teacher of its own."""
        return None if self.answers is None else self.answers.pool

    def _launch(self) -> None:
        given = for_a_rank(self.recipe, self.plan)
        for rank in range(self.recipe.learner.ranks):
            where: Any = "DEFAULT"
            if self._group is not None:
                where = PlacementGroupSchedulingStrategy(self._group, placement_group_bundle_index=rank)
            actor = ray.remote(LearnerRank).options(**self._options, scheduling_strategy=where)
            self.ranks.append(actor.remote(*given, rank))
            self.parts.append(Part(f"learner rank {rank}", self._longest))

    async def start(self) -> None:
        await asyncio.gather(self._start(), *([] if self.teachers is None else [self.teachers.start()]))
        await self.take_head()

    async def _start(self) -> None:
        found = await self._all("identity", [rank.identity.remote() for rank in self.ranks])
        for part, (node, process, logs) in zip(self.parts, found, strict=True):
            part.runs_in(node, {process: "its process"}, complete=True, logs=logs)
        [address] = await self._all("address", [self.ranks[0].address.remote()])
        await self._all("start", [rank.start.remote(address) for rank in self.ranks])

    async def end(self) -> None:
        """End all ranks, the stopped ones too.

        One alone cannot be replaced: the others hang in a collective operation, or hold a part of its step.
        """
        self._end()
        for part in self.parts:
            await self.watch.kill(part)
        self.ranks, self.parts, self.skipped = [], [], 0
        if self.teachers is not None:
            self.teachers.forget()

    async def restart(self) -> None:
        """After `end`: ranks in the places of those that there were, with nothing learned yet."""
        if "num_gpus" not in self._options:  # a rank that shares its cores fits wherever a machine is left
            self._options = self._options | {"num_cpus": 0}
        self._launch()
        await self._start()
        await self.teach()

    async def _all(self, phase: str, calls: Sequence[Awaitable[Result]]) -> list[Result]:
        """What all ranks answer, or some of them.

        Raises PartFailed if a rank is dead, stopped, or takes too long; then the others, which wait for it, are of no
        use any more.
        """
        parts = self.parts
        try:
            return list(await answered(parts, phase, asyncio.gather(*calls)))
        except RayError as error:
            # A rank that survives raises first, that its peer has hung up; the dead one is the one to name.
            causes = await self.watch.explain(parts)
            lost = isinstance(error, RayTaskError) and isinstance(error.cause, PartFailed)
            if isinstance(error, RayTaskError) and not causes and not lost:
                raise
            part, cause = next(iter(causes.items()), (parts[0], f"its process died ({str(error).splitlines()[0]})"))
            raise part.fail(cause) from error

    async def train(
        self, groups: Sequence[Sequence[Sample]], on_update: Callable[[], None] = lambda: None, step: int = 1
    ) -> dict[str, float]:
        """Use up generation batch `step`: `updates_per_batch` optimiser steps, each on an equal share of the groups.

        Returns means over all response tokens of the batch; `learner/loss` and the gradient norm are means over steps.
        Updates with a number that is not finite are skipped and belong to no mean, unless all of them are;
        `learner/skipped_updates` counts them, `skip_reason` is the first tensor that was not finite in the last one.
        `learner.max_skipped` in a row raise `TooManySkipped`, a step to weights that are not finite `BrokenWeights`.
        `credit` then has, for every sample, what its update found of its tokens, if the sample is to be recorded.
        """
        updates = self.recipe.learner.updates_per_batch
        per_update = len(groups) // updates
        batches = [[s for g in groups[u * per_update : (u + 1) * per_update] for s in g] for u in range(updates)]
        plan = self.plan.at(step)
        rows = [loss_weighted_rows(batch, plan, self.recipe.rollout.max_response_tokens) for batch in batches]
        if updates > 1:
            rows = await self._with_old_log_probs(rows)
        done, skipped, credit = [], [], []
        for number, batch in enumerate(rows, start=1):
            batch = await self._taught(await self._hooked(batch, plan))
            shares = self._split(batch)
            share = assign_to_ranks(batch, shares)
            given = zip(self.ranks, share, strict=True)
            results = await self._all("update", [rank.update.remote(own) for rank, own in given])
            if any([numbers.pop("learner/broken_weights") for _, numbers, _ in results]):
                raise BrokenWeights(number, await self.check_finite() or "a weight")
            if results[0][1].pop("learner/skipped_updates"):
                skipped.append(results)
                await self._count_skipped(batch, share, number)
            else:
                done.append(results)
                self.skipped = 0
            credit += _in_order(shares, [kept for _, _, kept in results], len(batch))
            on_update()
        followed = await self._all("finish_batch", [rank.finish_batch.remote() for rank in self.ranks])
        if any(followed):
            await self.teach()
        metrics = _means(done or skipped)
        metrics["learner/skipped_updates"] = float(len(skipped))
        if self.answers is not None:
            metrics["teacher/wait_s"], self.answers.waited = self.answers.waited, 0.0
            self.answers.pool.forget(step)
        each = iter(credit)
        self.credit = [[next(each, None) for _ in group] for group in groups]
        return metrics

    async def _count_skipped(self, rows: list[Row], share: list[list[list[Row]]], number: int) -> None:
        self.skipped += 1
        given = zip(self.ranks, share, strict=True)
        found = await self._all("search", [rank.first_not_finite.remote(own) for rank, own in given])
        self.skip_reason = next(filter(None, found), "the norm of all gradients, or a number that is finite this time")
        if self.skipped >= self.recipe.learner.max_skipped:
            raise TooManySkipped(rows, number, self.skip_reason, self.skipped)

    async def _with_old_log_probs(self, batches: list[list[Row]]) -> list[list[Row]]:
        """Score the whole batch once with the policy that it begins with, before the first update changes it."""
        rows = [row for batch in batches for row in batch]
        old = await self._scored(rows, lambda rank, own: rank.log_probs.remote(own))
        scored = iter(replace(row, old_log_probs=values) for row, values in zip(rows, old, strict=True))
        return [[next(scored) for _ in batch] for batch in batches]

    async def _hooked(self, rows: list[Row], plan: LossPlan) -> list[Row]:
        """The rows as the plan's hooks change them; the scores of one pass serve both."""
        if plan.weight_hook is not None or plan.advantage_hook is not None:
            scored = await self._scores(rows)
            if plan.weight_hook is not None:
                rows = reweighed(rows, plan.weight_hook(scored))
            if plan.advantage_hook is not None:
                rows = with_advantages(rows, plan.advantage_hook(scored))
            rows = [replace(row, contrasts=()) for row in rows]
        if plan.distillation is not None:
            return rows
        # No loss looks at the teacher; of recorded tokens its numbers are wanted back.
        return [row if row.recorded else replace(row, teacher_prompt_ids=None) for row in rows]

    async def _scores(self, rows: list[Row]) -> list[ScoredTokens]:
        """What the hooks see; a row is scored once more for every other prompt of its teacher."""
        again = [replace(row, teacher_prompt_ids=prompt) for row in rows for prompt in row.contrasts]
        asked = await self._taught([*rows, *again])
        scored = await self._scored(asked, lambda rank, own: rank.scores.remote(own))
        others = iter(scored[len(rows) :])
        return [
            replace(own, contrasts=np.stack([next(others).log_ratio for _ in row.contrasts])) if row.contrasts else own
            for own, row in zip(scored[: len(rows)], rows, strict=True)
        ]

    async def _taught(self, rows: list[Row]) -> list[Row]:
        """With what a teacher of its own says of them; one of the ranks' is asked by the ranks."""
        return rows if self.answers is None else await self.answers.given(rows)

    async def _scored(
        self,
        rows: Sequence[Row],
        score: Callable[[ActorProxy[LearnerRank], MicroBatches], Awaitable[list[list[Scored]]]],
    ) -> list[Scored]:
        """What `score` says of each row, asked of every rank for its share; in the order of the rows."""
        shares = self._split(rows)
        given = zip(self.ranks, assign_to_ranks(rows, shares), strict=True)
        return _in_order(shares, await self._all("score", [score(rank, own) for rank, own in given]), len(rows))

    def _split(self, rows: Sequence[Row]) -> list[list[list[int]]]:
        return split(rows, self.recipe.learner.ranks, self.recipe.learner.pass_tokens)

    async def usage(self) -> dict[str, float]:
        """`LearnerRank.usage`: of each number the maximum over the ranks."""
        ranks = await self._all("usage", [rank.usage.remote() for rank in self.ranks])
        return {name: max(values[name] for values in ranks) for name in ranks[0]}

    async def start_profile(self) -> None:
        """Rank 0 records its operators from now on."""
        await self.ranks[0].start_profile.remote()

    async def end_profile(self, operators: int) -> tuple[list[Operator], float]:
        """The operators of rank 0 that took longest by themselves, and the seconds of all."""
        return await self.ranks[0].end_profile.remote(operators)

    async def publish(self, engines: list[Any], version: int, teacher: bool = False, slot: int = 0) -> dict[str, float]:
        """Send the student's weights, or the teacher's, to the rollout engines as `version`; an adapter to its slot."""
        given = engines, version, teacher, slot
        return (await self._all("publish", [rank.publish.remote(*given) for rank in self.ranks]))[0]

    async def replace_teacher(self, how: Literal["refresh", "freeze"]) -> None:
        """refresh: the teacher's weights become the student's; freeze: they stay as they are now."""
        await self._all("replace_teacher", [rank.replace_teacher.remote(how) for rank in self.ranks])
        await self.teach()

    async def teach(self, ranks: Sequence[ActorHandle] | None = None) -> None:
        """Give a teacher of its own the weights of the moving average, which the ranks keep, and take its new head.

        ranks: of the teacher, None for all of them, which are then of a new version.  Nothing happens where the
        teacher has had the weights of the run's beginning all along.
        """
        if self.teachers is None:
            return
        if self.recipe.teacher_has_average and (ranks is None or self.teachers.version):
            if ranks is None:
                self.teachers.forget()
                self.teachers.version += 1
            given = list(ranks or self.teachers.handles), self.teachers.version
            await self._all("teach", [rank.teach.remote(*given) for rank in self.ranks])
        if ranks is None:
            await self.take_head()

    async def take_head(self) -> None:
        """The ranks get the head with which they project what a teacher of its own answers."""
        if self.teachers is not None:
            head = await self.teachers.head()
            await self._all("take_head", [rank.take_head.remote(head) for rank in self.ranks])

    async def probe(self, tokens: int) -> tuple[str, list[int], list[int], np.ndarray]:
        """The student's log-probs of random tokens, see `ForwardPasses.probe`."""
        return (await self._all("probe", [rank.probe.remote(tokens) for rank in self.ranks]))[0]

    async def check_finite(self) -> str | None:
        """The first tensor of weights, optimiser and moving average that is not finite; None: all are."""
        return (await self._all("check", [rank.check_finite.remote() for rank in self.ranks]))[0]

    async def checkpoint_size(self) -> int:
        """Bytes of the tensors that a checkpoint holds."""
        return (await self._all("check", [self.ranks[0].checkpoint_size.remote()]))[0]

    async def save(self, folder: Path) -> Records:
        """Write the state of all ranks below `folder`.  Returns what was written, by its path within it."""
        return _together(await self._all("save", [rank.save.remote(str(folder)) for rank in self.ranks]))

    async def copy(self, folder: Path, policy: Path) -> None:
        """Copy to memory what `save` and `export` write, and begin to write it; `written` waits for that."""
        await self._all("copy", [rank.copy.remote(str(folder), str(policy)) for rank in self.ranks])

    async def written(self) -> Records:
        """What `copy` had written, by its path within the checkpoint, once all of it is on the disk."""
        while True:  # a rank answers between two updates: nothing waits in it
            found = await self._all("written", [rank.written.remote() for rank in self.ranks])
            done = [records for records in found if records is not None]
            if len(done) == len(found):
                return _together(done)
            await asyncio.sleep(_WRITTEN_S)

    async def load(self, folder: Path) -> None:
        await self._all("load", [rank.load.remote(str(folder)) for rank in self.ranks])
        await self.teach()

    async def put_aside(self, name: int) -> None:
        """Keep a copy of all that learning goes on from under a name, in the memory of the ranks."""
        await self._all("swap", [rank.put_aside.remote(name) for rank in self.ranks])
        self._aside[name] = self.skipped

    async def take_up(self, name: int) -> None:
        """Go on from what was put aside under a name, and is forgotten there."""
        await self._all("swap", [rank.take_up.remote(name) for rank in self.ranks])
        self.skipped = self._aside.pop(name)
        await self.teach()

    async def export(self, folder: Path) -> Records:
        """Write the policy as a Hugging Face folder.  Returns what was written, by its path within the parent."""
        return _together(await self._all("export", [rank.export.remote(str(folder)) for rank in self.ranks]))

    def abandon(self) -> None:
        """Kill what runs on this machine without asking Ray, which is gone."""
        self.watch.kill_here(self.parts)
        self.ranks, self.parts = [], []
        if self.teachers is not None:
            self.teachers.abandon()

    def shutdown(self) -> None:
        self._end()
        if self.teachers is not None:
            self.teachers.shutdown()

    def _end(self) -> None:
        for rank in self.ranks:
            ray.kill(cast(ActorHandle, rank))


def _together(parts: Sequence[Records]) -> Records:
    return {name: record for records in parts for name, record in records.items()}


def _in_order(shares: list[list[list[int]]], results: Sequence[list[list[Scored]]], rows: int) -> list[Scored]:
    """What ranks said of their micro-batches' rows, in the order of all rows; `shares` as `split` gives them."""
    ordered: list[Any] = [None] * rows
    for share, result in zip(shares, results, strict=True):
        for indices, values in zip(share, result, strict=True):
            for i, value in zip(indices, values, strict=False):  # a filler's value has no index
                ordered[i] = value
    return ordered


def _means(updates: Sequence[Sequence[Updated]]) -> dict[str, float]:
    """Metrics from what `update` returned: of every update, rank by rank."""
    sums = Sums()
    for results in updates:
        for rank_sums, _, _ in results:
            sums.add(rank_sums)
    metrics = sums.means()
    metrics["learner/loss"] /= len(updates)
    values = [results[0][1] for results in updates]
    return metrics | {name: sum(v[name] for v in values) / len(updates) for name in values[0]}
