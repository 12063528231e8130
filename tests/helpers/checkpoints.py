"""Checkpoints of a few small files, committed as the trainer commits them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from sdpo.checkpoints.manifest import measure
from sdpo.training.checkpoints import Checkpoints, TrainerState


def write(checkpoints: Checkpoints, step: int, best: bool = False, best_step: int = 0) -> Path:
    """As the trainer does: some files are known by those who wrote them, some are not."""
    partial = checkpoints.begin(step)
    for name, content in {
        "state/rank-00000.json": '{"slices": [], "steps": {}}',
        "state/learner.json": "{}",
        "policy/config.json": json.dumps({"step": step}),
        "policy/tokenizer.json": "[1, 2, 3]",
    }.items():
        (partial / name).parent.mkdir(exist_ok=True)
        (partial / name).write_text(content)
    written = {name: measure(partial / name) for name in ("state/rank-00000.json", "state/learner.json")}
    random_state = np.random.default_rng(step).bit_generator.state
    state = TrainerState(
        step=step, generations=64 * step, random_state=random_state, best_step=step if best else best_step
    )
    return checkpoints.commit(partial, written, state, best)


def names(checkpoints: Checkpoints) -> list[str]:
    return sorted(p.name for p in checkpoints.folder.iterdir() if not p.is_symlink())
