"""What a rank writes and reads: checkpoints to go on from, and the policy as a Hugging Face folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from sdpo.learner import export
from sdpo.learner.advantage_clip import AdvantageClip
from sdpo.learner.model import PolicyModel
from sdpo.learner.teacher import Teacher


class Checkpointing:
    """Everything of a rank that outlives it: student, optimiser, schedule, moving-average teacher, advantage clip."""

    def __init__(
        self,
        engine: Any,
        student: PolicyModel,
        teacher: Teacher | None,
        advantage_clip: AdvantageClip | None,
        device: torch.device,
        rank: int,
    ) -> None:
        self.engine, self.student, self.teacher = engine, student, teacher
        self.advantage_clip, self.device, self.rank = advantage_clip, device, rank

    def save(self, folder: str) -> None:
        """Write student, optimiser, schedule and the moving-average teacher (fp32) below `folder`.  Collective."""
        state = {"mean_advantage": None if self.advantage_clip is None else self.advantage_clip.mean}
        self.engine.save_checkpoint(folder, tag="student", client_state=state, save_latest=False)
        average = self.teacher.average if self.teacher is not None else None
        if average is not None and (average.sharded or self.rank == 0):
            torch.save(average.state_dict(), self._teacher_file(folder))

    def load(self, folder: str) -> None:
        """Take over what `save` wrote.  Collective; needs the number of ranks that it was written with."""
        path, state = self.engine.load_checkpoint(folder, tag="student")
        if path is None:
            raise RuntimeError(f"DeepSpeed found no checkpoint in {folder}.")
        if self.advantage_clip is not None:
            self.advantage_clip.mean = state["mean_advantage"]
        if self.teacher is not None and self.teacher.average is not None:
            self.teacher.average.load_state_dict(torch.load(self._teacher_file(folder), map_location=self.device))

    def _teacher_file(self, folder: str) -> Path:
        sharded = self.teacher.average.sharded
        return Path(folder) / (f"teacher-rank{self.rank}.pt" if sharded else "teacher.pt")

    def export(self, folder: str) -> None:
        """Write the student as a Hugging Face folder (weights and configuration).  Collective; rank 0 writes."""
        state = {}
        for tensors in export.named_state(self.student.model):
            if self.rank == 0:
                state |= {name: tensor.cpu().clone() for name, tensor in tensors}
        if self.rank == 0:
            export.write(self.student.model, state, folder)
