"""A build of DeepSpeed's helper that was killed must not hold up those after it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

BUILD = """
import os, sys
from sdpo.learner.extensions import build_extensions
build_extensions()
from deepspeed.ops.op_builder.builder import OpBuilder
print("root", os.environ["TORCH_EXTENSIONS_DIR"])
"""


def build() -> Path:
    done = subprocess.run([sys.executable, "-c", BUILD], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    [line] = [line for line in done.stdout.splitlines() if line.startswith("root ")]
    return Path(line.removeprefix("root "))


@pytest.mark.timeout(600)
def test_a_lock_left_behind_is_removed():
    root = build()
    [folder] = [path for path in root.glob("sdpo-*/deepspeed_shm_comm") if (path / "deepspeed_shm_comm.so").exists()]
    lock = folder / "lock"
    os.close(os.open(lock, os.O_CREAT | os.O_EXCL))
    assert build() == root
    assert not lock.exists()
