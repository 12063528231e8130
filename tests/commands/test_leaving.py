"""How the process of a command ends: with its status, after what must be closed, and loudly where output is lost."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers.commands import SDPO

# A command that leaves something to be closed at the exit, and output in a buffer.
COMMAND = """
import atexit, sys, sdpo.cli.__main__ as process
def main():
    atexit.register(sys.stdout.write, "closed")
    {body}
process.main = main
process.command()
"""


def _end(body: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", COMMAND.format(body=body)], capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize("status", [0, 3, 130])
def test_status_and_what_is_to_be_closed(status):
    ended = _end(f"return {status}")
    assert (ended.returncode, ended.stdout, ended.stderr) == (status, "closed", "")


def test_an_exception_is_told_with_status_1():
    ended = _end("raise ValueError('seen')")
    assert ended.returncode == 1 and "ValueError: seen" in ended.stderr and ended.stdout == "closed"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a disk that is full")
@pytest.mark.parametrize("words", [["options", "learner.lr"], ["options"]])
def test_lost_output_is_an_error(words):
    with open("/dev/full", "w") as full:
        ended = subprocess.run([*SDPO, *words], stdout=full, stderr=subprocess.PIPE, text=True, timeout=60)
    assert ended.returncode != 0 and "No space left" in ended.stderr
