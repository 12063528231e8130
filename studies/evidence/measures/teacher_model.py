"""Student and teacher of a checkpoint, in this process."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from sdpo.checkpoints.slices import SliceReader
from sdpo.config.paths import locate
from sdpo.config.schema import Recipe
from sdpo.errors import UserError
from studies.pretrain.sampling import Sampler


@dataclass
class Pair:
    """Samplers of both; for a live teacher they are one."""

    student: Sampler
    teacher: Sampler


def load_pair(recipe: Recipe, checkpoint: Path | None, seed: int) -> Pair:
    """The pair after the step of `checkpoint`; None: before training, when both are the initial policy."""
    initial, tokens = locate(recipe.model.path), recipe.rollout.max_response_tokens
    student = Sampler(initial if checkpoint is None else checkpoint / "policy", seed, tokens)
    kind = recipe.teacher.kind
    if checkpoint is None or kind == "live":
        return Pair(student, student)
    teacher = Sampler(initial, seed, tokens)
    if kind == "ema":
        reader = SliceReader(checkpoint)
        state = {name.removeprefix("model."): reader.full("average", name) for name in reader.tensors("average")}
        missing, unexpected = teacher.model.load_state_dict(state, strict=False)
        if unexpected or [name for name in missing if name != "lm_head.weight"]:  # tied: stored once
            raise UserError(f"The average of {checkpoint} does not fit {initial}: {[*missing, *unexpected][:3]}.")
    elif kind != "frozen":
        raise UserError(f"A teacher of kind {kind} mixes two models and cannot be sampled from here.")
    return Pair(student, teacher)


@torch.inference_mode()
def logits(
    model: torch.nn.Module, prompts: Sequence[Sequence[int]], responses: Sequence[Sequence[int]], batch: int = 64
) -> list[torch.Tensor]:
    """Per response its next-token logits [R, V] behind its prompt."""
    found = []
    for start in range(0, len(prompts), batch):
        some = slice(start, start + batch)
        rows = [list(p) + list(r) for p, r in zip(prompts[some], responses[some], strict=True)]
        width = max(map(len, rows))
        ids = torch.tensor([row + [0] * (width - len(row)) for row in rows])
        mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows])
        out = model(input_ids=ids, attention_mask=mask).logits.float()
        for b, row in enumerate(rows):
            size = len(responses[start + b])
            found.append(out[b, len(row) - size - 1 : len(row) - 1].clone())
    return found
