"""One call records a step everywhere: metrics.jsonl, console, and the sinks (W&B, TensorBoard, CSV)."""

from __future__ import annotations

import math
import threading
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from sdpo.tracking import metric_names as names
from sdpo.tracking.console import Console, Phase
from sdpo.tracking.metrics_file import finite
from sdpo.tracking.run_folder import RunFolder
from sdpo.tracking.run_info import FINISHED, now
from sdpo.tracking.sink import COLUMNS, Sink

_NAMED = 4  # of the metrics in a warning


class Tracker:
    """Joins a locked run folder, a console, and sinks.

    The clock of a run starts at its first phase that is not announced (or first row), stands still while no process
    works on the run, and goes on from the last row after a resume: `wall_clock_s` is training and evaluation.
    """

    def __init__(self, folder: RunFolder, console: Console, sinks: Sequence[Sink] = ()) -> None:
        self._folder, self._console, self._sinks = folder, console, sinks
        rows = folder.metrics
        self._before = float(rows[-1].get("wall_clock_s", 0.0)) if rows else 0.0
        self._started: float | None = None
        self._times: dict[str, float] = defaultdict(float)
        self._lock = threading.Lock()
        self._told_of_budget = False
        self._last_phase = ""

    def __enter__(self) -> Tracker:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        """Close the sinks also when the run breaks off; `RunFolder.__exit__` writes the status and the reason."""
        self._close(1)

    def _close(self, exit_code: int) -> None:
        for sink in self._sinks:
            sink.finish(exit_code)

    @property
    def wall_clock_s(self) -> float:
        """Seconds that this run has taken, over all its resumes, without start-up."""
        return self._before + (time.monotonic() - self._started if self._started is not None else 0.0)

    @contextmanager
    def phase(self, name: str, total: int | None = None, announce: bool = False) -> Iterator[Phase]:
        """`Console.phase`; unless announced, its seconds go into the next row as `time/<name>`."""
        self._last_phase = name
        if not announce:
            self._start_clock()
        started = time.monotonic()
        try:
            with self._console.phase(name, total, announce) as phase:
                yield phase
        finally:
            if not announce:
                with self._lock:
                    self._times[name] += time.monotonic() - started

    def _start_clock(self) -> None:
        if self._started is None:
            self._started = time.monotonic()

    def log(self, step: int, generations: int, metrics: Mapping[str, Any], generated_tokens: int = 0) -> dict[str, Any]:
        """Record one row: a step's numbers, an evaluation's (`eval/…`), or both.  Returns the row as written.

        Args:
            step: number of the step, from 1; 0 is the policy before training.
            generations: rollouts sampled for training so far.
            metrics: numbers, 0-d arrays or tensors, named as in `metric_names`.  NaN and infinities become null.  From
                `response/tokens` and the seconds of the phases since the last row comes `throughput/tokens_per_s`.
            generated_tokens: tokens of all responses sampled for training so far, of every turn.

        Raises `UserError` if the disk is full, and TypeError for a value that is no number.
        """
        self._start_clock()
        values = finite(dict(metrics))
        for key, value in values.items():
            if not isinstance(value, (int, float, type(None))):
                raise TypeError(f"metric {key!r} is not a number: {value!r}")
        with self._lock:
            times = {f"time/{name.replace(' ', '_')}": round(seconds, 4) for name, seconds in self._times.items()}
            self._times.clear()
        seconds = sum(times.values())
        if seconds > 0 and (tokens := values.get(names.RESPONSE_TOKENS.key)):
            values.setdefault(names.THROUGHPUT.key, tokens / seconds)
        clock = {
            "step": int(step),
            "generations": int(generations),
            "wall_clock_s": round(self.wall_clock_s, 3),
            "time": now(),
            "generated_tokens": int(generated_tokens),
        }
        row = {**clock, **times, **values}
        self._folder.append_metrics(row)
        for sink in self._sinks:
            sink.log(row)
        if any(key.startswith("eval/") for key in values):
            self._console.evaluation(row)
        if any(not key.startswith("eval/") for key in values):
            self._console.step(row)
        if unknown := [key for key, value in values.items() if value is None]:
            more = f" and {len(unknown) - _NAMED} more" if len(unknown) > _NAMED else ""
            listed = f"{', '.join(unknown[:_NAMED])}{more}"
            self._console.message(f"warning: metrics of step {step} that could not be computed, and are null: {listed}")
        return row

    def rollouts(
        self, step: int, rows: Sequence[Mapping[str, Any]], budget_mb: float = math.inf, shown: int = 0
    ) -> None:
        """Record every prompt, response, verdict and feedback of a step (`sdpo.tracking.rollouts`).

        Args:
            budget_mb: MB that all tables of the run may take.
            shown: how many of the rows the sinks get as text.
        """
        dropped = self._folder.write_rollouts(step, rows, budget_mb * 1e6)
        if dropped and not self._told_of_budget:
            self._told_of_budget = True
            self._console.message(
                f"Rollout tables have reached {budget_mb:g} MB (tracking.rollouts_mb): from here on those of older "
                "steps are thinned out."
            )
        if shown:
            texts = [{name: row.get(name) for name in COLUMNS} | {"step": step} for row in rows[:shown]]
            for sink in self._sinks:
                sink.rollouts(step, texts)

    def event(self, step: int, part: str, cause: str, action: str) -> None:
        """A part failed, and something was done: a line on the console, in run.json, and a count in the sinks."""
        phase = self._last_phase
        event = {"time": now(), "step": step, "phase": phase, "part": part, "cause": cause, "action": action}
        count = self._folder.add_event(event)
        for sink in self._sinks:
            sink.log({"step": step, "supervision/events": count})
        self._console.message(f"{part}, step {step}{f', {phase}' if phase else ''}: {cause}; {action}")

    def discard(self) -> None:
        """Forget the seconds of phases of a step that is made again."""
        with self._lock:
            self._times.clear()

    def message(self, text: str) -> None:
        self._console.message(text)

    def finish(self, status: str = FINISHED, reason: str = "") -> None:
        """Write the status (finished, or another with its reason) and close the sinks."""
        self._folder.set_status(status, reason)
        self._close(0 if status == FINISHED else 1)
