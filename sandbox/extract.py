"""Find the program in a model's response."""

from __future__ import annotations

import re
from typing import Literal

FENCE = "```"
_THOUGHT = re.compile(r"<think>(?:(?!</?think>).)*</think>", re.DOTALL)  # with none inside


def extract_code(response: str, thinking: Literal["ignored", "official"] = "ignored") -> str | None:
    """The text between the last two lines that contain a fence of three backticks; None where there are fewer than two.

    LiveCodeBench's rule (lcb_runner/utils/extraction_utils.py, commit 28fef95): lines are split on "\\n" only, and
    a fence counts wherever it stands in its line.

    thinking: "ignored" looks outside `<think>` … `</think>` only, so that a draft in a thought is no answer; "official"
    is LiveCodeBench's rule alone, which knows no thoughts.
    """
    if thinking not in ("ignored", "official"):
        raise ValueError(f"thinking={thinking!r}: choose ignored or official")
    lines = (_outside_thoughts(response) if thinking == "ignored" else response).split("\n")
    fences = [number for number, line in enumerate(lines) if FENCE in line]
    if len(fences) < 2:
        return None
    return "\n".join(lines[fences[-2] + 1 : fences[-1]])


def _outside_thoughts(response: str) -> str:
    """Without whole thoughts, what follows one that nothing closes, and what precedes the end of one begun unseen."""
    whole = None
    while response != whole:
        whole, response = response, _THOUGHT.sub("", response)
    return response.rpartition("</think>")[2].partition("<think>")[0]
