"""What a part's process wrote before it died: the line that says why.

Ray gives every worker process a file for its output and one for its errors, which the processes that it starts share.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

from sdpo.config.paths import LOGS

TAIL_BYTES = 2**18
LONGEST = 500  # characters of a quoted line
# What vLLM, Ray and terminals write before a line: (EngineCore pid=7) ERROR 01-31 12:00:00 [core.py:9], and colours.
_BEFORE = re.compile(r"(?:\x1b\[[\d;]*m|\(\w+ pid=\d+\)\s|(?:ERROR|CRITICAL)\s\d\d-\d\d\s[\d:.]+\s\[[^\]]*\]\s)*")
_FATAL = re.compile(
    r"(?:[A-Za-z_][\w.]*(?:Error|Exception)(?::\s.+|$)|Fatal Python error: .+|terminate called .+|\s+what\(\): .+)"
)
_REFERS = re.compile(r"root cause|Failed core proc", re.IGNORECASE)


def own_logs() -> tuple[str, ...]:
    """The files that this process writes its output and its errors to."""
    return tuple(dict.fromkeys(os.readlink(f"/proc/self/fd/{number}") for number in (1, 2)))


def kept_log(file: str) -> str:
    """Where a file of Ray's logs is found when the run has failed: it keeps them in its own folder."""
    return os.path.join(os.environ[LOGS], os.path.basename(file)) if LOGS in os.environ else file


def refers_to_log(message: str) -> bool:
    """Whether an error says no more than that its cause stands in the log."""
    return bool(_REFERS.search(message))


def fatal_line(file: str | Path) -> str:
    """The last line of a log that tells of an error, a crash or a C++ exception, and does not refer to another.

    Empty where there is none, or no such file here.
    """
    try:
        with open(file, "rb") as opened:
            opened.seek(max(0, os.path.getsize(file) - TAIL_BYTES))
            lines = opened.read().decode(errors="replace").splitlines()
    except (OSError, ValueError):  # a pipe, a terminal, a machine elsewhere
        return ""
    for line in reversed(lines):
        told = _BEFORE.sub("", line, count=1)
        if _FATAL.fullmatch(told) and not refers_to_log(told):
            return told.strip()[:LONGEST]
    return ""


def last_words(files: Sequence[str]) -> tuple[str, str]:
    """`fatal_line` of the first file that has one, of errors before output, and that file; empty where none has one."""
    return next(((line, file) for file in reversed(files) if (line := fatal_line(file))), ("", ""))
