"""A build of DeepSpeed's helper that was killed must not hold up those after it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

BUILD = """
from sdpo.learner.extensions import build_extensions
print("folder", build_extensions())
"""


def build() -> Path:
    done = subprocess.run([sys.executable, "-c", BUILD], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    [line] = [line for line in done.stdout.splitlines() if line.startswith("folder ")]
    return Path(line.removeprefix("folder "))


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_lock_left_behind_is_removed():
    folder = build()
    lock = folder / "deepspeed_shm_comm" / "lock"
    os.close(os.open(lock, os.O_CREAT | os.O_EXCL))
    assert build() == folder
    assert not lock.exists()
