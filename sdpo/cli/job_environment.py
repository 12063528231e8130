"""What a submitted run needs on the cluster: the current folder's files, variables by name, packages if asked for."""

from __future__ import annotations

import math
import os
import shlex
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from sdpo.config.paths import PROJECT, is_checkout
from sdpo.config.schema import Recipe
from sdpo.errors import UserError
from sdpo.tracking import provenance
from sdpo.tracking.disk import human_bytes
from sdpo.training.interrupt import END_LIMIT_S, SAVE_LIMIT_S

LARGEST_FILE = 50 * 2**20  # bytes
LARGEST_FOLDER = 400 * 2**20  # Ray takes 500 MiB at most
# In the manner of .gitignore, beside what .gitignore and .rayignore name.
LEFT_OUT = (".git", ".venv", "/runs", "/build", "/dist", "__pycache__", ".*_cache", "*.egg-info")
# Handed on where they are set here.
VARIABLES = (
    "WANDB_API_KEY", "WANDB_BASE_URL", "WANDB_ENTITY", "WANDB_MODE", "HF_TOKEN", "HF_ENDPOINT", "HF_HUB_OFFLINE",
)  # fmt: skip
_STOP_WAIT = "RAY_JOB_STOP_WAIT_TIME_S"  # how long Ray waits between SIGTERM and SIGKILL, 3 s by default


def runtime_environment(folder: Path, recipe: Recipe, names: Sequence[str], lock: Path | None) -> dict[str, Any]:
    """Ray's runtime environment of a job that runs `sdpo train` in a copy of `folder`.

    Args:
        names: variables to hand on beside `VARIABLES`.
        lock: a requirements file that the nodes install, without following dependencies; None: they have everything.

    Raises:
        UserError: the folder is too large, a variable is not set, or `lock` is not there.
    """
    if missing := [name for name in names if name not in os.environ]:
        raise UserError(f"--env {missing[0]}: no such variable is set here. Export it, or leave --env out.")
    stop = recipe.run.stop_limit_s + SAVE_LIMIT_S + END_LIMIT_S
    variables = {name: os.environ[name] for name in (*VARIABLES, *names) if name in os.environ}
    variables |= {_STOP_WAIT: str(math.ceil(stop)), provenance.COMMIT: provenance.commit(), "PYTHONUNBUFFERED": "1"}
    excludes = [*LEFT_OUT, *(f"/{name}" for name in large_files(folder))]
    environment: dict[str, Any] = {"working_dir": str(folder), "excludes": excludes, "env_vars": variables}
    if lock is not None:
        environment["pip"] = _pip(folder, lock)
    return environment


def large_files(folder: Path) -> list[str]:
    """Files that are too large to be sent, by their paths in the folder.  Raises UserError if the rest is, too."""
    sizes = {name: (folder / name).stat().st_size for name in _files(folder) if (folder / name).is_file()}
    large = sorted(name for name, size in sizes.items() if size > LARGEST_FILE)
    rest = {name: size for name, size in sizes.items() if name not in large}
    if sum(rest.values()) > LARGEST_FOLDER:
        tops: dict[str, int] = {}
        for name, size in rest.items():
            top = name.partition("/")[0]
            tops[top] = tops.get(top, 0) + size
        listed = ", ".join(f"{t} {human_bytes(tops[t])}" for t in sorted(tops, key=lambda t: tops[t], reverse=True)[:5])
        raise UserError(
            f"{folder} would be sent to the cluster, and has {human_bytes(sum(rest.values()))}: {listed}. Start from a "
            "smaller folder, or name what is not needed in a file .rayignore or .gitignore. Models and data must lie "
            "where every machine of the cluster sees them."
        )
    return large


def entrypoint(python: str, recipe: str, options: Sequence[str], overrides: Sequence[str]) -> str:
    """The job's shell command; the shell makes way for it, so that a stop reaches it alone."""
    return "exec " + shlex.join([python, "-m", "sdpo.cli", "train", *options, recipe, *overrides])


def _files(folder: Path) -> Iterator[str]:
    """What Ray would send: by git's list where there is one, since Ray heeds .gitignore too."""
    listed = ["git", "-C", str(folder), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    try:
        yield from subprocess.run(listed, capture_output=True, text=True, check=True).stdout.split("\0")[:-1]
        return
    except (OSError, subprocess.CalledProcessError):
        pass
    for inner, folders, files in os.walk(folder):
        at_top = Path(inner) == folder
        folders[:] = [n for n in folders if n not in LEFT_OUT and not (at_top and f"/{n}" in LEFT_OUT)]
        yield from ((Path(inner, name).relative_to(folder)).as_posix() for name in files)


def _pip(folder: Path, lock: Path) -> dict[str, Any]:
    try:
        lines = [line.partition(" #")[0].strip() for line in lock.read_text().splitlines()]
    except OSError as error:
        raise UserError(f"--pip {lock} cannot be read ({error.strerror}). The locks are in requirements/.") from None
    packages = [line for line in lines if line and not line.startswith("#")]
    if is_checkout() and folder == PROJECT:  # vLLM finds sdpo's plugin by its entry point alone
        packages.append("${RAY_RUNTIME_ENV_CREATE_WORKING_DIR}")
    return {"packages": packages, "pip_check": False, "pip_install_options": ["--no-deps"]}
