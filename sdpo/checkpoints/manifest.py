"""`manifest.json`: the size and checksum of every file of a folder, its own included.

Written last, it is what makes a folder whole: one without it was never finished.  Checksums are XXH3-128, which any
change of a file by accident changes; they are no proof against somebody who writes a manifest of his own, so nothing
that a checkpoint holds is ever executed either.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import astuple, dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import xxhash

from sdpo.checkpoints.durable import sync_file, sync_folder, write_file
from sdpo.errors import UserError

NAME = "manifest.json"
FORMAT = 1
_CHUNK = 4 * 2**20
_THREADS = min(8, os.cpu_count() or 1)


class Damaged(UserError):
    """A checkpoint that must not be used; says which file and what is wrong with it."""


@dataclass(frozen=True)
class FileRecord:
    size: int  # bytes
    checksum: str

    @classmethod
    def of(cls, data: bytes) -> FileRecord:
        return cls(len(data), xxhash.xxh3_128_hexdigest(data))


Records = dict[str, FileRecord]  # by the path within the folder, with slashes


def measure(path: Path) -> FileRecord:
    """Read a regular file, not through a link."""
    digest, size, buffer = xxhash.xxh3_128(), 0, memoryview(bytearray(_CHUNK))
    with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC), "rb", buffering=0) as file:
        while count := file.readinto(buffer):
            digest.update(buffer[:count])
            size += count
    return FileRecord(size, digest.hexdigest())


def measure_all(folder: Path, names: Iterable[str]) -> Records:
    """Several files at a time."""
    names = list(names)
    with ThreadPoolExecutor(_THREADS) as threads:
        return dict(zip(names, threads.map(lambda name: measure(folder / name), names), strict=True))


def seal(folder: Path, known: Mapping[str, FileRecord]) -> None:
    """Bring every file below `folder` to the disk and write the manifest.

    known: what those who wrote files say of them; these files are there already, and are not read again.

    Raises:
        Damaged: one of them is not there, or has another size.
    """
    found = dict.fromkeys(_files(folder))
    for name, record in known.items():
        if name not in found or (folder / name).stat().st_size != record.size:
            raise Damaged(
                f"{folder / name} is not there as it was written. Does every machine of the cluster see this folder "
                "under the same path?"
            )
    others = [name for name in found if name not in known]
    for name in others:
        sync_file(folder / name)
    records = {**known, **measure_all(folder, others)}
    write_file(folder / NAME, _render(records))
    for inner, _, _ in os.walk(folder, topdown=False):
        sync_folder(Path(inner))


def verify(folder: Path, below: str = "") -> None:
    """Read the files of `folder`, or those below one of its folders, and compare them with the manifest.

    Raises:
        Damaged: a file is missing, cut off, changed, or not in the manifest; or the manifest itself is.
    """
    recorded = {name: record for name, record in read(folder).items() if name.startswith(below)}
    found = {name for name in _files(folder) if name.startswith(below) and name != NAME}
    for name, record in recorded.items():
        if name not in found:
            raise Damaged(f"{name} is missing")
        size = (folder / name).stat().st_size
        if size != record.size:
            raise Damaged(f"{name} has {size:,} bytes instead of {record.size:,}")
    if surplus := found - recorded.keys():
        raise Damaged(f"{min(surplus)} does not belong to it (the manifest does not list it)")
    try:
        measured = measure_all(folder, recorded)
    except OSError as error:
        raise Damaged(f"{error.filename} cannot be read ({error.strerror})") from error
    for name, record in recorded.items():
        if measured[name] != record:
            raise Damaged(f"the content of {name} has changed since it was written (checksum)")


def read(folder: Path) -> Records:
    """The manifest's own words.  Raises Damaged if they cannot be trusted."""
    try:
        text = (folder / NAME).read_bytes()
    except FileNotFoundError:
        raise Damaged(f"{NAME} is missing: it was not written completely, or by a version without manifests") from None
    except OSError as error:
        raise Damaged(f"{NAME} cannot be read ({error.strerror})") from error
    try:
        content = json.loads(text)
        version = content["format"]
        if type(version) is int and version > FORMAT:
            raise Damaged(
                f"{NAME} is of format {version}, this version reads format {FORMAT}: a newer version of sdpo wrote it"
            )
        records = {name: FileRecord(size, checksum) for name, (size, checksum) in content["files"].items()}
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise Damaged(f"{NAME} is not a manifest") from None
    if text != _render(records):
        raise Damaged(f"{NAME} has changed since it was written (checksum)")
    for name, record in records.items():
        if not stays_inside(name) or type(record.size) is not int:
            raise Damaged(f"{NAME} lists {name!r}, which is not a file in this folder")
    return records


def _render(records: Mapping[str, FileRecord]) -> bytes:
    """One text for one content, to the byte: what differs from it was changed."""
    content: dict[str, Any] = {"format": FORMAT, "files": {name: list(astuple(r)) for name, r in records.items()}}
    checksum = xxhash.xxh3_128_hexdigest(json.dumps(content, sort_keys=True).encode())
    return json.dumps({**content, "checksum": checksum}, sort_keys=True, indent=1).encode() + b"\n"


def stays_inside(name: str) -> bool:
    """Whether a path, with slashes, leads to a place below the folder that it is taken from."""
    path = PurePosixPath(name)
    return str(path) == name and not path.is_absolute() and ".." not in path.parts and "\0" not in name


def _files(folder: Path) -> Iterator[str]:
    """Every file below `folder`.  Raises Damaged for links and whatever else is neither file nor folder."""
    for inner, folders, files in os.walk(folder):
        for name in (*folders, *files):
            path = Path(inner, name)
            inside = path.relative_to(folder).as_posix()
            if path.is_symlink() or not (path.is_file() or path.is_dir()):
                raise Damaged(f"{inside} is neither a file nor a folder")
            if path.is_file():
                yield inside
