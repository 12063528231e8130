"""`metrics.jsonl`: one JSON object per line, appended, and whole again after a kill."""

from __future__ import annotations

import io
import json
import math
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from sdpo.errors import UserError
from sdpo.tracking.disk import atomic_write, disk_errors


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """All complete rows, in the order written.  An unfinished last line (a kill in mid-write) is left out.

    Raises `UserError` if a line in the middle is not JSON: something else than this program has written there.
    """
    return _parse(path)[0]


def _parse(path: Path) -> tuple[list[dict[str, Any]], int]:
    """Rows, and the number of bytes that they take."""
    if not path.is_file():
        return [], 0
    rows: list[dict[str, Any]] = []
    end = position = 0
    bad: int | None = None
    for number, line in enumerate(io.BytesIO(path.read_bytes()), start=1):
        position += len(line)
        try:
            row = json.loads(line) if line.endswith(b"\n") else None
        except ValueError:
            row = None
        if not isinstance(row, dict):
            bad = bad or number
            continue
        if bad is not None:
            raise UserError(
                f"{path}, line {bad}: not a JSON object, though good lines follow. Something else changed the file; "
                "remove that line, or start the run under another name (name=…)."
            )
        rows.append(row)
        end = position
    return rows, end


class MetricsFile:
    """Appends rows to `path`; every row is one write and is on the disk when `append` returns."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._repaired = False

    def repair(self) -> None:
        """Cut off an unfinished last line."""
        _, end = _parse(self.path)
        if self.path.is_file() and self.path.stat().st_size > end:
            os.truncate(self.path, end)
        self._repaired = True

    def append(self, row: Mapping[str, Any]) -> None:
        """Raises `UserError` if the disk is full; the file then ends with the row before."""
        if not self._repaired:
            self.repair()
        line = json.dumps(finite(dict(row)), allow_nan=False).encode() + b"\n"
        with disk_errors(self.path.parent, len(line)):
            fd = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
            size = os.fstat(fd).st_size
            try:
                written = os.write(fd, line)
                if written < len(line):  # a disk that fills up takes the first part and refuses the rest
                    os.write(fd, line[written:])
                os.fsync(fd)
            except OSError:
                with suppress(OSError):
                    os.ftruncate(fd, size)
                raise
            finally:
                os.close(fd)

    def rows_of(self, step: int) -> list[dict[str, Any]]:
        """The last rows of the file, as far as they are of `step`."""
        found: list[dict[str, Any]] = []
        for line in reversed(self.path.read_bytes().splitlines() if self.path.is_file() else []):
            row = json.loads(line)
            if row.get("step", 0) != step:
                break
            found.insert(0, row)
        return found

    def go_back(self, step: int, own: Sequence[Mapping[str, Any]] = ()) -> int:
        """Drop rows of later steps than `step`, which will be made again after a resume, and return how many.

        own: `rows_of(step)` when its checkpoint was written.  They stand there afterwards, whatever happened since.
        """
        rows, _ = _parse(self.path)
        kept = [row for row in rows if row.get("step", 0) <= step]
        whole = [*(row for row in kept if row.get("step", 0) < step), *map(dict, own)] if own else kept
        self.repair()
        if whole != rows:
            atomic_write(self.path, "".join(json.dumps(row) + "\n" for row in whole).encode())
        return len(rows) - len(kept)


def finite(value: Any) -> Any:
    """`value` with NaN and infinities as None, for which JSON has no word, and numpy or torch scalars as Python's."""
    if isinstance(value, Mapping):
        return {str(key): finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(item) for item in value]
    if hasattr(value, "tolist") and not isinstance(value, (str, bytes)):
        return finite(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
