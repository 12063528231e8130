"""The training loop.  Read `Trainer.step` from top to bottom and you know the system."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from sdpo.algorithms import Algorithm
from sdpo.config.schema import Recipe
from sdpo.envs import Dataset, Environment
from sdpo.errors import PartFailed, UserError
from sdpo.evaluation import EvaluationResult
from sdpo.learner.group import Learner
from sdpo.prompts.context import COUNTED, ContextBuilder
from sdpo.rollout.generation import Generation
from sdpo.rollout.pool import EnginePool
from sdpo.supervision.part import answered, retrieved
from sdpo.tracking import RunFolder, Tracker, ensure_free, rollout_rows
from sdpo.tracking.known import beats
from sdpo.training import replacing
from sdpo.training.adapter_base import name_base
from sdpo.training.alarms import Alarm
from sdpo.training.batch_metrics import batch_metrics, generated_tokens, sound_samples, ungraded_warning
from sdpo.training.batches import Batches
from sdpo.training.checkpoints import Checkpoints, TrainerState
from sdpo.training.engine_check import check_engines
from sdpo.training.evaluate import evaluate
from sdpo.training.foresight import Foresight
from sdpo.training.guard import Guard, RollBack
from sdpo.training.interrupt import Interrupt, Stopped
from sdpo.training.probe import Probe
from sdpo.training.recording import credit_of, with_recorded
from sdpo.training.refresh import refresh_reason
from sdpo.training.replacing import Replacing
from sdpo.training.restarts import Restarts
from sdpo.training.serving import Serving
from sdpo.training.updates import Updates
from sdpo.training.utilization import Utilization
from sdpo.types import Group, Sample, TokenCredit


class Trainer:
    """Owns the parts of a run and its state; the parts run in processes of their own.

    Policy version v are the weights after v − 1 generation batches.  With rollout.staleness 0 the engines hold the
    learner's weights whenever they generate; with s, a response may have begun s versions ago.  `Batches` decides what
    a step learns from.
    """

    def __init__(
        self,
        recipe: Recipe,
        environment: Environment,
        algorithm: Algorithm,
        dataset: Dataset,
        tokenizer: Any,
        pool: EnginePool,
        learner: Learner,
        folder: RunFolder,
        tracker: Tracker,
        interrupt: Interrupt,
    ) -> None:
        self.recipe, self.algorithm, self.dataset, self.tokenizer = recipe, algorithm, dataset, tokenizer
        self.pool, self.learner, self.folder = pool, learner, folder
        self.tracker, self.interrupt = tracker, interrupt
        self.contexts = ContextBuilder(tokenizer, recipe.context, recipe.model.thinking)
        self.generation = Generation(recipe, environment, self.contexts, tokenizer, pool)
        self.checkpoints = Checkpoints(folder.checkpoints, recipe.run.keep_checkpoints)
        self.probe = Probe(recipe, environment, algorithm, dataset, tokenizer, pool)
        self.updates = Updates(recipe, learner, tokenizer, folder, tracker)
        self.guard = Guard(recipe.guard, tracker)
        self.utilization = Utilization(pool, learner)
        self.restarts = Restarts(recipe.run.max_restarts, recipe.supervision.same_step, tracker)
        self.serving = Serving(recipe, pool, learner)
        self.foresight = Foresight(recipe, algorithm, self.contexts, learner)
        self.writing: asyncio.Task[None] | None = None  # a checkpoint
        self.started = False  # learner and engines hold the weights of `state`
        self._begin_at(None)
        given = self.restarts, learner, lambda: (self.state.step, self._saved)
        pool.supervise(Replacing(replacing.ENGINE, self.serving.give, *given))
        if learner.teachers is not None:
            learner.teachers.supervise(Replacing(replacing.TEACHER, self.serving.teach, *given))

    def _begin_at(self, checkpoint: Path | None) -> None:
        """The state of a checkpoint, or of a run's beginning."""
        self.state, self.saved_step = TrainerState(), -1
        self.rng = np.random.default_rng(self.recipe.seed)
        if checkpoint is not None:
            self.state = self.checkpoints.state(checkpoint)
            self.saved_step, self.rng.bit_generator.state = self.state.step, self.state.random_state
        self.algorithm.load_state_dict(self.state.algorithm)
        graded = self.algorithm.needs_rewards
        self.batches = Batches(self.recipe, self.dataset, self.generation, graded, self.state, self.foresight.begin)

    async def run(self) -> bool:
        """Train until the last step.  Returns False if the user or the guard stopped the run (its state is saved)."""
        attempt = self.start()
        try:
            while True:
                try:
                    await self.interrupt.unless_stopped(attempt)
                    await answered(self.learner.parts, "", self._steps())
                    return True
                except PartFailed as failure:
                    attempt = self.recover(failure)
                except RollBack as wanted:
                    attempt = self.roll_back(wanted.alarm)
        except Stopped:
            if not self.guard.stopped:  # who asks for it himself waits for the checkpoint as long as it takes
                self.interrupt.saving()
            await self._written()
            if self.started and self.saved_step != self.state.step > 0:
                await self.save(best=False)
                await self._written()
            return False
        finally:
            self.interrupt.ended()
            self.folder.set_unfinished(self.batches.unfinished(self.state.step))
            self.foresight.close()
            await self.batches.close()
            await self._drop_writing()

    async def _steps(self) -> None:
        run = self.recipe.run
        while True:
            due, done = self._evaluation_due(), self.state.step == run.steps
            if due and not done:
                self.batches.begin(self.state.step + 1)  # beside the evaluation: it has the same weights
            best = due and await self.interrupt.unless_stopped(self.evaluate())
            wanted = best or done or self.state.step % run.checkpoint_every == 0
            if wanted and self.state.step > 0 and (due or self.saved_step != self.state.step):
                await self.save(best)
            if done or (self.writing is not None and self.writing.done()):
                await self._written()
            if done:
                return
            self.interrupt.check()
            await self.step()
            self.guard.act(self.state.rollbacks)

    def _evaluation_due(self) -> bool:
        """Whether the present step is to be measured and has not been, here or before an interruption."""
        step, settings = self.state.step, self.recipe.evaluation
        if self.state.evaluated_step >= step:
            return False
        if step == 0:
            return settings.at_start
        return step == self.recipe.run.steps or bool(settings.every and step % settings.every == 0)

    async def step(self) -> None:
        """One generation batch: probe, generate, grade, assign credit, update, publish, record."""
        step = self.state.step + 1
        probed = await self.interrupt.unless_stopped(self._probe(step))
        probed |= await self._refresh_teacher(step, probed)
        groups = await self.interrupt.unless_stopped(self._generate_and_grade(step))
        self.contexts.batch = groups
        samples = self.algorithm.assign(groups, self.contexts, self.rng)
        self.foresight.assigned(step, self.rng)
        samples = with_recorded(groups, samples, self.recipe.seed, self.recipe.tracking.tokens_mb)
        sound, warning = sound_samples(groups, samples, self.recipe.learner.updates_per_batch)
        if warning:
            self.tracker.message(warning)
        async with self.serving.lock:
            with self.tracker.phase("update", total=self.recipe.learner.updates_per_batch) as progress:
                await self.serving.free_gpus()
                learned = await self.updates.run(sound, progress.advance, step, self._saved)
            with self.tracker.phase("publish"):
                learned |= await self.serving.publish(version=step + 1)
            self.state.step = step
        learned |= probed | await self.utilization.since_last()
        self.state.generations += self.recipe.samples_per_step
        self.state.generated_tokens += generated_tokens(groups)
        self._record(groups, samples, learned, credit_of(samples, sound, self.learner.credit))

    async def _check_finite(self) -> None:
        """No checkpoint is written from what is not finite, and none becomes the best.  Raises UserError."""
        if (bad := await self.learner.check_finite()) is not None:
            raise UserError(
                f"The state after step {self.state.step} is not saved, because of {bad}. Give another run (name=…) a "
                f"lower learner.lr ({self.recipe.learner.lr:g}). Checkpoints stay as they were; the same command "
                f"repeats the run from {self._saved}."
            )

    async def _probe(self, step: int) -> dict[str, float]:
        """Measure student and teacher before the step, where that is due; the engines then hold the student again."""
        if not self.probe.due(step):
            return {}
        with self.tracker.phase("probe", total=len(self.probe.tasks)) as progress:
            return await self.probe.run(self._serve, progress.advance)

    async def _serve(self, teacher: bool) -> None:
        """Between two steps: give the engines the teacher's weights, or the policy's back."""
        await self.batches.settled()  # what is sampled ahead comes from the policy
        async with self.serving.lock:
            await self.serving.free_gpus()
            await self.serving.publish(self.state.step + 1, teacher)

    async def _refresh_teacher(self, step: int, probed: dict[str, float]) -> dict[str, float]:
        """Make the student the teacher before the step, if the rule of `teacher.refresh` says so."""
        teacher = self.recipe.teacher
        if teacher is None or teacher.refresh is None:
            return {}
        if reason := refresh_reason(teacher.refresh, self.guard.rows, self.state.teacher_step, probed):
            async with self.serving.lock:
                await self.learner.replace_teacher("refresh")
            self.state.teacher_step = step - 1
            self.tracker.message(f"The teacher is now the policy after step {step - 1}: {reason}.")
        return {"teacher/age": float(step - 1 - self.state.teacher_step)}

    async def _generate_and_grade(self, step: int) -> list[Group]:
        """Responses are graded as they finish; the phases are what is left to wait for."""
        self.foresight.reached(step, self.rng)
        total = self.recipe.samples_per_step
        with self.tracker.phase("generate", total=total) as progress:
            pending = await self.batches.take(step, progress.update)
        with self.tracker.phase("judge", total=total) as progress:
            return [await group.graded(progress.advance) for group in pending]

    async def evaluate(self) -> bool:
        """Measure pass@k on the evaluation tasks (and the training tasks, if asked).  True: the best yet."""
        metrics: dict[str, float] = {}
        results: dict[str, EvaluationResult] = {}
        for name, tasks in self.dataset.evaluation_sets(self.recipe.evaluation.training_problems).items():
            total = len(tasks) * self.recipe.evaluation_samples
            with self.tracker.phase(f"evaluate {name}", total=total) as progress:
                evaluation = await evaluate(self.generation, tasks, self.dataset, name, progress.advance)
            results[name] = evaluation.result
            evaluation.result.save(self.folder.evaluations / f"step-{self.state.step:06d}-{name}.json")
            metrics |= {f"eval/{name}/{key}": value for key, value in results[name].metrics().items()}
            if warning := results[name].warning:
                self.tracker.message(warning)
        self.tracker.log(self.state.step, self.state.generations, metrics, self.state.generated_tokens)
        self.state.evaluated_step = self.state.step
        value = next(iter(results.values())).pass_at_k[1].value
        if self.state.step == 0 or not beats(value, self.state.best_value):
            return False  # what was there before training is no checkpoint of this run
        self.state.best_value, self.state.best_step = value, self.state.step
        return True

    def _record(
        self,
        groups: list[Group],
        samples: list[list[Sample]],
        learned: dict[str, float],
        credit: list[list[TokenCredit | None]],
    ) -> None:
        metrics = batch_metrics(groups, samples, self.state.step, self.recipe.environment.turns) | learned
        metrics["response/unfinished"] = float(self.batches.unfinished(self.state.step))
        counts = {name: 0 for name in COUNTED} | self.contexts.counts
        metrics |= {f"context/{name}": float(count) for name, count in counts.items()}
        self.contexts.counts.clear()
        metrics |= self.guard.look(self.state.step, metrics, self.state.rollbacks)
        self.tracker.log(self.state.step, self.state.generations, metrics, self.state.generated_tokens)
        rows = rollout_rows(groups, samples, self.tokenizer.decode, credit)
        tracking = self.recipe.tracking
        self.tracker.rollouts(self.state.step, rows, tracking.rollouts_mb, tracking.shown_rollouts)
        if warning := ungraded_warning(groups):
            self.tracker.message(warning)

    async def start(self) -> None:
        """Take over the last checkpoint, if there is one, and give the engines the learner's weights."""
        checkpoint = self.checkpoints.usable(self.tracker.message)
        self._begin_at(checkpoint)
        async with self.serving.lock:
            await self._load_and_publish(checkpoint)
        self.guard.begin(self.folder.metrics)
        await answered(self.learner.parts, "", check_engines(self.learner, self.pool))
        await self.utilization.since_last()
        self.started = True

    async def _load_and_publish(self, checkpoint: Path | None) -> None:
        """Give a learner that has just started the weights to go on with, and the engines the learner's."""
        if checkpoint is not None:
            with self.tracker.phase(f"loading checkpoint {checkpoint.name}", announce=True):
                await self.learner.load(checkpoint)
            if (bad := await self.learner.check_finite()) is not None:
                raise UserError(
                    f"{checkpoint} cannot be resumed from, because of {bad}. Remove it, and the same command goes on "
                    "from the checkpoint before it, or from the start."
                )
        with self.tracker.phase("publishing weights to the engines", announce=True):
            await self.serving.publish(version=self.state.step + 1)

    # ---- what fails on the way ----

    async def recover(self, failure: PartFailed) -> None:
        """A learner rank is lost: begin all ranks anew, and go on from the last checkpoint as a resumed run does."""
        await self._end_learner()
        done, last = self.state.step, self.checkpoints.usable(self.tracker.message)
        self._begin_at(last)
        where = "the beginning" if last is None else f"step {self.state.step}"
        action = f"the learner is restarted from {where}, {done - self.state.step} step(s) are made again"
        self.restarts.permit(failure, done, action, self._saved)
        self.folder.resume(self.state.step if last is not None else -1, self.state.rows)
        await self._restart_learner(last)
        self.started = True

    async def roll_back(self, alarm: Alarm) -> None:
        """The policy has become worse: begin all ranks anew from the last good checkpoint, with another teacher."""
        await self._end_learner()
        done, number, how = self.state.step, self.state.rollbacks + 1, self.recipe.teacher_after_rollback
        good = self.checkpoints.go_back(alarm.good, alarm.since, self.tracker.message)
        self._begin_at(good)
        self.state.rollbacks, self.state.evaluated_step = number, max(0, self.state.evaluated_step)
        if how == "refresh":
            self.state.teacher_step = self.state.step
        self.guard.rolled_back(alarm, done, self.state.step, how, number)
        self.folder.resume(self.state.step, self.state.rows)
        await self._restart_learner(good)
        async with self.serving.lock:
            await self.learner.replace_teacher(how)
        self.started = True
        await self.save(best=False)  # with the new teacher, and the count of rollbacks

    async def _end_learner(self) -> None:
        self.started = False
        self.foresight.close()
        await self.batches.close()
        await self.learner.end()
        await self._drop_writing()
        self.tracker.discard()
        self.contexts.counts.clear()

    async def _restart_learner(self, checkpoint: Path | None) -> None:
        async with self.serving.lock:
            with self.tracker.phase("restarting the learner", announce=True):
                await self.serving.free_gpus()
                await self.learner.restart()
            await self._load_and_publish(checkpoint)
        self.guard.begin(self.folder.metrics)
        await self.utilization.since_last()

    @property
    def _saved(self) -> str:
        return f"step {self.saved_step}" if self.saved_step > 0 else "its beginning"

    async def save(self, best: bool) -> None:
        """Write a checkpoint of the state after the last complete step, or begin to."""
        await self._written()
        await self._check_finite()
        self.state.random_state, self.state.algorithm = self.rng.bit_generator.state, self.algorithm.state_dict()
        self.state.unlearned = self.batches.unlearned(self.state.step)
        self.state.rows = self.folder.metrics_of(self.state.step)
        ensure_free(self.checkpoints.folder, await self.learner.checkpoint_size())
        with self.tracker.phase("checkpoint"):
            partial = self.checkpoints.begin(self.state.step)
            if self.recipe.run.asynchronous_checkpoints:
                await self.learner.copy(partial, partial / "policy")
            self.writing = asyncio.create_task(self._commit(partial, replace(self.state), best))
            if not self.recipe.run.asynchronous_checkpoints:
                await self._written()

    async def _commit(self, partial: Path, state: TrainerState, best: bool) -> None:
        """Make it count once the ranks have written their parts."""
        if self.recipe.run.asynchronous_checkpoints:
            written = await self.learner.written()
        else:
            written = await self.learner.save(partial) | await self.learner.export(partial / "policy")
        self.tokenizer.save_pretrained(partial / "policy")
        if self.recipe.model.adapter is not None:
            name_base(partial / "policy", self.recipe.model, self.folder.path)
        self.checkpoints.commit(partial, written, state, best)
        self.saved_step = state.step

    async def _written(self) -> None:
        """Wait for the checkpoint that is being written, if there is one.  Raises what went wrong with it."""
        if (writing := self.writing) is not None:
            self.writing = None
            await writing

    async def _drop_writing(self) -> None:
        """Give up the checkpoint that is being written."""
        if (writing := self.writing) is not None:
            self.writing = None
            writing.cancel()
            await asyncio.wait([writing])
            retrieved(writing)
