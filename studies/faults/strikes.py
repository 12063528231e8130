"""What a run is struck with: a part of it or a file, in a phase, in one of several ways."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

CORE, ACTOR = "vLLM's core", "engine actor"
RANK_0, RANK_1 = "learner rank 0", "learner rank 1"
SERVER, GCS, RAYLET, DRIVER, GUARDIAN = "sandbox server", "gcs_server", "raylet", "driver", "guardian"
CHECKPOINT, DISK, WEIGHTS, ROWS = "newest checkpoint", "disk", "learner's weights", "metrics.jsonl"
REPLACED = {CORE: "its vLLM core", ACTOR: "its actor", RANK_0: RANK_0, RANK_1: RANK_1}  # → as the run calls it
FILES = {
    SERVER: "bootstrap.py",
    GCS: "gcs_server",
    RAYLET: "raylet",
    GUARDIAN: "guardian.py",
}  # → of which they are known
_ENDING = (DRIVER, GCS, RAYLET, CHECKPOINT, DISK, WEIGHTS, ROWS)

STARTS = ("reading the tasks", "starting Ray", "starting vLLM engines", "loading checkpoint")
EARLY = STARTS[:2]  # beside which a run is begun, or taken over: run.json says what it said before, or the end
GENERATE, JUDGE, UPDATE, PUBLISH, SAVE, EVALUATE = "generate", "judge", "update", "publish", "checkpoint", "evaluate"
STEPS = (GENERATE, JUDGE, UPDATE, PUBLISH, SAVE, EVALUATE)
# Seconds after a phase began: in the middle of what takes long, at once in what is short.
_DELAY = {GENERATE: 0.15, UPDATE: 0.1, SAVE: 0.05, **dict.fromkeys(STARTS, 0.5)}


@dataclass(frozen=True)
class Strike:
    """how: SIGKILL, SIGSTOP, …; "paused": stopped for a while; or what is done to files."""

    part: str
    how: str
    phase: str
    step: int = 0  # not before this one

    @property
    def delay(self) -> float:
        return _DELAY.get(self.phase, 0.0)

    @property
    def ends_the_command(self) -> bool:
        return self.part in _ENDING and self.how != "paused"

    @property
    def is_noticed(self) -> bool:
        """By supervision, for which a time is promised."""
        return self.part in (*REPLACED, GCS, RAYLET)

    @property
    def end(self) -> tuple[int, str]:
        """The exit status of a command that it ends, and the status in run.json."""
        if self.part in (CHECKPOINT, ROWS) or (self.part, self.how) == (DRIVER, "SIGKILL"):
            return -9, "died"
        return (130, "interrupted") if self.part == DRIVER else (2, "failed")

    def of(self, parts: Mapping[str, int]) -> str | None:
        """The name of the part among those that a run announces."""
        return next((name for name in parts if REPLACED[self.part] in name), None)


def grid() -> list[Strike]:
    """Every part in every phase, shuffled, so that the first of them say something about all."""
    found = [Strike(part, how, phase) for part in REPLACED for how in ("SIGKILL", "SIGSTOP") for phase in STEPS]
    found += [Strike(DRIVER, how, phase) for how in ("SIGKILL", "SIGTERM") for phase in (*STARTS, *STEPS)]
    found += [Strike(GCS, "SIGKILL", phase) for phase in STEPS]
    found += [Strike(SERVER, how, phase) for how in ("SIGKILL", "SIGSTOP") for phase in (GENERATE, JUDGE)]
    found += [Strike(DISK, "full", phase) for phase in (GENERATE, UPDATE, SAVE)]
    found += [Strike(CHECKPOINT, how, UPDATE) for how in ("a bit flipped", "a file cut off", "a file missing")]
    found += [
        Strike(DRIVER, "SIGHUP", UPDATE),
        Strike(DRIVER, "SIGINT", GENERATE),
        Strike(DRIVER, "paused", GENERATE),
        Strike(GCS, "SIGSTOP", UPDATE),
        Strike(RAYLET, "SIGKILL", GENERATE),
        Strike(RAYLET, "SIGKILL", SAVE),
        Strike(RAYLET, "SIGSTOP", PUBLISH),
        Strike(ROWS, "last line cut off", UPDATE),
        Strike(WEIGHTS, "NaN", GENERATE),
        Strike(GUARDIAN, "SIGKILL", UPDATE),
    ]
    random.Random(0).shuffle(found)
    return found


def short() -> list[Strike]:
    """A part that is replaced, and a run that is killed and whose newest checkpoint is damaged."""
    return [Strike(CORE, "SIGKILL", GENERATE), Strike(CHECKPOINT, "a bit flipped", UPDATE)]


def at_random(number: int, steps: int, seed: int) -> list[Strike]:
    """At steps drawn without replacement, each a part, a way and a phase of the grid."""
    chance = random.Random(seed)
    kinds = [strike for strike in grid() if strike.phase != EVALUATE and strike.part != DISK]
    drawn = sorted(chance.sample(range(1, steps), number))
    return [replace(strike, step=step) for step, strike in zip(drawn, _draws(chance, kinds), strict=False)]


def _draws(chance: random.Random, kinds: list[Strike]) -> Iterator[Strike]:
    while True:
        yield chance.choice(kinds)
