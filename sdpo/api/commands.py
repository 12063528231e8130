"""The commands as functions.  Each runs in a process of its own, which signals and crashes cannot carry over from."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sdpo.api.run import Run
from sdpo.config.files import find_recipe
from sdpo.config.hardware import choose_profile, known_gpus
from sdpo.config.identity import flatten
from sdpo.config.run_name import named
from sdpo.config.terminal import say
from sdpo.errors import UserError
from sdpo.evaluation.results import EvaluationResult

_STOPPED, _USER_ERROR, _GUARDED = 130, 2, 3  # exit statuses


def train(
    recipe: str = "livecodebench",
    *,
    algorithm: str | None = None,
    profile: str | None = None,
    fresh: bool = False,
    quiet: bool = False,
    **options: Any,
) -> Run:
    """`sdpo train`: begin a run, or go on with the one of the same name, and wait until it is finished.

    Args:
        recipe: the name of a bundled recipe, or the path of a file.
        algorithm: sdpo, grpo, …; None: the recipe's first.
        profile: cpu or gpu; None: by the hardware.
        fresh: set an earlier run of the same name aside.
        quiet: print nothing.
        options: of the recipe, by section: `run={"steps": 20}, learner={"lr": 1e-5}, seed=1`; `name=` names the run.

    An interrupt (Ctrl-C, a notebook's stop button) saves the run, which the same call goes on with, and raises
    KeyboardInterrupt.  Where this process is connected to a Ray cluster, the run uses that one.

    Raises:
        UserError: what `sdpo train` says when it ends with status 2.
        RuntimeError: it ended otherwise; its traceback was printed.
    """
    overrides = as_overrides(options)
    chosen, _ = choose_profile(profile)
    folder = run_folder(recipe, algorithm, chosen, overrides)
    words = ["train", recipe, "--profile", chosen, *(["--algorithm", algorithm] if algorithm else [])]
    _run([*words, *(["--fresh"] if fresh else []), *overrides], quiet)
    return Run(folder)


def run_folder(recipe: str, algorithm: str | None, profile: str, overrides: Sequence[str]) -> Path:
    """Where `sdpo train` with these arguments keeps its run.  Raises UserError for a recipe that is not valid."""
    settings = named(find_recipe(recipe, algorithm), profile, overrides, gpus=known_gpus(profile))
    return Path(settings.run.directory) / settings.name


def evaluate(
    model: str | Path,
    *,
    recipe: str | None = None,
    profile: str | None = None,
    out: str | Path | None = None,
    quiet: bool = False,
    **options: Any,
) -> EvaluationResult:
    """`sdpo eval`: pass@k of a run, a checkpoint, or a Hugging Face folder.

    Args:
        model: the path of any of them.
        recipe: whose tasks to solve; None: those of the run that the model comes from, else livecodebench's.
        out: a folder for results.json and responses.jsonl; None: they are not kept.
        profile, quiet, options: as of `train`.

    Raises as `train` does.
    """
    words = [
        "eval",
        str(model),
        *(["--recipe", recipe] if recipe else []),
        *(["--profile", profile] if profile else []),
    ]
    with tempfile.TemporaryDirectory() as folder:
        place = Path(out or folder)
        _run([*words, "--out", str(place), *as_overrides(options)], quiet)
        return EvaluationResult.load(place / "results.json")


def as_overrides(options: Mapping[str, Any]) -> list[str]:
    """Sections as dictionaries → key=value, as they are typed: {"run": {"steps": 3}} → run.steps=3."""
    # A text as it stands: an option that is one takes it so.
    return [
        f"{key}={value if isinstance(value, str | Path) else json.dumps(value)}"
        for key, value in flatten(options).items()
    ]


def _run(words: list[str], quiet: bool) -> None:
    """`sdpo` with these arguments, its output passed on line by line."""
    environment = {**os.environ, "PYTHONUNBUFFERED": "1", **_own_ray()}
    command = [sys.executable, "-m", "sdpo.cli", *words]
    lines: list[str] = []
    with subprocess.Popen(
        command, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        errors="replace", start_new_session=True,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        while True:
            try:
                for line in process.stdout:
                    lines.append(line.rstrip("\n"))
                    if not quiet:
                        say(lines[-1])
                status = process.wait()
                break
            except KeyboardInterrupt:  # once more, and it ends without saving
                process.send_signal(signal.SIGINT)
    if status == _STOPPED:
        raise KeyboardInterrupt
    if status == _USER_ERROR:
        said = "\n".join(lines)
        raise UserError(said[said.rfind("error: ") + len("error: ") :])
    if status == _GUARDED:
        raise UserError(f"The run was stopped by its guard: {lines[-1]}")
    if status:
        raise RuntimeError(f"`sdpo {words[0]}` ended with status {status}:\n" + "\n".join(lines[-20:]))


def _own_ray() -> dict[str, str]:
    """Where this process is connected to a Ray cluster, that one's address."""
    ray = sys.modules.get("ray")
    if ray is None or not ray.is_initialized():
        return {}
    return {"RAY_ADDRESS": ray.get_runtime_context().gcs_address}
