"""What is done to files, while a run goes on and between two commands."""

from __future__ import annotations

import random
from contextlib import suppress
from pathlib import Path

FILLER = "filler"


def fill(folder: Path) -> None:
    """All that is free of a small file system."""
    with (folder / FILLER).open("wb", buffering=0) as file:
        for size in (2**20, 2**12, 1):
            with suppress(OSError):
                while file.write(bytes(size)) == size:
                    pass


def cut_last_line(file: Path) -> None:
    """As a process leaves it that was killed while it wrote."""
    content = file.read_bytes()
    file.write_bytes(content[: -max(2, len(content.splitlines()[-1]) // 2)])


def damage(checkpoint: Path, how: str, chance: random.Random) -> None:
    """One of its files, drawn at random."""
    path = chance.choice(sorted(path for path in checkpoint.rglob("*") if path.is_file()))
    content = bytearray(path.read_bytes())
    if how == "a file missing":
        path.unlink()
    elif how == "a file cut off":
        path.write_bytes(content[: chance.randrange(len(content))])
    else:
        bit = chance.randrange(8 * len(content))
        content[bit // 8] ^= 1 << bit % 8
        path.write_bytes(content)
