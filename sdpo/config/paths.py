"""Where relative paths of recipes are looked up: the current folder first, then the project's own."""

from __future__ import annotations

from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2]


def locate(path: str) -> str:
    """The absolute path of a file or folder if it is there, else `path` unchanged (a hub name, say)."""
    for base in (Path.cwd(), PROJECT):
        candidate = (base / path).expanduser()
        if candidate.exists():
            return str(candidate.resolve())
    return path
