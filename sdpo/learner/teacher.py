"""The teacher and the reference policy of a run, as sets of weights that answer for response tokens."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from sdpo.config.streams import Blend, TeacherSettings
from sdpo.learner.gathering import gathered
from sdpo.learner.model import PolicyModel
from sdpo.learner.objective import TeacherLogits
from sdpo.learner.packing import Pack
from sdpo.learner.replica import AdapterReplica, Replica
from sdpo.losses.logits import blended_logits, mix_logits

AnyReplica = Replica | AdapterReplica
# Packs of prompts and responses, and what brings the hidden states of all of them to the student's order and number of
# response tokens, N.
Asked = tuple[Sequence[Pack], Callable[[torch.Tensor], torch.Tensor]]
MakeReplica = Callable[[bool], AnyReplica]  # whether it follows the student as a moving average


class Teacher:
    """Live weights, the frozen initial model, a moving average, or a trust region (arXiv 2601.20802, teacher ablation).

    trust region: q ∝ exp((1−τ)·log q_initial + τ·log q_live), a linear mix of two logit vectors behind the same prompt.

    One that may be `replaced` during the run holds its weights as a moving average does, also where it does not follow:
    `average` is then what `refresh` and `freeze` write to, and checkpoints hold.
    """

    def __init__(
        self, settings: TeacherSettings, make: MakeReplica, initial: AnyReplica | None, replaced: bool = False
    ) -> None:
        """`initial`: the frozen initial model if the run holds one already (for the reference KL)."""
        self.settings = settings
        self.frozen = False  # for good, whatever its kind
        self.average = make(True) if settings.kind == "ema" or replaced else None
        self.initial = None
        if settings.kind in ("frozen", "trust_region") and not replaced:
            self.initial = initial or make(False)

    @property
    def _own(self) -> AnyReplica | None:
        """Weights of its own; None: it has the student's."""
        return (self.average or self.initial) if self.settings.kind != "live" or self.frozen else None

    @contextmanager
    def logits(
        self,
        student: PolicyModel,
        run_student: Callable,
        told: Asked,
        temperature: float,
        untold: Asked | None = None,
        blend: Blend | None = None,
    ) -> Iterator[TeacherLogits]:
        """Within the context: a function from a slice of the response tokens to the teacher's logits [n, V].

        told: behind the teacher's prompts.  untold: behind the student's, where the two are blended.
        """
        sides = [self._answers(run_student, student, side) for side in (told, untold) if side is not None]
        with gathered([parameter for _, policy in sides[0] for parameter in policy.head.parameters()]):

            def logits(rows: slice) -> torch.Tensor:
                each = [self._mixed(parts, rows, temperature) for parts in sides]
                return each[0] if blend is None else blended_logits(each[0], each[1], blend.largest, blend.beta)

            yield logits

    def _answers(self, run_student: Callable, student: PolicyModel, asked: Asked) -> list[tuple[Any, Any]]:
        """Hidden states [N, H] of every set of weights that the teacher is made of, with its head."""
        packs, scatter = asked
        parts: list[tuple[Any, Any]] = []

        def answer(run: Callable) -> torch.Tensor:
            return scatter(torch.cat([run(pack) for pack in packs]))

        if (own := self._own) is not None:
            parts.append((answer(own.hidden), own.policy))
        if self.settings.kind in ("live", "trust_region") and not self.frozen:
            with torch.no_grad():
                parts.append((answer(run_student), student))
        return parts

    def _mixed(self, parts: list[tuple[Any, Any]], rows: slice, temperature: float) -> torch.Tensor:
        each = [policy.head.logits(hidden[rows], temperature) for hidden, policy in parts]
        return each[0] if len(each) == 1 else mix_logits(each[0], each[1], self.settings.rate)

    def follow(self, student: PolicyModel, clock: str) -> None:
        """Move a moving average when its clock ticks: once per "batch" or per optimiser "update"."""
        if self.settings.kind == "ema" and self.settings.clock == clock and not self.frozen:
            self.average.update(student, self.settings.rate)

    def refresh(self, student: PolicyModel) -> None:
        """Its weights become the student's.  Collective."""
        self.average.update(student, 1.0)

    def freeze(self, student: PolicyModel) -> None:
        """It keeps the weights that it has now; a trust region those of its initial policy.  Collective."""
        if self._own is None:
            self.refresh(student)
        self.frozen = True

    @contextmanager
    def weights(self, student: PolicyModel) -> Iterator[PolicyModel]:
        """Within the context: a model with the weights to sample from.

        A mixture of logits has none, so for a trust region they are those of its initial policy.
        """
        if (own := self._own) is None:
            yield student
        else:
            with own.in_place() as policy:
                yield policy
