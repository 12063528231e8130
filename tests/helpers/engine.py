"""Options of a small engine on the CPU, and what it must leave behind."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from sdpo.rollout.config import EngineConfig

CONTEXT = 512


def config_for(model: Path | str) -> EngineConfig:
    return EngineConfig(
        model=str(model),
        dtype="float32",
        max_model_len=CONTEXT,
        max_num_seqs=32,
        seed=0,
        device="cpu",
        enforce_eager=True,
    )


@contextlib.contextmanager
def shared_memory_unchanged() -> Iterator[None]:
    """Ray's own object store aside, nothing new may lie in /dev/shm."""

    def names() -> set[str]:
        return {p.name for p in Path("/dev/shm").iterdir() if "plasma" not in p.name and "ray" not in p.name}

    before = names()
    yield
    assert names() <= before
