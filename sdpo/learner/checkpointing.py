"""What a rank writes and reads: checkpoints to go on from, and the policy as a Hugging Face folder.

state/rank-00000.json, …   tensors by name, in slices (`sdpo.checkpoints.slices`); of each parameter
                             weight                in fp32; what a bf16 policy computes with is its rounding
                             exp_avg, exp_avg_sq   the moments of AdamW, once it has moved the parameter
                             average               the teacher's weight in fp32, where it may move or be replaced
                           and of each persistent buffer: buffer
state/learner.json         `LearnerState`

Neither the number of ranks nor the ZeRO stage shows in it, so that any other can go on from it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, NonNegativeInt, ValidationError

from sdpo.checkpoints.durable import sync_file, write_file
from sdpo.checkpoints.manifest import Damaged, FileRecord, Records, measure_all
from sdpo.checkpoints.slices import FOLDER, SliceReader, SliceWriter, Sort
from sdpo.learner import export
from sdpo.learner.adapter import write_adapter
from sdpo.learner.advantage_clip import AdvantageClip
from sdpo.learner.gathering import gathered
from sdpo.learner.held import MOMENTS, WEIGHT, Held, OptimizedWeights
from sdpo.learner.model import PolicyModel
from sdpo.learner.teacher import Teacher

AVERAGE, BUFFER = "average", "buffer"


class LearnerState(BaseModel):
    """What is one number for all ranks."""

    model_config = ConfigDict(extra="forbid", strict=True, ser_json_inf_nan="constants")
    schedule: NonNegativeInt  # optimiser steps that the learning-rate schedule has seen
    global_steps: NonNegativeInt  # DeepSpeed's counters
    skipped_steps: NonNegativeInt
    mean_advantage: float | None  # of the advantage clip
    teacher_frozen: bool = False  # for good, by a guard


@dataclass(frozen=True)
class Kept:
    """What a rank holds of a checkpoint, copied to the host's memory."""

    tensors: dict[tuple[str, str], torch.Tensor]  # by kind and name
    steps: dict[str, int]
    state: LearnerState


class Checkpointing:
    """Everything of a rank that outlives it: student, optimiser, schedule, moving-average teacher, advantage clip."""

    def __init__(
        self,
        engine: Any,
        optimizer: torch.optim.Optimizer,
        student: PolicyModel,
        teacher: Teacher | None,
        advantage_clip: AdvantageClip | None,
        rank: int,
        ranks: int,
        base: str | None = None,
    ) -> None:
        """`base`: what the student's adapter is for, as the recipe names it; None: all of the student trains."""
        self.base = base
        self.engine, self.optimizer, self.student = engine, optimizer, student
        self.teacher, self.average = teacher, teacher.average if teacher is not None else None
        self.advantage_clip, self.rank, self.ranks = advantage_clip, rank, ranks
        self.weights = OptimizedWeights(engine, optimizer, student, rank)

    def size(self) -> int:
        """Bytes of the tensors that all ranks write for one checkpoint."""
        policy, student = self.student.model, self.student
        trained, optimised, whole = (
            sum(getattr(p, "ds_numel", p.numel()) for _, p in parameters)
            for parameters in (student.trained(), student.optimised(), policy.named_parameters())
        )
        kept = optimised * (1 + len(MOMENTS)) + trained * (self.average is not None)
        exported = whole if self.base is None else trained
        return kept * 4 + exported * next(policy.parameters()).element_size()

    def save(self, folder: str) -> Records:
        """Write this rank's share of the checkpoint `folder`.  Returns what was written, which is on the disk."""
        return self._state_of(Path(folder), later=False)()

    def copy(self, folder: str, policy: str) -> Callable[[], Records]:
        """Copy to memory what `save` and `export` (into `policy`) would write.  Collective.

        What it returns writes that, in any thread, and whatever becomes of the weights meanwhile.
        """
        write_state, write_policy = self._state_of(Path(folder), later=True), self._policy_in(policy)
        return lambda: write_state() | write_policy()

    def _state_of(self, checkpoint: Path, later: bool) -> Callable[[], Records]:
        writer = SliceWriter(checkpoint, self.rank, later=later)
        for held in self._held():
            own = held.share(self.rank, self.ranks)
            for kind, values in own.views.items():
                writer.add(kind, own.name, own.shape, own.offset, values)
        if self.rank == 0:
            for name, buffer in self._buffers().items():
                writer.add(BUFFER, name, tuple(buffer.shape), 0, buffer)
        steps, data = self.weights.steps(), self._state().model_dump_json(indent=1).encode()

        def write() -> Records:
            records = writer.close(steps)
            if self.rank == 0:
                write_file(checkpoint / _STATE, data)
                records[_STATE] = FileRecord.of(data)
            return records

        return write

    @torch.no_grad()
    def load(self, folder: str) -> None:
        """Take over what ranks of any number and stage have saved.  Collective.

        Raises:
            Damaged: it is of another model, or has not all that is needed here.
        """
        state, reader = _read_state(Path(folder)), SliceReader(Path(folder))
        shapes = {n: tuple(getattr(p, "ds_shape", p.shape)) for n, p in self.student.optimised()}
        weights = {name: (shape, torch.float32) for name, shape in shapes.items()}
        buffers = {name: (tuple(buffer.shape), buffer.dtype) for name, buffer in self._buffers().items()}
        _compare(WEIGHT, reader, weights)
        _compare(BUFFER, reader, buffers)
        for kind in MOMENTS:
            _compare(kind, reader, {name: sort for name, sort in weights.items() if name in reader.steps})
        if self.average is not None:
            _compare(AVERAGE, reader, {name: weights[name] for name, _ in self.student.trained()})
        self._take(
            state,
            reader.steps,
            lambda kind, held: reader.read(kind, held.name, held.offset, held.length),
            lambda name: reader.full(BUFFER, name),
        )

    @torch.no_grad()
    def keep(self) -> Kept:
        """A copy of all that `save` writes, of what this rank holds.  Collective."""
        tensors = {(kind, held.name): view for held in self._held() for kind, view in held.views.items()}
        tensors |= {(BUFFER, name): buffer for name, buffer in self._buffers().items()}
        copied = {key: tensor.to("cpu", copy=True) for key, tensor in tensors.items()}
        return Kept(copied, self.weights.steps(), self._state())

    @torch.no_grad()
    def take(self, kept: Kept) -> None:
        """Take over what was kept here.  Collective."""
        self._take(
            kept.state,
            kept.steps,
            lambda kind, held: kept.tensors[kind, held.name],
            lambda name: kept.tensors[BUFFER, name],
        )

    def _take(
        self,
        state: LearnerState,
        steps: Mapping[str, int],
        read: Callable[[str, Held], torch.Tensor],
        read_buffer: Callable[[str], torch.Tensor],
    ) -> None:
        self.weights.begin_load(steps)
        for held in self._held():
            for kind, view in held.views.items():
                if kind == WEIGHT or kind == AVERAGE or held.name in steps:
                    view.copy_(read(kind, held))
        self.weights.finish_load()
        if self.average is not None:
            self.average.take_over()
            self.teacher.frozen = state.teacher_frozen
        if self.advantage_clip is not None:
            self.advantage_clip.mean = state.mean_advantage
        for name, buffer in self._buffers().items():
            buffer.copy_(read_buffer(name))
        self._resume_schedule(state)

    def export(self, folder: str) -> Records:
        """Write the student as a Hugging Face folder, weights and configuration: the model, or PEFT's of its adapter.

        Collective; rank 0 writes.

        Returns what it wrote, by its path within the checkpoint, the folder's parent.
        """
        return self._policy_in(folder)()

    def _policy_in(self, folder: str) -> Callable[[], Records]:
        state: dict[str, torch.Tensor] = {}
        for tensors in export.named_state(self.student.model) if self.base is None else self._adapter():
            if self.rank == 0:
                state |= {name: tensor.cpu().clone() for name, tensor in tensors}

        def write() -> Records:
            if self.rank != 0:
                return {}
            if self.base is None:
                export.write(self.student.model, state, folder)
            else:
                write_adapter(self.student.model, state, self.base, Path(folder))
            files = sorted(path for path in Path(folder).rglob("*") if path.is_file())
            for path in files:
                sync_file(path)
            parent = Path(folder).parent
            return measure_all(parent, [path.relative_to(parent).as_posix() for path in files])

        return write

    def _adapter(self) -> Iterator[list[export.Named]]:
        own = [(name.removeprefix("model."), p) for name, p in self.student.trained()]
        with gathered([p for _, p in own]):
            yield [(name, p.detach()) for name, p in own]

    def _held(self) -> Iterator[Held]:
        yield from self.weights.held()
        if self.average is not None:
            yield from self.average.held(self.rank)

    def _buffers(self) -> dict[str, torch.Tensor]:
        kept = self.student.state_dict(keep_vars=True).keys()
        return {name: buffer for name, buffer in self.student.named_buffers() if name in kept}

    def _state(self) -> LearnerState:
        return LearnerState(
            schedule=self.engine.lr_scheduler.last_epoch,
            global_steps=self.engine.global_steps,
            skipped_steps=self.engine.skipped_steps,
            mean_advantage=None if self.advantage_clip is None else self.advantage_clip.mean,
            teacher_frozen=self.teacher is not None and self.teacher.frozen,
        )

    def _resume_schedule(self, state: LearnerState) -> None:
        self.engine.global_steps, self.engine.skipped_steps = state.global_steps, state.skipped_steps
        scheduler = self.engine.lr_scheduler
        scheduler.last_epoch = state.schedule
        for group, rate, factor in zip(
            self.optimizer.param_groups, scheduler.base_lrs, scheduler.lr_lambdas, strict=True
        ):
            group["lr"] = rate * factor(state.schedule)


_STATE = f"{FOLDER}/learner.json"


def _read_state(checkpoint: Path) -> LearnerState:
    try:
        return LearnerState.model_validate_json((checkpoint / _STATE).read_bytes())
    except (OSError, ValidationError) as error:
        raise Damaged(f"{checkpoint / _STATE} cannot be used ({str(error).splitlines()[0]})") from None


def _compare(kind: str, reader: SliceReader, wanted: Mapping[str, Sort]) -> None:
    """The tensors of a kind must have exactly these names, shapes and dtypes."""
    found = reader.tensors(kind)
    missing, surplus = wanted.keys() - found.keys(), found.keys() - wanted.keys()
    if missing or surplus:
        said = f"has no {kind} of {min(missing)}" if missing else f"has a {kind} of {min(surplus)}, which is not here"
        raise Damaged(f"The checkpoint {said}: it is of another model, or of other settings of the teacher.")
    for name, sort in wanted.items():
        if found[name] != sort:
            raise Damaged(f"The checkpoint's {kind} of {name} is {_said(found[name])}, here it is {_said(sort)}.")


def _said(sort: Sort) -> str:
    return f"{list(sort[0])} in {str(sort[1]).removeprefix('torch.')}"
