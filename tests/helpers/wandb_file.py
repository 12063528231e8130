"""What W&B wrote offline, read back from its own file."""

from __future__ import annotations

import struct
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

from wandb.proto import wandb_internal_pb2


def _records(data: bytes) -> Iterator[bytes]:
    """The records of a W&B file: LevelDB's log format after a header of 7 bytes."""
    assert not data or data[:4] == b":W&B"
    block, position, record = 32768, 7, b""
    while position + 7 <= len(data):
        if block - position % block < 7:  # the rest of a block is too short for a record's header
            position += block - position % block
            continue
        _, length, kind = struct.unpack_from("<IHB", data, position)
        if position + 7 + length > len(data):  # not written to its end yet
            return
        record += data[position + 7 : position + 7 + length]
        position += 7 + length
        if kind in (1, 4):  # whole, or the last piece
            yield record
            record = b""


def read_offline(folder: Path, runs: int = 1) -> SimpleNamespace:
    """All records of the newest of so many offline runs below `folder`, by kind.

    W&B's own process makes and writes the file; an offline `finish` does not wait for it, so this waits for the last
    record.
    """
    records: dict[str, list] = {}
    patience = time.monotonic() + 30
    while "exit" not in records and time.monotonic() < patience:
        time.sleep(0.05)
        records = {}
        files = sorted(folder.glob("wandb/offline-run-*/run-*.wandb"))
        for data in _records(files[-1].read_bytes()) if len(files) == runs else ():
            record = wandb_internal_pb2.Record()
            record.ParseFromString(data)
            kind = record.WhichOneof("record_type")
            records.setdefault(kind, []).append(getattr(record, kind))
    return SimpleNamespace(**records)
