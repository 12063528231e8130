"""One training example of a corpus."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Example:
    """Text of one training example: the user's content, the assistant's response, and its mode of the corpus."""

    content: str
    response: str
    mode: str
