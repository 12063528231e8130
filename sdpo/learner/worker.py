"""One rank of the learner: the student in a DeepSpeed engine, with teacher and reference beside it.

All ranks form one process group (gloo on CPU, NCCL on GPUs).  Data parallelism with ZeRO 0–3; every rank runs the same
number of micro-batches, because collectives of ZeRO-2 and ZeRO-3 happen in each of them.
"""

from __future__ import annotations

import logging
import math
import os
import socket
import tempfile
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Literal

import deepspeed
import psutil
import torch

from sdpo.algorithms.base import LossPlan
from sdpo.config.model_files import known_padding
from sdpo.config.schema import Recipe
from sdpo.errors import UserError
from sdpo.learner import export
from sdpo.learner.advantage_clip import AdvantageClip
from sdpo.learner.checkpointing import Checkpointing, Kept
from sdpo.learner.credit import split_off, token_credit
from sdpo.learner.deepspeed_config import (
    clips_itself,
    fit_buckets,
    inference_config,
    learning_rate_factor,
    training_config,
)
from sdpo.learner.extensions import build_extensions
from sdpo.learner.finite import HeldState, agreed, one_or_nan
from sdpo.learner.layers import LayerProjections
from sdpo.learner.model import PolicyModel, load_model
from sdpo.learner.offload import Offload
from sdpo.learner.passes import ForwardPasses
from sdpo.learner.rendezvous import Rendezvous, join, open_rendezvous
from sdpo.learner.replica import AdapterAverage, AdapterReplica, MovingAverage, Replica, stored
from sdpo.learner.rows import Row
from sdpo.learner.scorer import Head
from sdpo.learner.scores import check_scores
from sdpo.learner.skipped import MADE_BY_MODELS, not_finite_input, not_finite_output
from sdpo.learner.sums import Sums, token_sums
from sdpo.learner.teacher import Teacher
from sdpo.types import ScoredTokens, TokenCredit
from sdpo.weights.publisher import Publisher, publish_adapter


class LearnerWorker:
    def __init__(self, recipe: Recipe, plan: LossPlan, rank: int) -> None:
        self.recipe, self.plan, self.rank = recipe, plan, rank
        self.on_gpu = recipe.profile == "gpu"
        self._listener: socket.socket | None = None  # of rank 0, until the others have come

    def address(self) -> Rendezvous:
        """Where rank 0 is met by the others."""
        where, self._listener = open_rendezvous()
        return where

    def start(self, address: Rendezvous | tuple[str, int]) -> None:
        """Join the process group, load the model, build the engine.  Collective."""
        os.environ.update(
            RANK=str(self.rank),
            WORLD_SIZE=str(self.recipe.learner.ranks),
            LOCAL_RANK="0",  # Ray shows every worker its own devices only
        )
        logging.getLogger("DeepSpeed").setLevel(logging.WARNING)
        settings = self.recipe.learner
        if not self.on_gpu:
            torch.set_num_threads(settings.cpu_threads)
        build_extensions()
        backend = "nccl" if self.on_gpu else "gloo"
        join(address, self.rank, settings.ranks, backend, self._listener)
        deepspeed.init_distributed(dist_backend=backend, verbose=False)
        self.device = torch.device("cuda", 0) if self.on_gpu else torch.device("cpu")
        # cuDNN's attention makes a plan for every shape, and the lengths of packed sequences never come again.
        torch.backends.cuda.enable_cudnn_sdp(False)
        self.dtype = getattr(torch, self.recipe.model.dtype)
        config = training_config(self.recipe)
        # Kept alive: while it exists, from_pretrained shards weights as it reads them.
        self._zero3_loading = _shard_while_loading(config, settings.zero_stage == 3)
        self.student: PolicyModel = load_model(
            self.recipe.model, self.dtype, self.recipe.seed, settings.packing == "auto"
        )
        check_scores(self.recipe, self.student.model.config, self._memory())
        self.student.head.padding = known_padding(self.recipe)
        self.student.match(LayerProjections.of(self.recipe, self.dtype))
        fit_buckets(config, self.student)
        if settings.gradient_checkpointing:
            self.student.recompute_layers()
        optimizer = torch.optim.AdamW(
            self._parameters(),
            lr=settings.lr,
            betas=settings.betas,
            weight_decay=settings.weight_decay,
            fused=True,
        )
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, learning_rate_factor(self.recipe))
        self.engine, *_ = deepspeed.initialize(
            model=self.student, optimizer=optimizer, lr_scheduler=scheduler, config=config
        )
        self.engine.train()
        if clips_itself(self.recipe):
            optimizer.register_step_pre_hook(self._clip)
        self.reference = self._replica(follows=False) if self.plan.reference is not None else None
        self.teacher = None
        if self.recipe.teacher is not None:
            make = self._kept if self.recipe.teacher_ranks else self._replica
            given = self.recipe.teacher_is_replaced, bool(self.recipe.probe.every)
            self.teacher = Teacher(self.recipe.teacher, make, self.reference, *given)
        factor = self.plan.distillation and self.plan.distillation.advantage_clip_factor
        self.advantage_clip = AdvantageClip(factor) if factor else None
        self.publisher: Publisher | None = None
        self._moved = False  # whether the student has moved since the batch began
        self._aside: dict[int, Kept] = {}
        models = self.engine, self.student, self.teacher, self.reference
        self.passes = ForwardPasses(self.recipe, self.plan, *models, self.advantage_clip, self.device)
        model = self.recipe.model
        base = None if model.adapter is None else model.path
        parts = self.engine, optimizer, self.student, self.teacher, self.advantage_clip
        self.checkpointing = Checkpointing(*parts, self.rank, settings.ranks, base)
        self.held = HeldState(self.student, self.checkpointing.weights, self.teacher, self.reference, self.device)
        self.offload = Offload(self._for_updates, self._for_engines)
        if (bad := self.held.first_not_finite()) is not None:
            raise UserError(
                f"The model {self.recipe.model.path} cannot be trained: {bad}, in {self.recipe.model.dtype}. Give "
                "another folder as model.path, or download or export this one again."
            )
        self.passes.check_numbers()
        self._make_room()

    def _parameters(self) -> list[dict[str, Any]]:
        """What the optimiser moves; projections of layers begin anywhere, and move faster."""
        groups: list[dict[str, Any]] = [{"params": [parameter for _, parameter in self.student.trained()]}]
        if self.student.projections is not None:
            rate = self.recipe.distillation.layers.projections_lr
            groups.append({"params": list(self.student.projections.parameters()), "lr": rate})
        return groups

    def _memory(self) -> int:
        """Bytes of the rank's device."""
        if self.on_gpu:
            return torch.cuda.get_device_properties(self.device).total_memory
        return psutil.virtual_memory().total

    def load(self, checkpoint: str) -> None:
        """Go on from what ranks of any number and stage have saved.  Collective.  Raises Damaged."""
        self.offload.back()
        self.checkpointing.load(checkpoint)
        self._make_room()

    def put_aside(self, name: int) -> None:
        """Keep a copy of all that learning goes on from, under a name.  Collective."""
        self.offload.back()
        self._aside[name] = self.checkpointing.keep()
        self._make_room()

    def take_up(self, name: int) -> None:
        """Go on from what was put aside under a name, bit for bit.  Collective."""
        self.offload.back()
        self.checkpointing.take(self._aside.pop(name))
        self._make_room()

    def _make_room(self) -> None:
        """An engine on the same GPU wakes up next: leave it what only updates need, what the allocator keeps for later,
        and what was shared."""
        if self.recipe.learner.offload_states:
            self.offload.away()
        if self.recipe.rollout.colocated:
            torch.cuda.ipc_collect()
            torch.cuda.empty_cache()

    def _for_updates(self) -> Iterator[torch.Tensor]:
        yield from self.checkpointing.weights.tensors()
        for replica in filter(None, self.held.replicas.values()):
            yield from replica.tensors()

    def _for_engines(self) -> Iterator[torch.Tensor]:
        yield from map(stored, self.student.parameters())
        yield from self.student.buffers()

    def _replica(self, follows: bool) -> Replica | AdapterReplica:
        """The weights of this moment beside the student: a copy that stays, or one that follows as a moving average."""
        if self.recipe.model.adapter is not None:
            return self._kept(follows)
        zero3 = inference_config(self.recipe) if self.recipe.learner.zero_stage == 3 else None
        given = self.recipe.model, self.dtype, self.device, zero3, self.student.packs
        replica = (MovingAverage if follows else Replica)(*given)
        replica.policy.head.padding = self.student.head.padding
        return replica

    def _kept(self, follows: bool) -> AdapterReplica:
        """The same of what the student trains, without a model of its own around it."""
        return (AdapterAverage if follows else AdapterReplica)(self.student, lambda pack: self.engine(pack))

    def scores(self, micro_batches: list[list[Row]]) -> list[list[ScoredTokens]]:
        """What a weight hook sees of every row, under the present student and teacher.  Collective."""
        self.offload.back()
        return self.passes.scores(micro_batches)

    def update(self, micro_batches: list[list[Row]]) -> tuple[Sums, dict[str, float], list[list[TokenCredit | None]]]:
        """One optimiser step on this rank's micro-batches.

        Returns sums over its tokens, step-wide numbers, and what each row's tokens got where that is to be recorded.

        A number that is not finite, be it of the loss, the teacher or a gradient, changes nothing: not the weights, the
        optimiser, its schedule, nor the teacher.  Then `learner/skipped_updates` is 1.  Weights that a step made
        infinite all the same make `learner/broken_weights` 1 (on the ranks that hold them), and end the run.
        """
        self.offload.back()
        sums, credit = Sums(), []
        for rows in micro_batches:
            loss, outputs = self.passes.loss(rows, record=True)
            alternatives = split_off(outputs)
            self._backward(loss, one_or_nan(loss, outputs))
            sums.add(token_sums(rows, loss, outputs, by_turn=self.recipe.environment.turns > 1))
            credit.append(token_credit(rows, outputs, alternatives))
        sums.routed = self.passes.routing.take()
        rate = self.engine.get_lr()[0]  # the step moves the schedule on
        self.engine.step()
        applied = self.engine.was_step_applied()  # the same on every rank: gradients or their norm are reduced before
        broken = applied and not self.held.weights_are_finite()
        if applied and not broken:
            self._moved = True
            if self.advantage_clip is not None:
                self.advantage_clip.observe(sums, self.device)
            if self.teacher is not None:
                self.teacher.follow(self.student, "update")
        norm = self._norm if clips_itself(self.recipe) else self.engine.get_global_grad_norm()
        numbers = {
            "learner/grad_norm": float(norm),
            "learner/lr": rate,
            "learner/skipped_updates": float(not applied),
            "learner/broken_weights": float(broken),
        }
        return sums, numbers, credit

    def _backward(self, loss: torch.Tensor, factor: torch.Tensor | float = 1.0) -> None:
        # DeepSpeed averages gradients over ranks; the weights already divide by the counts of all ranks.
        self.engine.backward(loss * (self.recipe.learner.ranks * factor))

    def _clip(self, optimizer: torch.optim.Optimizer, *_: Any) -> None:
        """Between the reduction of the gradients over ranks and the optimiser's step."""
        self._norm = torch.nn.utils.clip_grad_norm_(self.student.parameters(), self.recipe.learner.clip_grad_norm)
        # As DeepSpeed's own optimisers say it: the step was skipped, and the schedule is to stay where it is.
        optimizer.overflow = not torch.isfinite(self._norm)
        if optimizer.overflow:
            self.student.zero_grad(set_to_none=True)  # without gradients the step does nothing

    def first_not_finite(self, micro_batches: list[list[Row]]) -> str | None:
        """What is not finite in an update that was skipped, computed again and skipped again.  Collective.

        In the order in which one follows from the other: a weight, what a model computes, the rows, what the loss makes
        of them, a gradient.
        """
        found: list[str | None] = [self.held.first_not_finite()]
        bad_gradients: list[str] = []
        streams = (self.plan.policy_gradient, self.plan.distillation)
        sampled = any(s is not None and s.sampler_threshold is not None for s in streams)
        for rows in micro_batches:
            loss, outputs = self.passes.loss(rows)
            with self.held.watched_gradients() as gradients:
                self._backward(loss)
            bad_gradients += filter(None, gradients.values())
            values = {name: value.float().cpu().numpy() for name, value in outputs.items()}
            found.append(not_finite_output(rows, {n: v for n, v in values.items() if n in MADE_BY_MODELS}))
            found += [not_finite_input(rows, sampled), not_finite_output(rows, values)]
            found.append(None if torch.isfinite(loss) else f"the loss is {float(loss.detach())}")
        self._backward(self.passes.loss(micro_batches[0])[0], math.nan)  # also where this time all is finite
        self.engine.step()
        assert not self.engine.was_step_applied()
        # Another rank's cause comes before the own gradient.
        return agreed(next(filter(None, found), None)) or agreed(next(iter(bad_gradients), None))

    def finish_batch(self) -> bool:
        """The generation batch is used up: the moment at which a per-batch moving average moves.  Collective.

        Returns whether it has.
        """
        followed = self.teacher is not None and self._moved and self.teacher.follow(self.student, "batch")
        self._moved = False
        self._make_room()
        return followed

    def replace_teacher(self, how: Literal["refresh", "freeze"]) -> None:
        """Give the teacher the student's weights, or keep its own from now on.  Collective."""
        self.offload.back()
        getattr(self.teacher, how)(self.student)
        self._make_room()

    def teach(self, ranks: list[Any], version: int) -> None:
        """Send the moving average, rounded to what models compute with, to ranks of a teacher of its own.

        Collective; rank 0 sends.
        """
        publisher = Publisher("objects", self.recipe.rollout.weight_bucket_mb * 2**20, self.rank)
        publisher.publish(self.teacher.average.full(), ranks, version)

    def take_head(self, head: Head) -> None:
        """That of a teacher of its own, with the weights that its ranks now have."""
        self.teacher.head = head.built(self.dtype, self.device, self.student.head)

    def publish(self, engines: list[Any], version: int, teacher: bool = False, slot: int = 0) -> dict[str, float]:
        """Send the student's weights, or the teacher's, to the rollout engines, or the adapter alone.

        Collective; rank 0 sends.  slot: the adapter's in the engines.
        """
        if teacher:
            self.offload.back()
        with self.teacher.weights(self.student) if teacher else nullcontext(self.student) as policy:
            if self.recipe.loads_adapter:  # then `policy` is the student, with the adapter in question in its place
                report = self._publish_adapter(engines, version, slot)
            else:
                report = self._publish_all(policy, engines, version)
        self._make_room()
        return report

    def _publish_all(self, policy: PolicyModel, engines: list[Any], version: int) -> dict[str, float]:
        if self.publisher is None:
            bucket_bytes = self.recipe.rollout.weight_bucket_mb * 2**20
            self.publisher = Publisher(self.recipe.weight_transfer, bucket_bytes, self.rank)
        report = self.publisher.publish(export.checkpoint_tensors(policy.model), engines, version)
        return {"weights/bytes": float(report.bytes), "weights/pause_s": report.pause_seconds}

    def _publish_adapter(self, engines: list[Any], version: int, slot: int) -> dict[str, float]:
        with tempfile.TemporaryDirectory() as folder:
            self.checkpointing.export(folder)
            files = {path.name: path.read_bytes() for path in Path(folder).iterdir()}
        size = publish_adapter(files, engines, version, slot) if self.rank == 0 else 0
        return {"weights/bytes": float(size), "weights/pause_s": 0.0}


def _shard_while_loading(config: dict, wanted: bool) -> Any:
    from transformers.integrations import HfDeepSpeedConfig, unset_hf_deepspeed_config

    unset_hf_deepspeed_config()  # of a learner that was in this process before, and is perhaps not gone yet
    return HfDeepSpeedConfig(config) if wanted else None
