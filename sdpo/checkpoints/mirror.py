"""A run folder's files once more, below an fsspec address (s3://…, gs://…, a folder): whole, or noticed not to be.

<address>/<run>/    laid out as the run folder; in it
  checkpoints/step-000010/…   as on the disk, the manifest last: a copy without one was never finished

Only files are known here; which ones belong to a run, and when they are copied, is `sdpo.training.mirroring`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

import fsspec
import xxhash
from fsspec.core import url_to_fs
from fsspec.implementations.local import LocalFileSystem

from sdpo.checkpoints.durable import sync_file, sync_folder, write_file
from sdpo.checkpoints.manifest import NAME, Damaged, FileRecord, read, stays_inside
from sdpo.errors import UserError

FOLDER, RUN = "checkpoints", "run.json"  # run.json says which run it is
_STEP = re.compile(rf"{FOLDER}/(step-\d{{6,}})/")
_CHUNK = 4 * 2**20
_THREADS = 4  # files of a checkpoint that are copied at a time
Count = Callable[[int], None]  # is told of bytes as they are copied, by any thread


def _ignored(_: int) -> None: ...


class Mirror:
    """The files of run `name` below `address`, by their paths in the run folder.

    What a file system raises is passed on as it is, and each has exceptions of its own.

    Raises:
        UserError: the address has a protocol that is unknown, or whose package is missing.
    """

    def __init__(self, address: str, name: str) -> None:
        protocol = urlsplit(address).scheme or "file"
        try:
            fsspec.get_filesystem_class(protocol)
            self._files, base = url_to_fs(address)
        except ImportError as error:
            raise UserError(
                f"run.mirror={address}: the package for {protocol}:// is missing ({error}). Install it beside sdpo: "
                "`uv pip install s3fs` for s3, gcsfs for gs, adlfs for abfs."
            ) from None
        except ValueError as error:
            raise UserError(
                f"run.mirror={address}: {error}. Give a folder, or an address that fsspec knows, s3://bucket/runs for "
                f"example (known: {', '.join(fsspec.available_protocols())})."
            ) from None
        self.name, self.address = name, f"{address.rstrip('/')}/{name}"
        self._root = f"{base.rstrip('/')}/{name}"

    @property
    def local(self) -> Path | None:
        """Where it lies, if that is a folder of this machine's."""
        return Path(self._root) if isinstance(self._files, LocalFileSystem) else None

    def files(self) -> dict[str, int]:
        """The size of every file that is there, in bytes."""
        self._files.invalidate_cache()
        try:
            found = self._files.find(self._root, detail=True)
        except FileNotFoundError:
            return {}
        named = {path[len(self._root) + 1 :]: about["size"] for path, about in found.items()}
        return {name: size for name, size in named.items() if stays_inside(name) and not name.endswith(".partial")}

    def read(self, name: str) -> bytes:
        with self._files.open(self._path(name), "rb") as file:
            return file.read()

    def put(self, source: Path, name: str, copied: Count = _ignored) -> FileRecord:
        """Copy a file there; its old content, if any, is replaced by the whole new one.  Returns what was copied."""
        path = self._path(name)
        # Objects appear when they are closed, files when they are opened.
        target = f"{path}.partial" if self.local else path
        self._files.makedirs(path.rpartition("/")[0], exist_ok=True)
        with open(source, "rb") as file, self._files.open(target, "wb") as there:
            record = _copy(file, there, copied)
        if self.local:
            os.replace(target, path)
        return record

    def get(self, name: str, target: Path, copied: Count = _ignored) -> FileRecord:
        """Copy a file from there, over what `target` was; it is on the disk then, its name too."""
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = target.with_name(f".{target.name}.partial")
        with self._files.open(self._path(name), "rb") as there, open(partial, "wb") as file:
            record = _copy(there, file, copied)
        sync_file(partial)
        os.replace(partial, target)
        sync_folder(target.parent)
        return record

    def remove(self, name: str) -> None:
        """A file; none may be there."""
        try:
            self._files.rm(self._path(name))
        except FileNotFoundError:
            pass

    def put_checkpoint(self, checkpoint: Path, copied: Count = _ignored) -> bytes:
        """Copy a checkpoint there; its manifest, which makes it count, comes last.  Returns the manifest.

        Raises:
            Damaged: a file is not as the manifest says.
        """
        manifest, records = (checkpoint / NAME).read_bytes(), read(checkpoint)
        self.remove_checkpoint(checkpoint.name)
        names = list(records)
        with ThreadPoolExecutor(_THREADS) as threads:
            found = threads.map(lambda n: self.put(checkpoint / n, f"{FOLDER}/{checkpoint.name}/{n}", copied), names)
            for name, record in zip(names, found, strict=True):
                _compare(name, record, records[name])
        self.put(checkpoint / NAME, f"{FOLDER}/{checkpoint.name}/{NAME}", copied)
        return manifest

    def get_checkpoint(self, step: str, target: Path, copied: Count = _ignored) -> None:
        """Copy the checkpoint `step` (a folder's name) from there into the new folder `target`.

        Raises:
            Damaged: it is not as it was written.
        """
        target.mkdir(parents=True)
        write_file(target / NAME, self.read(f"{FOLDER}/{step}/{NAME}"))
        records = read(target)

        def get(name: str) -> FileRecord:
            try:
                return self.get(f"{FOLDER}/{step}/{name}", target / name, copied)
            except FileNotFoundError:
                raise Damaged(f"{name} is missing") from None

        with ThreadPoolExecutor(_THREADS) as threads:
            for name, record in zip(records, threads.map(get, records), strict=True):
                _compare(name, record, records[name])
        sync_folder(target)

    def remove_checkpoint(self, step: str) -> None:
        """The manifest first, so that what is left if this breaks off does not count."""
        self.remove(f"{FOLDER}/{step}/{NAME}")
        folder = self._path(f"{FOLDER}/{step}")
        if self._files.exists(folder):
            self._files.rm(folder, recursive=True)

    def set_aside(self, mark: str) -> str | None:
        """Give what is there another name, with `mark` at its end.  Returns its address; None: nothing was there."""
        if not (found := self.files()):
            return None
        if self.local is not None:
            os.rename(self._root, f"{self._root}.{mark}")
        else:  # object stores have no folders to rename; what names the run goes last, so that it can be done again
            for name in sorted(found, key=lambda name: name == RUN):
                self._files.mv(self._path(name), f"{self._root}.{mark}/{name}")
        return f"{self.address}.{mark}"

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}"


def step_folder(name: str) -> str | None:
    """step-000010 of checkpoints/step-000010/…; None for what belongs to no checkpoint."""
    found = _STEP.match(name)
    return found[1] if found else None


def _copy(source, target, copied: Count) -> FileRecord:
    digest, size = xxhash.xxh3_128(), 0
    while data := source.read(_CHUNK):
        target.write(data)
        digest.update(data)
        size += len(data)
        copied(len(data))
    return FileRecord(size, digest.hexdigest())


def _compare(name: str, found: FileRecord, wanted: FileRecord) -> None:
    if found.size != wanted.size:
        raise Damaged(f"{name} has {found.size:,} bytes instead of {wanted.size:,}")
    if found != wanted:
        raise Damaged(f"the content of {name} has changed since it was written (checksum)")
