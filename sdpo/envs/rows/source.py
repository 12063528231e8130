"""Where rows come from: files, folders, Hugging Face data sets, or a function of the user's own."""

from __future__ import annotations

import re
import traceback
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sdpo.config.hub import why_offline
from sdpo.config.paths import locate
from sdpo.config.sections import DataSettings
from sdpo.envs.reference import find_function
from sdpo.envs.rows.files import ENDINGS, ROWS, BadRow, Progress, Row, RowKind, folder_files, plain, read_rows
from sdpo.errors import UserError
from sdpo.types import Task

MAX_ROWS = 10_000_000  # of a function; one without an end must not fill the memory
_HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")
_SAVED = ("dataset_dict.json", "state.json")  # what Dataset.save_to_disk leaves


@dataclass(frozen=True)
class Given:
    """One row as its source gave it, and where it stood."""

    file: str
    unit: str  # "line" or "row"
    number: int  # counted from 1
    row: Row | Task | BadRow


@dataclass(frozen=True)
class Source:
    """Rows by a name of theirs.  `note`: what a reader of them should know."""

    name: str
    files: tuple[str, ...]
    rows: Iterable[Given]
    note: str = ""


def training_source(data: DataSettings, progress: Progress | None = None, kind: RowKind = ROWS) -> Source:
    """The rows of `data.source` or `data.path`.  Raises UserError for what the user can mend."""
    if data.source is not None:
        return Source(data.source, (data.source,), _from_function(data.source))
    if data.path is None:
        raise UserError("The recipe does not say where its rows are: set data.path or data.source.")
    return _source("data.path", data.path, data.split, data, progress, kind)


def evaluation_source(data: DataSettings, progress: Progress | None = None, kind: RowKind = ROWS) -> Source | None:
    """The rows to evaluate on, where they are rows of their own; None: they are held out of the others."""
    path = data.evaluation_path or (data.path if data.evaluation_split is not None else None)
    if path is None:
        return None
    option = "data.evaluation_path" if data.evaluation_path else "data.path"
    return _source(option, path, data.evaluation_split, data, progress, kind)


def _source(
    option: str, path: str, split: str | None, data: DataSettings, progress: Progress | None, kind: RowKind
) -> Source:
    where = Path(locate(path)).expanduser()
    if where.is_file():
        if split is not None or data.subset is not None:
            raise UserError(f"data.split and data.subset have no effect: {option}={path} is a single file.")
        return Source(_stem(where), (where.name,), _from_files([where], progress, kind))
    if where.is_dir():
        saved = any((where / name).is_file() for name in _SAVED)
        files = folder_files(where)
        if files and not saved and split is None and data.subset is None:
            return Source(where.resolve().name, tuple(f.name for f in files), _from_files(files, progress, kind))
        return _hugging_face(option, str(where), split, data, saved)
    if path.endswith(tuple(ending for group in ENDINGS for ending in group)) or not _HUB_NAME.fullmatch(path):
        raise UserError(
            f"There is no file or folder {path}.  Set {option} to one that is there ({Path.cwd()} is the current "
            "folder), or to the name of a Hugging Face data set (owner/name)."
        )
    return _hugging_face(option, path, split, data, saved=False)


def _from_files(files: list[Path], progress: Progress | None, kind: RowKind) -> Iterator[Given]:
    for file in files:
        for unit, number, row in read_rows(file, progress, kind):
            yield Given(file.name, unit, number, row)


def _stem(file: Path) -> str:
    ending = next((e for group in ENDINGS for e in group if file.name.endswith(e)), file.suffix)
    return file.name.removesuffix(ending) or file.name


# ------------------------------------------------------------------------------------------- the user's own function


def _from_function(reference: str) -> Iterator[Given]:
    try:
        function = find_function(reference, "data.source")
        number = 0
        for number, row in enumerate(function(), start=1):
            if number > MAX_ROWS:
                raise UserError(f"data.source={reference} gives more than {MAX_ROWS:,} rows; make it end.")
            yield Given(reference, "row", number, _checked(row))
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"data.source={reference} raised an error:\n{_trace(error)}") from error


def _checked(row: Any) -> Row | Task | BadRow:
    if isinstance(row, Task):
        return row
    if isinstance(row, dict):
        return {str(key): plain(value) for key, value in row.items()}
    return BadRow(f"it is a {type(row).__name__}, neither a dict nor a Task")


def _trace(error: Exception) -> str:
    """The traceback without this package's own frames."""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if "/sdpo/envs/" not in f.filename]
    frames = [f for f in frames if "importlib" not in f.filename]
    return "".join([*traceback.format_list(frames), *traceback.format_exception_only(error)]).rstrip()


# ------------------------------------------------------------------------------------------------------ Hugging Face


def _hugging_face(option: str, path: str, split: str | None, data: DataSettings, saved: bool) -> Source:
    local = Path(path).is_dir()
    offline = "" if local else why_offline()  # before `datasets` is imported, which goes by the answer
    try:
        import datasets
    except ImportError as error:
        raise UserError(
            f"{option}={path} is a Hugging Face data set, which the package `datasets` reads ({error}).  Install it "
            "with `pip install 'sdpo[datasets]'`, or give a file of rows (JSON Lines, JSON or Parquet)."
        ) from error
    try:
        if saved:
            found = datasets.load_from_disk(path)
        else:
            found = datasets.load_dataset(path, data.subset, split=split, revision=None if local else data.revision)
    except Exception as error:  # the hub, its HTTP library, pyarrow and the disk each have error families of their own
        raise UserError(_why_not_loaded(option, path, error, offline, local)) from error
    note = ""
    if isinstance(found, dict):  # splits by name
        splits = list(found)
        chosen = split or ("train" if "train" in splits else splits[0] if len(splits) == 1 else None)
        if chosen not in splits:
            said = f"no split {chosen}" if chosen else f"{len(splits)} splits and none is called train"
            which = "data.evaluation_split" if option == "data.evaluation_path" else "data.split"
            raise UserError(f"{option}={path} has {said}.  Set {which} to one of: {', '.join(splits)}.")
        found = found[chosen]
        others = [name for name in splits if name != chosen]
        if others and split is None:
            note = f"{path} has further splits ({', '.join(others)}); data.evaluation_split names one to evaluate on."
        split = chosen
    name = Path(path).resolve().name if local else path
    name = " ".join([name, *filter(None, (data.subset, split))])
    return Source(name, (name,), _rows_of(found, name), note)


def _rows_of(found: Any, name: str) -> Iterator[Given]:
    for number, row in enumerate(found, start=1):
        yield Given(name, "row", number, {key: plain(value) for key, value in row.items()})


def _why_not_loaded(option: str, path: str, error: Exception, offline: str, local: bool) -> str:
    first = (str(error).strip().split("\n") or [""])[0] or type(error).__name__
    if local:
        return f"{option}={path} is a folder that cannot be read as a Hugging Face data set: {first}"
    reason = f"it is not in the cache, and {offline}" if offline else first
    return (
        f"{option}={path} is neither a file nor a folder here, and cannot be fetched as a data set of the Hugging Face "
        f"hub: {reason}.  Check the name and the network, or fetch it on another machine (`hf download {path} "
        "--repo-type dataset --local-dir FOLDER`) and give the folder."
    )
