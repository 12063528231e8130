"""What the runner does now, and how long it will take: a live display on a terminal, lines anywhere else."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.live import Live
from rich.text import Text

from sdpo.tracking.format import duration
from studies.evidence.record import Record

_LINE_S = 60.0  # without a terminal, a run says this often how far it is


class Progress:
    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(highlight=False)
        self._steps: list[int] = []  # of the runs to make
        self._made = 0
        self._rates: list[float] = []  # seconds per step of runs that were made, start-up included
        self._run, self._folder, self._step, self._total = "", Path(), 0, 0
        self._began = self._spoken = time.monotonic()
        self._live: Live | None = None

    def plan(self, steps: Sequence[int], records: Sequence[Record]) -> None:
        """The steps of each run that is to be made; `records` say how long such runs take."""
        self._steps, self._made = list(steps), 0
        self._rates = [r.elapsed_s / len(r.train["step"]) for r in records if r.finished and r.train.get("step")]

    def begin(self, run: str, folder: Path, steps: int) -> None:
        self._run, self._folder, self._step, self._total = run, folder, 0, steps
        self._began = self._spoken = time.monotonic()
        if self.console.is_terminal:
            self._live = Live(self._text(), console=self.console, refresh_per_second=2, transient=True)
            self._live.start()
        else:
            self.console.print(self._text(), soft_wrap=True)

    def tick(self) -> None:
        self._step = _last_step(self._folder)
        if self._live is not None:
            self._live.update(self._text())
        elif time.monotonic() - self._spoken >= _LINE_S:
            self._spoken = time.monotonic()
            self.console.print(self._text(), soft_wrap=True)

    def ended(self, record: Record) -> None:
        """One line for the run that has just ended."""
        self.close()
        if record.finished:
            self._rates.append(record.elapsed_s / max(1, len(record.train.get("step", []))))
        values = [f"{name} {curve[-1][1]:.2f}" for name, key in _SHOWN if (curve := record.curve(key))]
        outcome = ", ".join(values) if record.finished else f"failed: {record.reason}"
        self.console.print(f"{record.run}: {outcome} ({duration(record.elapsed_s)})", soft_wrap=True, markup=False)

    def done(self) -> None:
        """One more of the planned runs needs nothing any more."""
        self._made += 1

    def close(self) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None

    def message(self, text: str) -> None:
        self.console.print(text, soft_wrap=True, markup=False)

    def _text(self) -> Text:
        where = f"[{self._made + 1}/{len(self._steps)}] {self._run}: step {self._step}/{self._total}"
        return Text(f"{where}, {duration(time.monotonic() - self._began)}; left: {self._left()}")

    def _left(self) -> str:
        if not self._rates:
            return "unknown until a run has ended"
        rate = statistics.median(self._rates)
        now = max(0.0, self._total * rate - (time.monotonic() - self._began))
        return f"about {duration(now + rate * sum(self._steps[self._made + 1 :]))}"


_SHOWN = (("training pass@1", "eval/train/pass@1"), ("held-out pass@1", "eval/held_out/pass@1"))


def _last_step(folder: Path) -> int:
    """The step of the last complete row of metrics.jsonl."""
    try:
        with (folder / "metrics.jsonl").open("rb") as file:
            file.seek(max(0, file.seek(0, 2) - 16384))
            lines = file.read().rstrip(b"\n").split(b"\n")
        return int(json.loads(lines[-1])["step"])
    except (OSError, ValueError, KeyError, IndexError):
        return 0
