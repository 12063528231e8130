"""The same step as others make it: all sequences of a batch padded to its longest, and all logits of a response.

By TRL's own trainers where TRL can be imported, else by a few lines around a plain model of transformers.  One response
per micro-batch, so that the logits of long ones fit; gradient checkpointing as in the step beside it.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from typing import Any

import torch

from benchmarks.gpu.device import measure

Samples = dict[str, list[dict[str, float]]]
PLAIN, TRL = "transformers, padded", "TRL"


def name() -> str:
    """Of the side that this machine can run."""
    return PLAIN if importlib.util.find_spec("trl") is None else TRL


def samples(student, teacher, batch: list[Any], repeats: int, device: torch.device) -> tuple[Samples, list[str]]:
    """Measured steps by algorithm, without the first one, and the algorithms that ran out of memory.

    Peaks are beyond the weights of student and teacher, and hold the gradients.
    """
    found: Samples = {}
    lacking = []
    for algorithm in ("SDPO", "GRPO"):
        side, theirs = f"{name()}: {algorithm}", teacher if algorithm == "SDPO" else None
        student.zero_grad()
        rows = padded(batch, device, teacher=theirs is not None)
        try:
            found[side] = _steps()(student, theirs, rows, repeats)
        except torch.OutOfMemoryError:
            lacking.append(side)
    student.zero_grad()
    return found, lacking


def _steps() -> Callable[..., list[dict[str, float]]]:
    if name() == PLAIN:
        return steps
    from benchmarks.gpu import trl_step

    return trl_step.steps


def padded(batch: list[Any], device: torch.device, teacher: bool) -> dict[str, torch.Tensor]:
    """Prompts filled up on the left, responses on the right, by the names that TRL's trainers have for them."""

    def fill(rows: list[torch.Tensor], left: bool) -> tuple[torch.Tensor, torch.Tensor]:
        width = max(len(row) for row in rows)
        ids = torch.zeros(len(rows), width, dtype=torch.long, device=device)
        mask = torch.zeros_like(ids)
        for i, row in enumerate(rows):
            place = slice(width - len(row), width) if left else slice(0, len(row))
            ids[i, place], mask[i, place] = row, 1
        return ids, mask

    prompts = fill([each.prompt[0] for each in batch], left=True)
    responses = fill([each.response[0] for each in batch], left=False)
    made = dict(zip(("prompt_ids", "prompt_mask"), prompts, strict=True))
    made |= dict(zip(("completion_ids", "completion_mask"), responses, strict=True))
    made["advantages"] = torch.ones(len(batch), device=device)
    if teacher:
        prompts = fill([each.teacher_prompt[0] for each in batch], left=True)
        whole = (torch.cat(parts, 1) for parts in zip(prompts, responses, strict=True))
        made |= dict(zip(("teacher_input_ids", "teacher_attention_mask"), whole, strict=True))
    return made


def steps(student, teacher, rows: dict[str, torch.Tensor], repeats: int) -> list[dict[str, float]]:
    """What is measured of each step but the first, in plain transformers."""
    measured = []
    for _ in range(1 + repeats):
        student.zero_grad()
        measured.append(measure(student.device, lambda: _step(student, teacher, rows)))
    return measured[1:]


def _step(student, teacher, rows: dict[str, torch.Tensor]) -> None:
    """Forward and backward over all rows: a policy gradient, or with a teacher the reverse KL divergence."""
    ids, mask = (torch.cat([rows[f"prompt_{x}"], rows[f"completion_{x}"]], 1) for x in ("ids", "mask"))
    kept = rows["completion_mask"].shape[1]
    for i in range(len(ids)):
        row = slice(i, i + 1)
        own = _log_probs(student, ids[row], mask[row], kept)
        if teacher is None:
            taken = own.gather(-1, rows["completion_ids"][row, :, None])[..., 0]
            losses = -rows["advantages"][row, None] * (taken - taken.detach()).exp()
        else:
            with torch.no_grad():
                given = rows["teacher_input_ids"][row], rows["teacher_attention_mask"][row]
                theirs = _log_probs(teacher, *given, kept)
            losses = (own.exp() * (own - theirs)).sum(-1)
        counted = rows["completion_mask"][row]
        ((losses * counted).sum() / (counted.sum() * len(ids))).backward()


def _log_probs(model, ids: torch.Tensor, mask: torch.Tensor, kept: int) -> torch.Tensor:
    """[1, kept, V] of the last `kept` tokens."""
    logits = model(input_ids=ids, attention_mask=mask, use_cache=False, logits_to_keep=kept + 1).logits
    return logits[:, :-1].float().log_softmax(-1)
