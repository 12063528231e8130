"""Where LiveCodeBench's files come from: a folder, a file, or the Hugging Face hub."""

from __future__ import annotations

import re
from pathlib import Path

from sdpo.config.hub import why_offline
from sdpo.envs.rows.files import folder_files
from sdpo.errors import UserError

HUB_REPOSITORY = "livecodebench/code_generation_lite"
# The revision that added release_v6 (June 2025); pinned, so that the same recipe reads the same problems.
HUB_REVISION = "0fe84c3912ea0c4d4a78037083943e8f0c4dd505"

OFFICIAL_FILES = ("test.jsonl", "test2.jsonl", "test3.jsonl", "test4.jsonl", "test5.jsonl", "test6.jsonl")


def release_files(release: str) -> tuple[str, ...]:
    """File names of an official release, in order.

    `release_vN` is the first N files, `vN` the N-th alone, `vA_vB` the A-th to the B-th, `release_latest` all of them.
    The v6 window lies wholly in `v6` (134 MB; `release_v6` is 4.5 GB).
    """
    last = len(OFFICIAL_FILES)
    if release == "release_latest":
        return OFFICIAL_FILES
    if match := re.fullmatch(r"release_v(\d+)", release):
        first, end = 1, int(match[1])
    elif match := re.fullmatch(r"v(\d+)(?:_v(\d+))?", release):
        first, end = int(match[1]), int(match[2] or match[1])
    else:
        first, end = 0, 0
    if not 1 <= first <= end <= last:
        raise UserError(
            f"LiveCodeBench has no release {release!r}.  Use release_v1 … release_v{last} (the first N files), "
            f"release_latest, v1 … v{last} (one file), or a range such as v5_v{last}."
        )
    return OFFICIAL_FILES[first - 1 : end]


def find_files(path: str | Path | None = None, release: str | None = None) -> list[Path]:
    """The files to read, in reading order.

    With `path`, a file or a folder: the file, or the release's files in the folder, or without a release all files in
    it of the first of `ENDINGS` that it has, numbers in their names counted as numbers.  Without `path` the release is
    fetched from the hub, or taken from its cache.  UserError says what is missing.
    """
    if path is None:
        return [_from_hub(name) for name in release_files(release or "release_latest")]
    path = Path(path).expanduser()
    if path.is_file():
        if release is not None:
            raise UserError(
                f"data.release={release} has no effect when data.path is the single file {path}.  Set it to null, or "
                "give the folder of the official files."
            )
        return [path]
    if not path.is_dir():
        raise UserError(f"There is no folder or file {path}.  Set data.path to LiveCodeBench's files.")
    if release is not None:
        files = [path / name for name in release_files(release)]
        if missing := [file.name for file in files if not file.is_file()]:
            raise UserError(
                f"{release} needs {', '.join(missing)}, which {path} does not have.  "
                f"Fetch the files with `hf download {HUB_REPOSITORY} --repo-type dataset --local-dir {path}`."
            )
        return files
    if files := folder_files(path):
        return files
    raise UserError(
        f"{path} holds no .jsonl file, no .parquet and no .json either.  Set data.path to LiveCodeBench's files."
    )


def _from_hub(name: str) -> Path:
    from huggingface_hub import hf_hub_download  # costs half a second, and a local folder does not need it

    offline = why_offline()
    try:
        return Path(
            hf_hub_download(
                HUB_REPOSITORY, name, repo_type="dataset", revision=HUB_REVISION, local_files_only=bool(offline)
            )
        )
    except Exception as error:  # the hub, its HTTP library and the disk each have error families of their own
        raise UserError(
            f"{name} of {HUB_REPOSITORY} cannot be fetched from the Hugging Face hub: "
            f"{f'it is not in the cache, and {offline}.' if offline else _first_line(error)}  "
            "Check the network and the free disk space, or fetch the files on another machine and set data.path to "
            "their folder."
        ) from error


def _first_line(error: BaseException) -> str:
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0]}" if text else type(error).__name__
