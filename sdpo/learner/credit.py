"""What is recorded of single tokens: the numbers of the loss's own pass, and what else could have been said there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from sdpo.learner.rows import Row
from sdpo.types import TokenCredit

if TYPE_CHECKING:
    import torch

ALTERNATIVES = 5
_ROWS = 128  # of logits that are copied at a time
_TOP = ("top_ids", "top_log_probs", "top_teacher_log_probs")


@dataclass(frozen=True)
class Wanted:
    """For which of a micro-batch's N response tokens alternatives are wanted, and who names them.  Both bool [N]."""

    of_teacher: np.ndarray
    of_student: np.ndarray  # of responses that no teacher re-scores

    @classmethod
    def of(cls, rows: Sequence[Row], has_teacher: bool) -> Wanted | None:
        """None: no row is to be recorded."""
        if not any(row.recorded for row in rows):
            return None
        lengths = [len(row.response_ids) for row in rows]
        recorded = np.repeat([row.recorded for row in rows], lengths)
        taught = np.repeat([has_teacher and row.teacher_prompt_ids is not None for row in rows], lengths)
        return cls(recorded & taught, recorded & ~taught)

    def alternatives(
        self,
        rows: slice,
        tokens: torch.Tensor,
        student: tuple[torch.Tensor, torch.Tensor],
        teacher: tuple[torch.Tensor, torch.Tensor] | None,
    ) -> dict[str, torch.Tensor]:
        """Of one chunk the likeliest tokens and their log-probs by both, [n, k]; zeros where none are wanted.

        tokens: of the chunk, [n].  student, teacher: logits [n, V], and the log-probs of the tokens, [n], which say
        what to subtract from a logit: the vocabulary is not summed over again.
        """
        logits = student[0].detach()
        k = min(ALTERNATIVES, logits.shape[-1])
        found = {name: logits.new_zeros(len(logits), k) for name in _TOP}
        found["top_ids"] = tokens.new_zeros(len(logits), k)
        for wanted, judge in ((self.of_teacher[rows], teacher), (self.of_student[rows], student)):
            if judge is None or not wanted.any():
                continue
            for places in tokens.new_tensor(np.flatnonzero(wanted)).split(_ROWS):
                ids = judge[0].detach()[places].topk(k, dim=-1).indices
                found["top_ids"][places] = ids
                found["top_log_probs"][places] = _log_probs(*student, places, tokens, ids)
                if teacher is not None:
                    found["top_teacher_log_probs"][places] = _log_probs(*teacher, places, tokens, ids)
        return found


def _log_probs(logits: Any, log_probs: Any, places: Any, tokens: Any, ids: Any) -> Any:
    chosen = logits.detach()[places, tokens[places]] - log_probs.detach()[places]
    return logits.detach()[places[:, None], ids] - chosen[:, None]


def split_off(outputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Take the alternatives out of a loss's outputs: they belong to no metric, and no step depends on them."""
    return {name: outputs.pop(name) for name in _TOP if name in outputs}


def token_credit(
    rows: Sequence[Row], outputs: dict[str, torch.Tensor], alternatives: dict[str, torch.Tensor]
) -> list[TokenCredit | None]:
    """Row by row, from the outputs of one micro-batch; None for rows that are not to be recorded."""
    if not alternatives:
        return [None] * len(rows)
    ends = np.cumsum([len(row.response_ids) for row in rows])[:-1]
    names = ("log_probs", "entropy", "teacher_log_probs", "teacher_entropy")
    tensors = {name: outputs[name].float() for name in names if name in outputs} | alternatives
    values = {name: np.split(tensor.cpu().numpy(), ends) for name, tensor in tensors.items()}
    credit: list[TokenCredit | None] = []
    for i, row in enumerate(rows):
        if not row.recorded:
            credit.append(None)
            continue
        own = {name: each[i].copy() for name, each in values.items()}  # a view would keep the micro-batch alive
        if row.teacher_prompt_ids is None or "teacher_log_probs" not in own:
            own |= dict.fromkeys(("teacher_log_probs", "teacher_entropy", "top_teacher_log_probs"))
        credit.append(TokenCredit(**(own | {"top_ids": own["top_ids"].astype(np.int32)})))
    return credit
