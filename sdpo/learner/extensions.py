"""DeepSpeed's compiled helper of the CPU backend, built once per environment."""

from __future__ import annotations

import fcntl
import hashlib
import os
import sys
from importlib.metadata import version
from pathlib import Path


def build_extensions() -> Path:
    """Build or load what `deepspeed.init_distributed` needs, so that it finds it loaded; returns the folder.

    torch guards a build by a file, which a process that is killed leaves behind: everybody after it would wait for
    ever.  Here builds happen in a folder of our own, one process at a time by a lock of the kernel's, so that a file
    found there was left behind.
    """
    from deepspeed.comm.torch import build_shm_op
    from torch.utils.cpp_extension import get_default_build_root

    before = os.environ.get("TORCH_EXTENSIONS_DIR")
    root = Path(before or get_default_build_root())
    # Another environment's headers lie elsewhere, which would make each of two build anew after the other.
    environment = hashlib.sha256(f"{sys.prefix} {version('torch')} {version('deepspeed')}".encode()).hexdigest()[:12]
    folder = root / f"sdpo-{environment}"
    folder.mkdir(parents=True, exist_ok=True)
    path = os.environ["PATH"]
    os.environ["TORCH_EXTENSIONS_DIR"] = str(folder)
    # torch calls ninja by name.  The one beside the interpreter is not on everybody's PATH, and another version would
    # build anew what this one built.
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{path}"
    try:
        with (folder / "sdpo.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            for left_behind in folder.glob("*/lock"):
                left_behind.unlink()
            build_shm_op()
    finally:
        os.environ["PATH"] = path
        del os.environ["TORCH_EXTENSIONS_DIR"]
        if before is not None:
            os.environ["TORCH_EXTENSIONS_DIR"] = before
    return folder
