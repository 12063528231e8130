"""Bytes and names that are on the disk when a call returns: a power cut afterwards cannot take them back."""

from __future__ import annotations

import os
from pathlib import Path


def write_file(path: Path, data: bytes) -> None:
    """Create `path` with this content, or overwrite it.  Its name needs a `sync_folder` of its own."""
    with open(path, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def sync_file(path: Path) -> None:
    """What somebody else wrote into `path`."""
    _sync(path)


def sync_folder(folder: Path) -> None:
    """The names in a folder: files created, renamed and removed."""
    _sync(folder, os.O_DIRECTORY)


def rename(old: Path, new: Path) -> None:
    """`old` has the name `new`, on the disk too."""
    os.rename(old, new)
    sync_folder(new.parent)


def _sync(path: Path, kind: int = 0) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | kind)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
