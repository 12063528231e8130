"""A run folder: the only memory that a run has, and everything that a figure needs.

runs/<name>/
  run.json          what it is, its status, commit, hardware, command      (run_info.py)
  recipe.yaml       the resolved recipe
  inputs.json       checksums of the model's files and of the tasks        (sdpo.training.inputs)
  metrics.jsonl     a row per step and per evaluation                      (metrics_file.py)
  rollouts/         step-000001.parquet …                                  (rollouts.py)
  skipped/          the batch that stopped the run                          (sdpo.learner.skipped)
  evaluations/      step-000010-held_out.json …: counts per problem       (sdpo.evaluation)
  checkpoints/      written by the trainer
  wandb/            written by W&B, tensorboard/ by TensorBoard, metrics.csv by the CSV sink (`tracking.sinks`)
  logs/             Ray's, of a run that failed                           (sdpo.training.private_folder)
  report.html       the page of this run                                   (sdpo.report)
  inspect.html      all its responses, with the credit of every token      (sdpo inspect)
  lock              held by the process that trains                        (lock.py)
"""

from __future__ import annotations

import asyncio
import errno
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import yaml

from sdpo.errors import UserError
from sdpo.tracking.disk import atomic_write, disk_errors
from sdpo.tracking.lock import FolderLock, is_locked
from sdpo.tracking.metrics_file import MetricsFile, read_metrics
from sdpo.tracking.rollouts import rollout_steps, rollouts_path, thin_out, write_rollouts
from sdpo.tracking.run_info import DIED, DIED_REASON, FAILED, INTERRUPTED, RUNNING, STATUSES, RunInfo

_FOLDER_BYTES = 4096  # what an empty folder takes on common file systems


class RunFolder:
    """Reads a run at any time; writes only between `__enter__`, which takes the lock, and `__exit__`.

    with RunFolder(Path("runs/livecodebench-sdpo-seed0")) as folder:
        if folder.info is None:
            folder.create(RunInfo.collect(…), recipe)
        else:
            folder.resume(step_of_the_last_complete_checkpoint)
        folder.append_metrics({"step": 1, …})
        folder.set_status("finished")
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self.rollouts = self.path / "rollouts"
        self.checkpoints = self.path / "checkpoints"
        self.evaluations = self.path / "evaluations"
        self.report = self.path / "report.html"
        self._lock = FolderLock(self.path)
        self._metrics = MetricsFile(self.path / "metrics.jsonl")

    # --- reading ---------------------------------------------------------------------------------------------------
    @property
    def info(self) -> RunInfo | None:
        """None if no run has begun here.  A run that calls itself running but has no living process died."""
        path = self.path / "run.json"
        if not path.exists():
            return None
        info = RunInfo.read(path)
        if info.status == RUNNING and not is_locked(self.path):
            info.status, info.reason = DIED, info.reason or DIED_REASON
        return info

    @property
    def recipe(self) -> dict[str, Any]:
        """The resolved recipe.  Raises `UserError` if it is missing or not a mapping."""
        path = self.path / "recipe.yaml"
        try:
            content = yaml.safe_load(path.read_text())
        except (OSError, yaml.YAMLError) as error:
            raise UserError(f"{path} cannot be read ({error}); without it {self.path} is not a run folder.") from error
        if not isinstance(content, dict):
            raise UserError(f"{path} is not a mapping of settings; {self.path} is not a run folder.")
        return content

    @property
    def metrics(self) -> list[dict[str, Any]]:
        return read_metrics(self._metrics.path)

    def metrics_of(self, step: int) -> list[dict[str, Any]]:
        """The rows of `step`, which must be the last one that has any."""
        return self._metrics.rows_of(step)

    # --- one process at a time -------------------------------------------------------------------------------------
    def __enter__(self) -> RunFolder:
        """Raises `UserError` if another living process trains into this folder, or if it is a link to elsewhere."""
        check_no_link(self.path)
        if self.path.exists() and not self.path.is_dir():
            raise UserError(f"{self.path} is a file, not a run folder. Move it, or give the run another name (name=…).")
        with disk_errors(self.path, _FOLDER_BYTES):
            self.path.mkdir(parents=True, exist_ok=True)
            self._lock.acquire()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Let go of the folder.  A run that was not brought to an end is marked interrupted or failed, with the reason.

        Raises `UserError` in place of whatever a deleted folder led to.
        """
        if self._lock.held and not self.path.is_dir() and isinstance(error, OSError):
            self._lock.release()
            with disk_errors(self.path, 0):
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(self.path)) from error
        self.close(*_end(error))

    def close(self, status: str = INTERRUPTED, reason: str = "stopped at once by a signal") -> None:
        """Let go of the folder; a run that is still under way has come to this end.  May be called twice."""
        try:
            if self._lock.held and (info := self.info) is not None and info.status == RUNNING:
                self.set_status(status, reason)
        finally:
            self._lock.release()
            if self.path.is_dir() and not (self.path / "run.json").exists():
                self._remove_if_unused()

    def _remove_if_unused(self) -> None:
        if [entry.name for entry in self.path.iterdir()] == ["lock"]:
            (self.path / "lock").unlink()
            self.path.rmdir()

    # --- writing ---------------------------------------------------------------------------------------------------
    def create(self, info: RunInfo, recipe: Mapping[str, Any]) -> None:
        """Begin a new run here.  Raises `UserError` if there is one already."""
        self._need_lock()
        if (self.path / "run.json").exists():
            raise UserError(f"{self.path} holds a run already. Resume it, or give this one another name (name=…).")
        with disk_errors(self.path, 3 * _FOLDER_BYTES):
            for folder in (self.rollouts, self.evaluations, self.checkpoints):
                folder.mkdir(exist_ok=True)
        self._write_recipe(recipe)
        info.write(self.path / "run.json")  # last: from now on the folder is a run

    def resume(self, step: int, rows: Sequence[Mapping[str, Any]] = ()) -> int:
        """Go back to the checkpoint of `step` (0: the beginning) and return the number of rows dropped.

        Rows, rollouts and evaluations of later steps are dropped, since these steps will be made again.  `rows`: those
        of `step` itself, which the checkpoint keeps (`metrics_of`): one that the file has lost is written again.
        """
        self._need_lock()
        info = self.info
        if info is None:
            raise UserError(f"{self.path} holds no run to resume.")
        dropped = self._metrics.go_back(step, rows)
        for later in rollout_steps(self.rollouts):
            if later > step:
                rollouts_path(self.rollouts, later).unlink()
        for evaluation in self.evaluations.glob("step-*.json"):
            if int(evaluation.name.split("-")[1]) > step:
                evaluation.unlink()
        info.status, info.reason = RUNNING, ""
        info.write(self.path / "run.json")
        return dropped

    def note_changes(
        self, recipe: Mapping[str, Any], step: int, changed: Mapping[str, tuple[Any, Any]], commit: str
    ) -> None:
        """The run goes on from `step` with another recipe or commit; `changed`: option → (old, new)."""
        self._need_lock()
        info = RunInfo.read(self.path / "run.json")
        info.commit = commit
        info.changes += [{"step": step, "option": n, "old": old, "new": new} for n, (old, new) in changed.items()]
        info.write(self.path / "run.json")
        self._write_recipe(recipe)

    def _write_recipe(self, recipe: Mapping[str, Any]) -> None:
        text = yaml.safe_dump(dict(recipe), sort_keys=False, allow_unicode=True, width=120)
        atomic_write(self.path / "recipe.yaml", text.encode())

    def append_metrics(self, row: Mapping[str, Any]) -> None:
        self._need_lock()
        self._metrics.append(row)

    def write_rollouts(self, step: int, rows: Sequence[Mapping[str, Any]], budget_bytes: float = math.inf) -> list[int]:
        """Write a step's table; returns the steps whose tables made room for it, which run.json counts."""
        self._need_lock()
        write_rollouts(self.rollouts, step, rows)
        if dropped := thin_out(self.rollouts, budget_bytes):
            self._update(rollouts_dropped=RunInfo.read(self.path / "run.json").rollouts_dropped + len(dropped))
        return dropped

    def set_status(self, status: str, reason: str = "") -> None:
        """One of `run_info.STATUSES`."""
        if status not in STATUSES:
            raise ValueError(f"unknown status {status!r}")
        self._update(status=status, reason=reason)

    def set_wandb_id(self, wandb_id: str) -> None:
        self._update(wandb_id=wandb_id)

    def set_unfinished(self, rollouts: int) -> None:
        """How many rollouts were under way when the run ended."""
        self._update(rollouts_unfinished=rollouts)

    def add_event(self, event: Mapping[str, Any]) -> int:
        """Note in run.json what happened to the run; returns how many such notes there are."""
        events = [*RunInfo.read(self.path / "run.json").events, dict(event)]
        self._update(events=events)
        return len(events)

    def _update(self, **values: Any) -> None:
        self._need_lock()
        info = RunInfo.read(self.path / "run.json")
        for key, value in values.items():
            setattr(info, key, value)
        info.write(self.path / "run.json")

    def _need_lock(self) -> None:
        if not self._lock.held:
            raise RuntimeError(f"{self.path} is written inside of `with RunFolder(…)` only")


def set_aside(path: Path) -> Path | None:
    """Rename the run folder `path`, so that a new run can take its name; nothing is deleted.  Returns the new path.

    Raises `UserError` if a process trains into it.  None if there is no run.
    """
    folder = RunFolder(path)
    info = folder.info
    if info is None:
        return None
    if is_locked(path):
        raise UserError(f"A process is training in {path}: stop it before you start afresh.")
    stamp = "".join(character for character in info.created[:19] if character.isdigit() or character == "T")
    target = path.with_name(f"{path.name}.{stamp or 'old'}")
    number = 1
    while target.exists():
        number += 1
        target = path.with_name(f"{path.name}.{stamp or 'old'}-{number}")
    path.rename(target)
    return target


def check_no_link(path: Path) -> None:
    """Raises `UserError` if a run folder's name leads out of the folder that it lies in."""
    if path.is_symlink():
        raise UserError(
            f"{path} is a link, and a run must lie in the folder that run.directory names. Set run.directory to where "
            f"it points ({path.readlink().parent}), or remove the link."
        )


def _end(error: BaseException | None) -> tuple[str, str]:
    """Status and reason of a run that `error` broke off."""
    if error is None:
        return INTERRUPTED, "stopped before its last step"
    if isinstance(error, (KeyboardInterrupt, asyncio.CancelledError)):
        return INTERRUPTED, "Ctrl-C"
    text = (str(error).strip().splitlines() or [""])[0][:500]
    return FAILED, text if isinstance(error, UserError) else f"{type(error).__name__}: {text}".removesuffix(": ")
