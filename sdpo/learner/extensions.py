"""DeepSpeed's compiled helper of the CPU backend, built once per environment."""

from __future__ import annotations

import fcntl
import os
import sys
from importlib.metadata import version
from pathlib import Path


def build_extensions() -> None:
    """Build or load what `deepspeed.init_distributed` needs, so that it finds it loaded.

    torch guards a build by a file, which a process that is killed leaves behind: everybody after it would wait for
    ever.  Here builds happen in a folder of our own, one process at a time by a lock of the kernel's, so that a file
    found there was left behind.
    """
    from deepspeed.comm.torch import build_shm_op
    from torch.utils.cpp_extension import get_default_build_root

    root = Path(os.environ.get("TORCH_EXTENSIONS_DIR") or get_default_build_root())
    python = f"py{sys.version_info.major}{sys.version_info.minor}"
    folder = root / f"sdpo-{python}-torch{version('torch')}-deepspeed{version('deepspeed')}"
    folder.mkdir(parents=True, exist_ok=True)
    os.environ["TORCH_EXTENSIONS_DIR"] = str(folder)
    try:
        with (folder / "sdpo.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            for left_behind in folder.glob("*/lock"):
                left_behind.unlink()
            build_shm_op()
    finally:
        os.environ["TORCH_EXTENSIONS_DIR"] = str(root)
