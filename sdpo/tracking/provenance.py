"""What a number needs beside it: hardware, commit and command."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

from sdpo import __version__

COMMIT = "SDPO_COMMIT"  # the variable that names it where the files came without .git, as in a job of a cluster


def hardware() -> str:
    """The processor, the cores that this process may use, the memory, and the GPUs; no host name."""
    parts = [f"{_processor()}, {len(os.sched_getaffinity(0))} cores"]
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    parts.append(f"{memory:.0f} GiB memory")
    gpus = _output(["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]).splitlines()
    parts += [f"{gpus.count(name)} × {name}" for name in sorted(set(gpus))]
    return ", ".join(parts)


def _processor() -> str:
    try:
        match = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    except OSError:
        match = None
    return " ".join(match[1].split()) if match else os.uname().machine


def commit() -> str:
    """The commit of the source tree, marked when files differ from it; outside of a checkout the package's version.

    Files of docs/ do not count: results that were just written there decide about no number.
    """
    root = Path(__file__).resolve().parents[2]
    name = _output(["git", "-C", str(root), "rev-parse", "--short=12", "HEAD"]) if (root / ".git").exists() else ""
    if not name:
        return os.environ.get(COMMIT, f"version {__version__}")
    changed = _output(["git", "-C", str(root), "status", "--porcelain", "--untracked-files=no", "--", ".", ":!docs"])
    return name + (" with changes" if changed else "")


def command() -> str:
    """The command line of this process, without the path of the interpreter or script."""
    return shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])


def _output(command: list[str]) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip()
