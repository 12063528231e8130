"""One run, begun and resumed by always the same command, that is struck again and again until it is finished."""

from __future__ import annotations

import json
import os
import random
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from studies.faults import strikes
from studies.faults.damage import FILLER, cut_last_line, damage, fill
from studies.faults.process import Command, Hangs, Line, NotThere
from studies.faults.strikes import Strike

NOTICED_S = 30.0  # what is promised, of a machine that is idle
GONE_S = 10.0  # … that nothing lives on longer
_PAUSE_S = 40.0  # longer than the time limit of any call


@dataclass
class Outcome:
    """What came of a strike.  Seconds are counted from it."""

    strike: Strike
    step: int  # under way
    struck: float  # time.time()
    noticed_s: float | None = None  # until the run said so, or ended
    said: str = ""
    status: int | None = None  # the exit status; None: it went on by itself
    gone_s: float | None = None  # until no process and no temporary file was left
    again_s: float | None = None  # until the next step was complete
    lost: int = 0  # steps that had been complete and were made again
    wrong: list[str] = field(default_factory=list)  # what is not as promised

    def as_dict(self) -> dict[str, Any]:
        return {name: value for name, value in asdict(self).items() if name != "struck"}

    def line(self) -> str:
        ended = "goes on" if self.status is None else f"exit status {self.status}"
        noticed = "" if self.noticed_s is None else f" after {self.noticed_s:.1f} s"
        wrong = f"; WRONG: {'; '.join(self.wrong)}" if self.wrong else ""
        strike = self.strike
        return f"step {self.step}, {strike.phase}: {strike.part}, {strike.how}: {ended}{noticed}{wrong}"


class StruckRun:
    """The run `runs`/`name`; `tell` gets a line for every strike."""

    def __init__(self, words: list[str], runs: Path, name: str, tell: Callable[[str], None]) -> None:
        self._command = Command(words, runs)
        self._runs, self._folder, self._tell = runs, runs / name, tell
        self._chance = random.Random(0)
        self.outcomes: list[Outcome] = []

    def make(self, planned: list[Strike], until: float = float("inf")) -> None:
        """Strike as planned, but not after the moment `until` (of time.monotonic); then let the run come to its end."""
        with self._command:
            for strike in planned:
                if time.monotonic() > until or not self._strike(strike):
                    break
            self._finish()
        for outcome in self.outcomes:
            self._look_back(outcome)

    def _strike(self, strike: Strike) -> bool:
        """Returns False where the run was over before."""
        if strike.phase in strikes.STARTS and self._command.process is not None:
            # A start has no step of its own: the command ends at the strike's step, and is then begun again.
            self._command.next(lambda line: _is_due(strike, line))
            self._command.end(signal.SIGTERM)
        while (line := self._reached(strike)) is None:
            if self._status() == "finished":
                return False
        time.sleep(strike.delay)
        before, outcome = self._status(), Outcome(strike, self._command.complete + 1, time.time())
        self.outcomes.append(outcome)
        try:
            self._hit(strike, line)
            if strike.ends_the_command:
                self._ended(outcome, before)
            elif strike.part in strikes.REPLACED:
                self._replaced(outcome, line)
        except Hangs:
            outcome.wrong.append("it hangs")
        except NotThere as error:
            outcome.wrong.append(str(error))
        self._tell(outcome.line())
        return True

    def _reached(self, strike: Strike) -> Line | None:
        """The beginning of the strike's phase.  None: the command ended before it came."""

        def here(line: Line) -> bool:
            begins = line["kind"] == "begin" and line["name"].startswith(strike.phase)
            due = strike.phase in strikes.STARTS or _is_due(strike, line)
            return begins and due and self._is_there(strike, line)

        self._command.start()
        return self._command.next(here)

    def _is_there(self, strike: Strike, line: Line) -> bool:
        """What is to be struck: an engine may be on its way, and one checkpoint must be there to fall back to."""
        if strike.part == strikes.CHECKPOINT:
            return len(self._checkpoints()) > 1
        return strike.part not in strikes.REPLACED or strike.of(line["parts"]) is not None

    def _hit(self, strike: Strike, line: Line) -> None:
        if strike.part == strikes.DISK:
            fill(self._runs)
        elif strike.part == strikes.WEIGHTS:
            self._command.poison.touch()
        elif strike.how == "paused":
            os.kill(self._process_id(strike, line), signal.SIGSTOP)
            time.sleep(_PAUSE_S)
            os.kill(self._process_id(strike, line), signal.SIGCONT)
        else:
            number = signal.Signals[strike.how] if strike.how.startswith("SIG") else signal.SIGKILL
            with suppress(ProcessLookupError):
                os.kill(self._process_id(strike, line), number)

    def _process_id(self, strike: Strike, line: Line) -> int:
        if strike.part in strikes.REPLACED:
            return line["parts"][strike.of(line["parts"])]
        if strike.part in strikes.FILES:
            return self._command.find(strikes.FILES[strike.part])
        assert self._command.process is not None
        return self._command.process.pid

    def _replaced(self, outcome: Outcome, line: Line) -> None:
        """Wait until the run says so."""
        role = outcome.strike.of(line["parts"])
        assert role is not None
        part = role.split(",")[0]
        said = self._command.next(lambda line: line["kind"] == "event" and line["name"] == part)
        if said is None:
            outcome.status = self._command.wait()
            outcome.wrong.append(f"the command ended with status {outcome.status}: {self._command.last_words}")
            return
        outcome.noticed_s, outcome.said = said["time"] - outcome.struck, f"{said['cause']}; {said['action']}"

    def _ended(self, outcome: Outcome, before: str | None) -> None:
        """Wait for the end, and for nothing to be left; then do to files what is to be done."""
        strike = outcome.strike
        outcome.status = self._command.wait()
        ended = time.time()
        outcome.noticed_s, outcome.said = ended - outcome.struck, self._command.last_words
        while left := self._command.left():
            if time.time() - ended > GONE_S:
                outcome.wrong.append(f"left after {GONE_S:.0f} s: {', '.join(left)}")
                break
            time.sleep(0.1)
        outcome.gone_s = time.time() - outcome.struck
        wanted, status = strike.end
        known = {status, None}  # None: it had not come so far
        if strike.phase in strikes.EARLY:
            known.add(before)
        if outcome.status != wanted:
            outcome.wrong.append(f"exit status {outcome.status} in place of {wanted}")
        if self._status() not in known:
            outcome.wrong.append(f"run.json says {self._status()} in place of {status}")
        (self._runs / FILLER).unlink(missing_ok=True)
        self._command.poison.unlink(missing_ok=True)
        if strike.part == strikes.ROWS:
            cut_last_line(self._folder / "metrics.jsonl")
        if strike.part == strikes.CHECKPOINT:
            damage(max(self._checkpoints()), strike.how, self._chance)

    def _finish(self) -> None:
        """Let the run come to its end.  Raises RuntimeError where it does not."""
        for _ in range(3):
            self._command.start()
            self._command.next(lambda line: False)
            if self._command.wait() == 0:
                return
            self._tell(f"the command ended with status {self._command.wait()}: {self._command.last_words}")
        raise RuntimeError(f"The run does not come to its end; its output: {self._command.log}")

    def _look_back(self, outcome: Outcome) -> None:
        """How long the strike held the run up, and how many steps it cost."""
        lines, struck = self._command.lines, outcome.struck
        noticed = struck + (outcome.noticed_s or 0.0)
        before = [line["complete"] for line in lines if line["time"] <= struck and "complete" in line]
        later = [line for line in lines if line["time"] > noticed]
        again = [line["complete"] for line in later if (line["kind"], line["name"]) == ("begin", strikes.GENERATE)]
        rows = [line["time"] for line in later if line["kind"] == "row"]
        if before and again:
            outcome.lost = max(0, before[-1] - again[0])
        if rows:
            outcome.again_s = rows[0] - struck
        if outcome.strike.is_noticed and (outcome.noticed_s or 0.0) > NOTICED_S:
            outcome.wrong.append(f"noticed after {outcome.noticed_s:.0f} s")

    def _checkpoints(self) -> list[Path]:
        return list((self._folder / "checkpoints").glob("step-" + 6 * "[0-9]"))

    def _status(self) -> str | None:
        path = self._folder / "run.json"
        return json.loads(path.read_text())["status"] if path.is_file() else None


def _is_due(strike: Strike, line: Line) -> bool:
    return line.get("complete", 0) + 1 >= strike.step
