"""Describe an exception of the program as plain data, with Python's own suggestion ("Did you mean: …?")."""

from __future__ import annotations

import io
import sys
from types import TracebackType

# In characters.  All of it together, escaped, is less than `wire.MAX_HEADER`.
MAX_MESSAGE = 8_000
MAX_NAME = 200
MAX_SOURCE = 250
MAX_FRAMES = 20


def describe(error: BaseException, sources: dict[str, list[str]]) -> dict:
    """Header fields `e` (type), `m` (message) and `f` (frames: line, function, source line, file), outermost first.

    `sources`: file name → lines; frames in other files (the standard library, the runner) are left out.
    """
    frames = _frames(error.__traceback__, sources)
    if isinstance(error, SyntaxError) and error.filename in sources and error.lineno:
        frames.append(_frame(error.lineno, "<module>", error.filename, sources))
    try:
        message = str(error.msg) if isinstance(error, SyntaxError) else str(error)
    except BaseException as nested:
        message = f"<the exception's text raised {type(nested).__name__}>"
    if isinstance(error, RecursionError):
        message = _without_depth(message)
    message += _suggestion(error)
    return {"e": type(error).__name__[:MAX_NAME], "m": message[:MAX_MESSAGE], "f": _shortened(frames)}


def _without_depth(message: str) -> str:
    """Of `setrecursionlimit`: how deep the program itself is called depends on the runner, and on what ran before."""
    begin, found, end = message.partition(" at the recursion depth ")
    return begin + end.lstrip("0123456789") if found else message


def _frames(traceback: TracebackType | None, sources: dict[str, list[str]]) -> list[list]:
    frames = []
    while traceback is not None:
        code = traceback.tb_frame.f_code
        if code.co_filename in sources:
            frames.append((traceback.tb_lineno, code.co_name, code.co_filename))
        traceback = traceback.tb_next
    if len(frames) > 2 * MAX_FRAMES:  # deep recursion: the two ends tell the story
        frames = frames[:MAX_FRAMES] + frames[-MAX_FRAMES:]
    return [_frame(line, function, file, sources) for line, function, file in frames]


def _frame(line: int, function: str, file: str, sources: dict[str, list[str]]) -> list:
    lines = sources[file]
    source = lines[line - 1].strip()[:MAX_SOURCE] if 0 < line <= len(lines) else ""
    return [line, function[:MAX_NAME], source, file[:MAX_NAME]]


def _shortened(frames: list[list]) -> list[list]:
    return frames if len(frames) <= MAX_FRAMES else frames[: MAX_FRAMES // 2] + frames[-MAX_FRAMES // 2 :]


def _suggestion(error: BaseException) -> str:
    """The ". Did you mean: 'x'?" that the interpreter appends when it prints the error.

    Up to Python 3.11 only the interpreter's own printing computes it, so the error is printed, without traceback.
    """
    if not isinstance(error, (NameError, AttributeError, ImportError)):
        return ""
    marker = ". Did you mean: "
    saved = sys.stderr, getattr(sys, "tracebacklimit", None)
    chain = error.__cause__, error.__context__, error.__suppress_context__
    try:
        sys.stderr = printed = io.StringIO()
        sys.tracebacklimit = 0
        error.__cause__ = error.__context__ = None
        sys.__excepthook__(type(error), error, error.__traceback__)
        last = printed.getvalue().rstrip("\n").rpartition("\n")[2]
        return last[last.rindex(marker) :] if marker in last and last.endswith("?") else ""
    except BaseException:
        return ""
    finally:
        sys.stderr = saved[0]
        if saved[1] is None:
            del sys.tracebacklimit
        else:
            sys.tracebacklimit = saved[1]
        error.__cause__, error.__context__, error.__suppress_context__ = chain
