"""The one way of text to a terminal: what would steer it is shown, not obeyed.

Responses of a model, feedback, task ids, file names and error texts may hold escape sequences (move the cursor, retitle
the window, fill the clipboard) and direction marks (which make text read as what it is not).  Files keep them as they
are; a terminal, and a log that somebody reads in one, gets ␛ for ESC and \\u202e for a right-to-left override.
"""

from __future__ import annotations

import errno
import re
import sys
import traceback
from types import TracebackType
from typing import TextIO

# Controls (C0 but for newline and tab, DEL, C1), separators of lines and paragraphs, direction marks and other format
# characters that nobody sees (the joiners of emoji and of some scripts excepted), surrogates.
_STEERING = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u0600-\u0605\u061c\u06dd\u070f\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f"
    "\ufeff\ufff9-\ufffb\ud800-\udfff\U000e0000-\U000e007f]"
)


def shown(text: str) -> str:
    """`text` with every character that would steer a terminal as a visible one, or as its escape in Python."""
    return _STEERING.sub(_visible, text.replace("\r\n", "\n"))


def _visible(match: re.Match[str]) -> str:
    code = ord(match[0])
    if code < 0x20:
        return chr(0x2400 + code)  # ␀ … ␟
    if code == 0x7F:
        return "␡"
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def say(text: object = "", file: TextIO | None = None) -> None:
    """`print`, for a terminal, at once.  Does nothing where the terminal is gone."""
    stream = file or sys.stdout
    try:
        print(shown(str(text)), file=stream, flush=True)
    except UnicodeEncodeError:  # a terminal without UTF-8
        encoding = stream.encoding or "ascii"
        print(shown(str(text)).encode(encoding, "backslashreplace").decode(encoding), file=stream, flush=True)
    except OSError as error:
        if not is_gone(error):
            raise


def is_gone(error: OSError) -> bool:
    """Whether an error of writing says that nobody reads any more: a closed pipe, a terminal that was hung up."""
    return error.errno in (errno.EPIPE, errno.EIO)


def say_exception(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """For `sys.excepthook`: a traceback holds whatever text an error was raised with."""
    say("".join(traceback.format_exception(kind, error, trace)).rstrip("\n"), sys.stderr)
