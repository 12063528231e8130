"""The teacher and the reference policy of a run, as sets of weights that answer for response tokens."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import torch

from sdpo.config.streams import Blend, TeacherSettings
from sdpo.learner.gathering import gathered
from sdpo.learner.model import LossHead, PolicyModel
from sdpo.learner.objective import TeacherLogits
from sdpo.learner.packing import Pack
from sdpo.learner.replica import AdapterReplica, Replica
from sdpo.losses.logits import blended_logits, mix_logits

AnyReplica = Replica | AdapterReplica


class Asked(NamedTuple):
    """What the teacher is to re-score, behind prompts of one kind: M of the N response tokens of a micro-batch."""

    packs: Sequence[Pack]  # of prompts and responses; under ZeRO-3 there may be more behind them, for other ranks' sake
    places: np.ndarray  # int64 [N]: of every response token, its place among the M; -1: it is not asked
    states: torch.Tensor | None = None  # [M, H], where a teacher of its own has scored them

    @property
    def count(self) -> int:
        """M."""
        return int((self.places >= 0).sum())


MakeReplica = Callable[[bool], AnyReplica]  # whether it follows the student as a moving average


class Teacher:
    """Live weights, the frozen initial model, a moving average, or a trust region (arXiv 2601.20802, teacher ablation).

    trust region: q ∝ exp((1−τ)·log q_initial + τ·log q_live), a linear mix of two logit vectors behind the same prompt.

    One that may be `replaced` during the run holds its weights as a moving average does, also where it does not follow:
    `average` is then what `refresh` and `freeze` write to, and checkpoints hold.

    Of one of its own (`teacher.placement`) the weights are computed with elsewhere: hidden states come with what is
    asked (`Asked.states`), and `head` projects them.  What moves is still averaged here, and sent there when it has
    moved.
    """

    head: LossHead | None = None  # of one of its own, once it has sent it

    def __init__(
        self,
        settings: TeacherSettings,
        make: MakeReplica,
        initial: AnyReplica | None,
        replaced: bool = False,
        sampled: bool = True,
    ) -> None:
        """`initial`: the frozen initial model if the run holds one already (for the reference KL).  sampled: whether
        engines are to get its weights."""
        self.settings, self.elsewhere = settings, settings.placement == "own"
        self.frozen = False  # for good, whatever its kind
        self.average = make(True) if settings.kind == "ema" or replaced else None
        self.initial = None
        if settings.kind in ("frozen", "trust_region") and not replaced and (sampled or not self.elsewhere):
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

        told: behind the teacher's prompts.  untold: behind the student's, where the two are blended, of the same
        tokens.  Only what is asked is projected; other tokens get logits of 0.
        """
        given = [side for side in (told, untold) if side is not None]
        sides = [self._answers(run_student, student, side) for side in given]
        with gathered([parameter for _, head in sides[0] for parameter in head.parameters()]):

            def logits(rows: slice) -> torch.Tensor:
                places = [side.places[rows] for side in given]
                asked = np.flatnonzero(places[0] >= 0)
                each = [self._mixed(parts, p[asked], temperature) for parts, p in zip(sides, places, strict=True)]
                made = each[0] if blend is None else blended_logits(each[0], each[1], blend.largest, blend.beta)
                if len(asked) == len(places[0]):
                    return made
                everywhere = made.new_zeros(len(places[0]), made.shape[1])
                return everywhere.index_copy_(0, torch.from_numpy(asked).to(made.device), made)

            yield logits

    def _answers(self, run_student: Callable, student: PolicyModel, asked: Asked) -> list[tuple[Any, LossHead]]:
        """Hidden states [M, H] of every set of weights that the teacher is made of, with its head."""
        parts: list[tuple[Any, LossHead]] = []

        def answer(run: Callable) -> torch.Tensor:
            return torch.cat([run(pack) for pack in asked.packs])[: asked.count]

        if self.elsewhere:
            assert self.head is not None
            states = self.head.weight.new_zeros(0, self.head.in_features) if asked.states is None else asked.states
            parts.append((states, self.head))
        elif (own := self._own) is not None:
            parts.append((answer(own.hidden), own.policy.head))
        if self.reads_student:
            with torch.no_grad():
                parts.append((answer(run_student), student.head))
        return parts

    @property
    def reads_student(self) -> bool:
        """Whether the student's present weights are a part of it."""
        return self.settings.kind in ("live", "trust_region") and not self.frozen

    def _mixed(self, parts: list[tuple[Any, LossHead]], places: np.ndarray, temperature: float) -> torch.Tensor:
        where = torch.from_numpy(places)
        each = [head.logits(hidden.index_select(0, where.to(hidden.device)), temperature) for hidden, head in parts]
        return each[0] if len(each) == 1 else mix_logits(each[0], each[1], self.settings.rate)

    def follow(self, student: PolicyModel, clock: str) -> bool:
        """Move a moving average when its clock ticks: once per "batch" or per optimiser "update".  True: it has."""
        if self.settings.kind != "ema" or self.settings.clock != clock or self.frozen:
            return False
        self.average.update(student, self.settings.rate)
        return True

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
            assert not self.elsewhere, "nothing was to be sampled from it"
            yield student
        else:
            with own.in_place() as policy:
                yield policy
