r"""The \boxed{} of a mathematical answer."""

from __future__ import annotations

import re

MAX_ANSWER = 2000  # characters; what is longer is no answer


def last_boxed(text: str) -> str | None:
    r"""What the last \boxed{} or \fbox{} holds, braces balanced; None where there is none, or it does not end."""
    found = list(re.finditer(r"\\(?:fbox|boxed)\s*\{", text))
    if not found:
        return None
    depth, start = 1, found[-1].end()
    for match in re.finditer(r"(?<!\\)[{}]", text[start:]):
        depth += 1 if match[0] == "{" else -1
        if depth == 0:
            return text[start : start + match.start()].strip()
    return None
