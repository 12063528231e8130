"""What is done when a run goes wrong (section `guard`): the alarm is told, and may end the run or take it back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sdpo.config.guards import GuardSettings
from sdpo.tracking import Tracker
from sdpo.training.alarms import DRIFT, PASS_RATE, SAMPLER, Alarm, Row, alarms, drift
from sdpo.training.interrupt import Stopped

GUARDED = 3  # exit status of a run that its guard has stopped

_READ = {"step", PASS_RATE, SAMPLER, "response/truncated_fraction", "response/repetition", *DRIFT.values()}
_READ |= {"response/length_max", "probe/gap", "probe/student/pass@1"}


class StoppedByGuard(Stopped):
    """The policy has become worse, and the run is to end with its state saved."""


class RollBack(Exception):
    """The policy has become worse, and the run is to go back; `alarm` says until when all was well."""

    def __init__(self, alarm: Alarm) -> None:
        super().__init__(str(alarm))
        self.alarm = alarm


class Guard:
    """Sees every step of a run once (`look`), and acts on what it saw (`act`)."""

    def __init__(self, settings: GuardSettings, tracker: Tracker) -> None:
        self.settings, self.tracker = settings, tracker
        self.stopped = ""  # why, once it has stopped the run
        self.begin([])

    def begin(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """The steps that a run goes on from, as metrics.jsonl has them.  What was wrong then has been told."""
        self.rows: list[Row] = [_read(row) for row in rows]
        self._told = {alarm.rule for alarm in self._found()}
        self._harm: Alarm | None = None

    def _found(self) -> list[Alarm]:
        return alarms(self.rows) if self.settings.action != "off" else []

    def look(self, step: int, metrics: Mapping[str, Any], rollbacks: int) -> dict[str, float]:
        """The numbers of its own for the row of a step; a new alarm is told and noted in run.json.

        rollbacks: how often the run has gone back so far.
        """
        self.rows.append(_read({"step": step, **metrics}))
        found = self._found()
        for alarm in found:
            if alarm.rule not in self._told:
                self.tracker.event(step, "guard", str(alarm), alarm.remedy)
                self._harm = alarm if alarm.harmful and self._harm is None else self._harm
        self._told = {alarm.rule for alarm in found}
        watched = {} if self.settings.action == "off" else {"guard/alarms": float(len(found))}
        if self.settings.action == "rollback":
            watched["guard/rollbacks"] = float(rollbacks)
        return drift(self.rows) | watched

    def rolled_back(self, alarm: Alarm, done: int, step: int, how: str, number: int) -> None:
        """The run goes on from `step`, after `done` steps, for the `number`th time."""
        teacher = "the teacher is the policy of that step" if how == "refresh" else "the teacher moves no more"
        action = f"rollback {number} of {self.settings.rollbacks}: back to step {step}, {teacher}"
        self.tracker.event(done, "guard", str(alarm), action)

    def act(self, rollbacks: int) -> None:
        """After a step that is complete.  rollbacks: how often the run has gone back.  Raises what is to be done."""
        alarm, self._harm = self._harm, None
        if alarm is None or self.settings.action not in ("stop", "rollback"):
            return
        if self.settings.action == "rollback" and rollbacks < self.settings.rollbacks:
            raise RollBack(alarm)
        self.stopped = str(alarm)
        raise StoppedByGuard


def _read(row: Mapping[str, Any]) -> Row:
    return {key: row[key] for key in _READ if key in row}
