"""Writing to disk so that a kill leaves whole files, and a full disk gives one clear message."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sdpo.errors import UserError

_FULL = (errno.ENOSPC, errno.EDQUOT)


def human_bytes(count: float) -> str:
    """1536 → "1.5 KiB"."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"


def _existing_parent(path: Path) -> Path:
    path = Path(path).absolute()
    while not path.exists():
        path = path.parent
    return path


def free_bytes(path: Path) -> int:
    """Bytes that this user may still write where `path` is or will be."""
    return shutil.disk_usage(_existing_parent(path)).free


def _disk_full(folder: Path, needed: int) -> UserError:
    return UserError(
        f"The disk is full: {folder} needs {human_bytes(needed)} more and {human_bytes(free_bytes(folder))} are free "
        "there. Free some space (old checkpoints in other run folders are the largest files) and give the same command "
        "again: the run goes on from its last complete checkpoint."
    )


@contextmanager
def disk_errors(folder: Path, needed: int) -> Iterator[None]:
    """Turn a full disk, or a folder that may not be written, into a `UserError` that names it; `needed` is in bytes."""
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise _disk_full(folder, needed) from error
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise UserError(
                f"{folder} cannot be written ({os.strerror(error.errno)}). "
                "Choose another folder, or get the right to write there."
            ) from error
        if error.errno == errno.ENOENT and not Path(folder).is_dir():
            raise UserError(
                f"{folder} is gone: it was deleted or moved while the run went on. What it held is lost unless you put "
                "it back; the same command starts the run afresh."
            ) from error
        raise


def ensure_free(folder: Path, needed: int) -> None:
    """Raise `UserError` if fewer than `needed` bytes are free; to be asked before something large is written."""
    if free_bytes(folder) < needed:
        raise _disk_full(folder, needed)


def atomic_write(path: Path, data: bytes) -> None:
    """Write `data` to `path` through a neighbour that is renamed when complete: a reader sees the old file or the new.

    Raises `UserError` when the disk is full; the old file is then still there.
    """
    # The neighbour's name is fixed, so that what a killed process left behind is overwritten and not collected.
    neighbour = path.with_name(f".{path.name}.partial")
    with disk_errors(path.parent, len(data)):
        try:
            with open(neighbour, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(neighbour, path)
        except BaseException:
            neighbour.unlink(missing_ok=True)
            raise


def overwrite(path: Path, data: bytes) -> None:
    """Write a small file in place, into the blocks that it has: possible on a full disk, not safe from a power cut."""
    with disk_errors(path.parent, len(data)), open(path, "r+b") as file:
        file.write(data)
        file.flush()
        file.truncate()
        os.fsync(file.fileno())
