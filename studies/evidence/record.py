"""A record: what is kept of one run, enough to recompute every number of the page.

command, commit, changes   what was run, at which commit it began, and which tracked files differed from it
hardware, elapsed_s        where, and how long with start-up, over all attempts
status, reason, attempts   finished or failed; when it was started, and how each attempt ended
earlier_failures           why it failed before it was tried again
settings                   the resolved recipe
train                      one column per metric of the training steps (`sdpo.tracking.metric_names`)
eval                       one column per metric of the evaluations, and the passes of every problem in `problems`
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from sdpo.errors import UserError
from sdpo.tracking.disk import atomic_write
from sdpo.tracking.known import is_known

FORMAT = 1
FINISHED, FAILED = "finished", "failed"
Columns = dict[
    str, list[Any]
]  # "step", "generations", "wall_clock_s" and metrics, all of one length; null: not measured


@dataclass
class PassCounts:
    """Passes per problem: `passed[e][p]` of `n` samples of problem `p` at the evaluation of `steps[e]`."""

    ids: list[str]
    difficulty: list[str]
    n: int
    steps: list[int]
    passed: list[list[int]]


@dataclass
class Record:
    run: str  # <part>/<name>
    algorithm: str
    world: int
    seed: int
    command: str
    commit: str
    changes: list[str]
    hardware: str
    started: str
    ended: str
    elapsed_s: float
    status: str
    reason: str
    settings: dict[str, Any]
    attempts: list[dict[str, Any]]
    train: Columns
    eval: Columns
    problems: dict[str, PassCounts]  # data set → counts
    used_by: list[str] = field(default_factory=list)  # every declared run that this one is the answer to
    earlier_failures: list[str] = field(default_factory=list)

    @property
    def finished(self) -> bool:
        return self.status == FINISHED

    @property
    def commits(self) -> list[str]:
        """Those of all its attempts: a run that was stopped may have gone on at another one."""
        return list(dict.fromkeys([self.commit, *(attempt["commit"] for attempt in self.attempts)]))

    @property
    def failures(self) -> list[str]:
        """The reason of every failure, earlier ones included."""
        return self.earlier_failures + ([] if self.finished else [self.reason])

    def curve(self, metric: str, axis: str = "generations") -> list[tuple[float, float]]:
        """(generations, value) wherever the metric was measured and could be computed; axis: "generated_tokens",
        "wall_clock_s" as well."""
        columns = self.eval if metric.startswith("eval/") else self.train
        pairs = zip(columns.get(axis, []), columns.get(metric, []), strict=False)
        return [(float(x), float(y)) for x, y in pairs if is_known(x) and is_known(y)]

    def save(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        atomic_write(path, (dump({"format": FORMAT, **asdict(self)}) + "\n").encode())

    @classmethod
    def load(cls, path: Path) -> Record:
        """Raises UserError for a file that is no record."""
        try:
            content = json.loads(path.read_text())
            if content.pop("format") != FORMAT:
                raise ValueError(f"not of format {FORMAT}")
            known = {f.name for f in fields(cls)}
            content = {key: value for key, value in content.items() if key in known}
            content["problems"] = {name: PassCounts(**counts) for name, counts in content["problems"].items()}
            return cls(**content)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(f"{path} is not the record of a run ({error!r}); take it from git again.") from error


def load_records(folder: Path) -> list[Record]:
    """All records below `folder`, in the order of their paths."""
    return [Record.load(path) for path in sorted(folder.glob("*/*.json"))]


def dump(value: Any, indent: str = "") -> str:
    """JSON with one line for each list of scalars: short files, and differences that can be read."""
    inner = indent + " "
    if isinstance(value, dict) and value:
        rows = [f"{inner}{json.dumps(key, ensure_ascii=False)}: {dump(item, inner)}" for key, item in value.items()]
        return "{\n" + ",\n".join(rows) + f"\n{indent}}}"
    if isinstance(value, list) and any(isinstance(item, (dict, list)) for item in value):
        return "[\n" + ",\n".join(inner + dump(item, inner) for item in value) + f"\n{indent}]"
    separators = (",", ":") if isinstance(value, list) and len(value) > 8 else None
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=separators)
