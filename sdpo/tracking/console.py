"""The live console: what happens now, how long it will take, and how the run does."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import TracebackType
from typing import Any

from rich.console import Console as RichConsole
from rich.live import Live
from rich.text import Text

from sdpo.config.safe_console import SafeConsole
from sdpo.config.terminal import is_gone
from sdpo.tracking.console_view import PhaseState, RunState, evaluation_lines, panel, plain_progress, plain_step
from sdpo.tracking.format import duration

_REFRESH_PER_S = 4
_PLAIN_PROGRESS_S = 20.0  # without a terminal, a long phase says this often that it is alive


class Phase:
    """Handle of a phase that is going on; may be used from several threads."""

    def __init__(self, console: Console, state: PhaseState) -> None:
        self._console, self._state = console, state

    def advance(self, count: int = 1) -> None:
        """`count` more of the total are done."""
        self._console._advance(self._state, self._state.done + count)

    def update(self, done: int, total: int | None = None) -> None:
        """`done` of the total are done; a total that was not known before may be given."""
        if total is not None:
            self._state.total = total
        self._console._advance(self._state, done)

    @property
    def elapsed(self) -> float:
        """Seconds since the phase began."""
        return self._state.elapsed


class Console:
    """Shows a run on a terminal as one live panel, and anywhere else as plain lines, one per step.

        with Console("livecodebench-sdpo-seed0", total_steps=80) as console:
            with console.phase("starting vLLM engine", announce=True):
                …
            with console.phase("generate", total=64) as phase:
                phase.advance()
            console.step({"step": 1, "train/pass_rate": 0.1, …})

    Args:
        plain: True for lines, False for the panel, None for the panel if the output is a terminal.
        rich_console: where to draw; standard output if None.
    """

    def __init__(
        self, run_name: str, total_steps: int, plain: bool | None = None, rich_console: RichConsole | None = None
    ) -> None:
        self._console = rich_console or SafeConsole(highlight=False)
        self.plain = plain if plain is not None else (not self._console.is_terminal or self._console.is_dumb_terminal)
        self._state = RunState(run_name, total_steps)
        self._lock = threading.RLock()
        self._live: Live | None = None

    def __enter__(self) -> Console:
        if not self.plain:
            self._live = Live(get_renderable=self._render, console=self._console, refresh_per_second=_REFRESH_PER_S)
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._lock:
            self._state.phases.clear()
        if self._live is not None:
            self._live.stop()
            self._live = None

    def _render(self) -> Any:
        with self._lock:
            return panel(self._state)

    def _print(self, text: Text | str) -> None:
        try:
            # Plain lines are never wrapped: a log is read by grep as well.
            self._console.print(text, soft_wrap=self.plain, markup=False, highlight=False)
            if self.plain:
                self._console.file.flush()
        except OSError as error:
            if not is_gone(error):
                raise
            self._console.file = open(os.devnull, "w")  # nobody reads any more; the run goes on

    @contextmanager
    def phase(self, name: str, total: int | None = None, announce: bool = False) -> Iterator[Phase]:
        """Something that takes time.  Phases may overlap.

        Args:
            name: "generate", "starting vLLM engine", …
            total: how many (responses, programs, micro-batches) there are, if known.
            announce: leave a line behind with the time that it took; for what happens once, such as start-up.
        """
        state = PhaseState(name, total, announce=announce)
        with self._lock:
            if not announce:
                self._state.begin_steps()
            self._state.phases.append(state)
        if announce and self.plain:
            self._print(f"{name} …")
        try:
            yield Phase(self, state)
        except BaseException:
            if announce:
                self._done(state, "✗", "red", " (not completed)")
            raise
        else:
            if announce:
                self._done(state, "✓", "green", "")
        finally:
            with self._lock:
                if state in self._state.phases:
                    self._state.phases.remove(state)

    def _done(self, state: PhaseState, mark: str, style: str, note: str) -> None:
        took = duration(state.elapsed)
        if self.plain:
            self._print(f"{state.name}: {took}{note}")
        else:
            self._print(Text.assemble((f"{mark} ", style), state.name, (f"  {took}{note}", "dim")))

    def _advance(self, state: PhaseState, done: int) -> None:
        with self._lock:
            state.done = done
            due = self.plain and state.elapsed - state.printed >= _PLAIN_PROGRESS_S and done != state.total
            if due:
                state.printed = state.elapsed
        if due:
            self._print(plain_progress(state))

    def step(self, metrics: Mapping[str, Any]) -> None:
        """A step is complete; `metrics` is its row of metrics.jsonl."""
        with self._lock:
            self._state.add_step(metrics)
            line = plain_step(self._state) if self.plain else None
        if line is not None:
            self._print(line)

    def evaluation(self, metrics: Mapping[str, Any]) -> None:
        """An evaluation is complete; `metrics` holds `step`, `generations` and the `eval/…` numbers."""
        with self._lock:
            self._state.evaluation = dict(metrics)
        where = f", step {metrics['step']}" if "step" in metrics else ""
        for line in evaluation_lines(metrics):
            text = f"evaluation{where}: {line}"
            self._print(text if self.plain else Text(text, style="bold"))

    def message(self, text: str) -> None:
        """One thing that the user should know; it stays above the panel."""
        self._print(text)
