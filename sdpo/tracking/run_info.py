"""`run.json`: what a run is, where it came from, and how it stands."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sdpo.errors import UserError
from sdpo.tracking import provenance
from sdpo.tracking.disk import atomic_write

RUNNING, FINISHED, INTERRUPTED = "running", "finished", "interrupted"


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
    status: str = RUNNING  # running | finished | interrupted
    reason: str = ""  # why it was interrupted
    updated: str = ""
    wandb_id: str = ""
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
            content = json.loads(path.read_text())
            known = {each.name for each in fields(cls)}
            return cls(**{key: value for key, value in content.items() if key in known})
        except (ValueError, TypeError, AttributeError) as error:
            raise UserError(
                f"{path} is not the description of a run ({error}). Start under another name (name=…)."
            ) from error

    def write(self, path: Path) -> None:
        self.updated = now()
        atomic_write(path, json.dumps(asdict(self), indent=2, ensure_ascii=False).encode() + b"\n")
