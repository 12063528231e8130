"""Weights & Biases: the only place that imports it."""

from __future__ import annotations

import importlib.util
import netrc
import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

from sdpo.errors import UserError
from sdpo.tracking.sink import COLUMNS, Sink, line

MODES = ("auto", "online", "offline", "disabled")
AXES = ("step", "generations", "generated_tokens", "wall_clock_s")  # the x axes that every row brings
_INIT_TIMEOUT_S = 20  # without an answer of the server by then, the run is written offline


def has_account() -> bool:
    """Whether W&B could log in without asking: WANDB_API_KEY, or an entry for its server in the netrc file."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    host = urlparse(os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")).hostname or ""
    try:
        return netrc.netrc(os.environ.get("NETRC")).authenticators(host) is not None
    except (OSError, netrc.NetrcParseError):
        return False


def choose_mode(mode: str = "auto") -> str:
    """`auto`: WANDB_MODE if it is set, else online with an account and offline without."""
    if mode != "auto":
        return mode
    return os.environ.get("WANDB_MODE") or ("online" if has_account() else "offline")


def is_installed() -> bool:
    """W&B is an extra of the package; the lock files have it."""
    return importlib.util.find_spec("wandb") is not None


def check_installed(mode: str) -> None:
    """Raises UserError where a recipe asks for W&B by name and there is none; `auto` goes on without."""
    if mode in ("online", "offline") and not is_installed():
        raise UserError(
            f"tracking.wandb={mode} needs the package wandb, which is not installed. Install it (pip install wandb), "
            "or leave it out: tracking.wandb=auto (W&B where there is one) or tracking.wandb=disabled."
        )


@dataclass(frozen=True)
class Place:
    """Where a run is on W&B's server."""

    entity: str
    project: str
    name: str
    url: str


class WandbLogger(Sink):
    """One W&B run, written under `<folder>/wandb/`.

    Args:
        folder: the run folder.
        project, group, name, tags, config: as W&B shows them; `config` is the resolved recipe.
        mode: auto | online | offline | disabled.
        job_type: "train" or "compare".
        run_id: the id of the run to go on with, or "" for a new one.  An offline run that is resumed becomes a second
            `offline-run-…` folder with the same id; `wandb sync` joins them in order.
        warn: told, once, what went wrong; the run goes on without W&B (or offline, if only the server did not answer).

    Raises UserError for `online` and `offline` where wandb is not installed; `auto` then is `disabled`.
    """

    def __init__(
        self,
        folder: Path,
        *,
        project: str,
        group: str,
        name: str,
        tags: Sequence[str] = (),
        config: Mapping[str, Any] | None = None,
        mode: str = "auto",
        run_id: str = "",
        job_type: str = "train",
        warn: Callable[[str], None] = warnings.warn,
    ) -> None:
        super().__init__("W&B", warn)
        self._folder, self._run = Path(folder), None
        check_installed(mode)
        self._installed = is_installed()
        self.mode = choose_mode(mode) if self._installed else "disabled"
        if self.mode == "disabled":
            return
        arguments = {
            "project": project,
            "group": group,
            "name": name,
            "tags": list(tags),
            "config": dict(config or {}),
            "job_type": job_type,
            "id": run_id or None,
            "resume": "allow",
            "dir": str(self._folder),
        }
        try:
            self._run = self._init(self.mode, arguments)
        except Exception as error:
            if self.mode == "offline":
                self._fail(error)
            else:
                self._warn(f"W&B: no connection ({line(error)}); this run is written offline.")
                self.mode = "offline"
                try:
                    self._run = self._init("offline", arguments)
                except Exception as second:
                    self._fail(second)

    @staticmethod
    def _init(mode: str, arguments: Mapping[str, Any]) -> Any:
        import wandb  # a second of import time that `sdpo --help` need not pay

        settings = wandb.Settings(console="off", silent=True, disable_code=True, init_timeout=_INIT_TIMEOUT_S)
        # create_new: a run that is open already in this process (in a notebook, say) is another's, and is left alone.
        run = wandb.init(**arguments, mode=mode, settings=settings, reinit="create_new")
        for axis in AXES:
            run.define_metric(axis, hidden=axis == "step")
        run.define_metric("*", step_metric="step")
        # Each of the three can be chosen as x axis in every chart; samples are what the algorithms are compared by.
        run.define_metric("eval/*", step_metric="generations", summary="max,last")
        return run

    @property
    def run_id(self) -> str:
        """What a resumed run needs; "" when W&B is off."""
        return self._run.id if self._run is not None else ""

    @property
    def place(self) -> Place | None:
        """None: the run is not on the server."""
        if self._run is None or self.mode != "online" or not self._run.url:
            return None
        return Place(self._run.entity, self._run.project, self._run.name, self._run.url)

    @property
    def description(self) -> str:
        """One line for the user."""
        if not self._installed:
            return "W&B is off: wandb is not installed (pip install wandb); the run folder has everything"
        if self._run is None:
            return "W&B is off"
        if self.mode == "online" and self._run.url:
            return f"W&B: {self._run.url}"
        return f"W&B is offline; upload later with: wandb sync {self._folder}/wandb/offline-run-*-{self.run_id}"

    def log(self, row: Mapping[str, Any]) -> None:
        """`row` has the axes beside its metrics; W&B's own step counter is not used: it cannot go back on a resume."""
        known = {key: value for key, value in row.items() if value is not None and key != "time"}
        self._try(lambda: self._run.log(known))

    def rollouts(self, step: int, rows: Sequence[Mapping[str, Any]]) -> None:
        self.table("rollouts", COLUMNS, [[row[name] for name in COLUMNS] for row in rows], {"step": step})

    def curves(self, name: str, title: str, x_label: str, series: Mapping[str, Sequence[tuple[float, float]]]) -> None:
        """A chart with one line per label."""

        def chart() -> Any:
            from wandb.plot import line_series

            points = [list(zip(*line, strict=True)) for line in series.values()]
            return line_series([x for x, _ in points], [y for _, y in points], list(series), title, x_label)

        self._try(lambda: self._run.log({name: chart()}))

    def table(
        self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]], axes: Mapping[str, int] | None = None
    ) -> None:
        """A table, at `axes` (`step`, say) where it belongs to a place of the run."""

        def table() -> Any:
            import wandb

            return wandb.Table(columns=list(columns), data=[list(row) for row in rows])

        self._try(lambda: self._run.log({name: table(), **(axes or {})}))

    def page(self, name: str, text: str) -> None:
        """An HTML page as it is."""

        def page() -> Any:
            import wandb

            return wandb.Html(text, inject=False)

        self._try(lambda: self._run.log({name: page()}))

    def finish(self, exit_code: int = 0) -> None:
        """Close the run; a second call does nothing."""
        self._try(lambda: self._finish(exit_code))
        self._run = None

    def _finish(self, exit_code: int) -> None:
        import wandb

        self._run.finish(exit_code=exit_code)
        if wandb.run is None:  # nobody else's run is open in this process: its service may go, too
            wandb.teardown(exit_code)

    def _try(self, action: Callable[[], Any]) -> None:
        if self._run is not None:
            super()._try(action)

    def _fail(self, error: Exception) -> None:
        self._run = None
        super()._fail(error)
