"""`run.json`: what a run is, where it came from, and how it stands."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sdpo.errors import UserError
from sdpo.tracking import provenance
from sdpo.tracking.disk import atomic_write, overwrite

RUNNING, FINISHED = "running", "finished"
INTERRUPTED = "interrupted"  # by the user; all but the step under way is saved
FAILED = "failed"  # by an error, whose first line is the reason
DIED = "died"  # without a word
DIED_REASON = "its process was killed, or the machine went down"
STATUSES = (RUNNING, FINISHED, INTERRUPTED, FAILED, DIED)


def now() -> str:
    """The time in UTC, ISO 8601, to the millisecond."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


@dataclass
class RunInfo:
    """What a run is.  `algorithm` is its name (sdpo, grpo, …), `recipe` the recipe's; times are ISO 8601 in UTC."""

    recipe: str
    algorithm: str
    seed: int
    profile: str
    created: str = ""
    commit: str = ""
    hardware: str = ""
    command: str = ""
    status: str = RUNNING  # one of STATUSES
    reason: str = ""  # why it was interrupted, failed or died
    updated: str = ""
    wandb_id: str = ""
    rollouts_unfinished: int = 0  # under way when it ended, so that nothing was learned from them
    rollouts_dropped: int = 0  # tables of rollouts that made room for newer ones (tracking.rollouts_mb)
    forked_from: str = ""  # the run and step whose checkpoint it began with
    changes: list[dict[str, Any]] = field(default_factory=list)  # {step, option, old, new}: what went on otherwise
    events: list[dict[str, Any]] = field(default_factory=list)  # parts that failed, and what was done (`Tracker.event`)

    @classmethod
    def collect(cls, *, recipe: str, algorithm: str, seed: int, profile: str, command: str | None = None) -> RunInfo:
        """A new run's information, with time, commit, hardware and command filled in."""
        return cls(
            recipe=recipe,
            algorithm=algorithm,
            seed=seed,
            profile=profile,
            created=now(),
            commit=provenance.commit(),
            hardware=provenance.hardware(),
            command=command or provenance.command(),
        )

    @classmethod
    def read(cls, path: Path) -> RunInfo:
        """Raises `UserError` if the file is there but cannot be understood."""
        try:
            content = json.loads(path.read_bytes())
            known = {each.name for each in fields(cls)}
            return cls(**{key: value for key, value in content.items() if key in known})
        except (ValueError, TypeError, AttributeError) as error:
            raise UserError(
                f"{path} is damaged: it is not the description of a run ({error}). Move {path.parent} away, or start "
                "under another name (name=…)."
            ) from error

    def write(self, path: Path) -> None:
        """Where the disk is full, over the old file: its block is there already, and the truth matters most then."""
        self.updated = now()
        data = json.dumps(asdict(self), indent=2, ensure_ascii=False).encode(errors="backslashreplace") + b"\n"
        try:
            atomic_write(path, data)
        except UserError:
            if not path.exists():
                raise
            overwrite(path, data)
