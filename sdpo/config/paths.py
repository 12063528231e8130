"""Where files are that come with the project, in a checkout and in an installed wheel alike.

A checkout has `recipes/` and `policies/` at its top; a wheel carries both inside the package (setup.py).
"""

from __future__ import annotations

import os
from pathlib import Path

import sdpo

PACKAGE = Path(sdpo.__file__).resolve().parent
PROJECT = PACKAGE.parent  # the checkout; site-packages where a wheel was installed
# What holds recipes/ and policies/.  The package first: site-packages may hold a `recipes` of somebody else's.
BUNDLED = next((folder for folder in (PACKAGE, PROJECT) if (folder / "recipes").is_dir()), PROJECT)

LOGS = "SDPO_LOGS"  # the variable that tells every process of a run where its logs are kept when it fails


def logs_folder() -> str:
    """Where an error message sends the reader for Ray's logs: to the run's own, or a foreign cluster's newest."""
    return os.environ.get(LOGS) or "/tmp/ray/session_latest/logs"


def is_checkout() -> bool:
    """Whether this is the repository (also installed as editable) rather than an installed wheel."""
    return BUNDLED == PROJECT


def locate(path: str) -> str:
    """The absolute path of a file or folder if it is there, else `path` unchanged (a hub name, say).

    Looked up in the current folder first, then beside what is bundled: `policies/minicode` works from anywhere.
    """
    for base in (Path.cwd(), BUNDLED):
        candidate = (base / path).expanduser()
        if candidate.exists():
            return str(candidate.resolve())
    return path
