"""Find the program in a model's response."""

from __future__ import annotations

from typing import Literal

from .thinking import without_thoughts

FENCE = "```"


def extract_code(response: str, thinking: Literal["ignored", "official"] = "ignored") -> str | None:
    """The text between the last two lines that contain a fence of three backticks; None where there are fewer than two.

    LiveCodeBench's rule (lcb_runner/utils/extraction_utils.py, commit 28fef95): lines are split on "\\n" only, and
    a fence counts wherever it stands in its line.

    thinking: "ignored" looks outside `<think>` … `</think>` only, so that a draft in a thought is no answer; "official"
    is LiveCodeBench's rule alone, which knows no thoughts.  Other tags: `sandbox.thinking.without_thoughts`.
    """
    if thinking not in ("ignored", "official"):
        raise ValueError(f"thinking={thinking!r}: choose ignored or official")
    lines = (without_thoughts(response) if thinking == "ignored" else response).split("\n")
    fences = [number for number, line in enumerate(lines) if FENCE in line]
    if len(fences) < 2:
        return None
    return "\n".join(lines[fences[-2] + 1 : fences[-1]])
