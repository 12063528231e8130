"""`sdpo`, which also writes down when its phases begin and end, and which processes do the work.

    python -m studies.faults.announced LINES POISON train livecodebench …

LINES: a file to which one JSON object per line is appended.  POISON: where this file appears, the next update finds a
NaN in the fp32 weights of the last learner rank.  Nothing else differs from the command that a user starts.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sdpo.cli import main
from sdpo.tracking.console import Console
from sdpo.tracking.tracker import Tracker
from sdpo.training.trainer import Trainer


class Announcer:
    def __init__(self, lines: str, poison: Path) -> None:
        self._file = os.open(lines, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._poison = poison
        self._trainer: Trainer | None = None
        self._calls: list[Any] = []

    def install(self) -> None:
        """Wrap what tells a user of phases, events and rows."""
        init, phase, event, log = Trainer.__init__, Console.phase, Tracker.event, Tracker.log

        def made(trainer: Trainer, *given: Any) -> None:
            init(trainer, *given)
            self._trainer = trainer

        @contextmanager
        def announced(console: Console, name: str, *given: Any, **named: Any) -> Iterator[Any]:
            self._say("begin", name)
            self._maybe_poison(name)
            try:
                with phase(console, name, *given, **named) as shown:
                    yield shown
            finally:
                self._say("end", name)

        def noted(tracker: Tracker, step: int, part: str, cause: str, action: str) -> None:
            event(tracker, step, part, cause, action)
            self._say("event", part, cause=cause, action=action)

        def logged(tracker: Tracker, *given: Any, **named: Any) -> dict[str, Any]:
            row = log(tracker, *given, **named)
            self._say("row", str(given[0]))
            return row

        Trainer.__init__, Console.phase, Tracker.event, Tracker.log = made, announced, noted, logged

    def _say(self, kind: str, name: str, **more: str) -> None:
        line: dict[str, Any] = {"time": time.time(), "kind": kind, "name": name, **more}
        if self._trainer is not None:
            parts = [*self._trainer.pool.parts, *self._trainer.learner.parts]
            line["complete"] = self._trainer.state.step
            line["parts"] = {f"{part.name}, {role}": pid for part in parts for pid, role in part.processes.items()}
        os.write(self._file, (json.dumps(line) + "\n").encode())

    def _maybe_poison(self, phase: str) -> None:
        if phase == "update" and self._trainer is not None and self._poison.exists():
            self._poison.unlink()
            # A rank works on its calls in turn: this one comes before the update.
            self._calls.append(self._trainer.learner.ranks[-1].__ray_call__.remote(_put_nan))


def _put_nan(rank: Any) -> None:
    held = next(iter(rank.worker.held.optimized.held()))
    held.views["weight"].view(-1)[0] = float("nan")


if __name__ == "__main__":
    lines, poison, *arguments = sys.argv[1:]
    Announcer(lines, Path(poison)).install()
    sys.exit(main(arguments))
