"""The sections of a recipe that watch over training: probes of student and teacher, and what an alarm leads to."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from sdpo.config.sections import Settings


class ProbeSettings(Settings):
    """On a fixed sample of training tasks: the policy's pass rate, and the teacher's with its hints."""

    every: int = Field(10, ge=0, description="steps between probes, the first one before step 1; 0: none")
    tasks: int | None = Field(
        None,
        ge=1,
        description="training tasks that are probed, always the same; null: so many that a probe samples 2.5 % of what "
        "training does",
    )
    samples: int = Field(
        2, ge=1, description="the policy's responses per task; each has one of the teacher's beside it"
    )


class GuardSettings(Settings):
    """What is done when a run goes wrong; docs/guards.md has the rules."""

    action: Literal["off", "warn", "stop", "rollback"] = Field(
        "warn",
        description="off: no alarms; warn: they are told; stop: one that says that the policy has become worse also "
        "ends the run, saved; rollback: it goes back to the last good checkpoint, with another teacher",
    )
    rollbacks: int = Field(2, ge=1, description="most of a run; the alarm after the last one stops it")
    teacher: Literal["refresh", "freeze"] | None = Field(
        None,
        description="the teacher after a rollback: refresh: the policy that was gone back to; freeze: the teacher of "
        "then, which moves no more; null: refresh for teacher.kind=frozen, else freeze",
    )
