"""What it costs to look after a run: heartbeats, checks that numbers are finite, checksums of checkpoints.

    python -m benchmarks.safeguards [--small]

One run of `sdpo train livecodebench --profile cpu` per repeat, in a process of its own, in which every call of a
safeguard is measured where it is made: looks at processes in the driver, the other two in the learner rank.  What
counts is the processor time of the thread that makes it: engine, learner and driver share two cores, and while a
check waits for one, another does the step's own work.  Beside it stands the time of the same run's steps, checkpoints
included.
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

from benchmarks.common import Record, in_fresh_process, parser, progress

SETTINGS = (
    "learner.ranks=1", "run.checkpoint_every=5", "evaluation.every=0", "evaluation.at_start=false", "name=run",
    "evaluation.samples=1", "evaluation.ks=[1]", "tracking.wandb=disabled",
)  # fmt: skip
KINDS = {"looks": "heartbeats and time limits", "finite": "checks for numbers that are not finite",
         "checksums": "checksums of checkpoints"}  # fmt: skip


def main() -> int:
    if "--run" in sys.argv:
        return run(sys.argv[sys.argv.index("--run") + 1 :])
    args = parser(__doc__, repeats=3).parse_args()
    record, steps = Record("safeguards", args), 3 if args.small else 40
    more = ["run.questions=2"] if args.small else []
    found = []
    for number in range(args.repeats):
        progress(f"repeat {number + 1} of {args.repeats}")
        with tempfile.TemporaryDirectory() as folder:
            words = (*SETTINGS, f"run.steps={steps}", f"run.directory={folder}", *more)
            found.append(in_fresh_process("safeguards", "--run", folder, *words))
    progress("")
    rows = []
    for kind, title in [*KINDS.items(), ("all", "together")]:
        seconds = statistics.median(one[kind] / one["steps"] for one in found)
        share = statistics.median(one[kind] / one["seconds"] for one in found)
        rows.append([title, f"{1e3 * seconds:.2f}", f"{share:.2%}"])
    each = statistics.median(one["seconds"] / one["steps"] for one in found)
    record.finish(
        ["", "ms per step", "share of the time of all steps"],
        rows,
        [f"A step with its share of checkpoints (one in five steps): {each:.2f} s, {steps} steps."],
        samples=found,
    )
    return 0


def timed(of: Any, name: str, kind: str, seconds: dict[str, float]) -> None:
    """Add up in `seconds[kind]` the processor time that calls of `of.name` take."""
    whole: Callable[..., Any] = getattr(of, name)

    @wraps(whole)
    def measured(*given: Any, **named: Any) -> Any:
        began = time.thread_time()
        try:
            return whole(*given, **named)
        finally:
            seconds[kind] += time.thread_time() - began

    setattr(of, name, staticmethod(measured) if name == "of" else measured)  # a class method, bound by now


def in_the_rank(rank: Any) -> None:
    """Time what a learner rank does."""
    import sdpo.learner.worker as worker
    from sdpo.checkpoints import manifest
    from sdpo.learner.finite import HeldState

    rank.safeguards = defaultdict(float)
    timed(HeldState, "weights_are_finite", "finite", rank.safeguards)
    timed(HeldState, "first_not_finite", "finite", rank.safeguards)
    timed(worker, "one_or_nan", "finite", rank.safeguards)
    timed(manifest.FileRecord, "of", "checksums", rank.safeguards)
    timed(manifest, "measure", "checksums", rank.safeguards)


def run(words: list[str]) -> int:
    """One run; its last line is what was measured."""
    folder, *settings = words
    from sdpo.checkpoints import manifest
    from sdpo.cli import main as sdpo
    from sdpo.tracking.metrics_file import read_metrics
    from sdpo.training.supervision import Supervision
    from sdpo.training.trainer import Trainer

    found: dict[str, float] = defaultdict(float)
    supervisions: list[Supervision] = []
    begin, steps = Supervision.__init__, Trainer._steps

    def watched(supervision: Supervision, *given: Any) -> None:
        begin(supervision, *given)
        supervisions.append(supervision)

    async def measured(trainer: Trainer) -> None:
        [rank] = trainer.learner.ranks
        await rank.__ray_call__.remote(in_the_rank)
        timed(manifest, "measure", "checksums", found)
        before = supervisions[0].processor_s
        await steps(trainer)
        found["looks"] = supervisions[0].processor_s - before
        for kind, seconds in (await rank.__ray_call__.remote(lambda rank: dict(rank.safeguards))).items():
            found[kind] += seconds

    Supervision.__init__, Trainer._steps = watched, measured
    status = sdpo(["train", "livecodebench", "--profile", "cpu", *settings])
    rows = [row for row in read_metrics(Path(folder) / "run" / "metrics.jsonl") if "learner/loss" in row]
    found["all"] = sum(found[kind] for kind in KINDS)
    found["seconds"] = sum(value for row in rows for name, value in row.items() if name.startswith("time/"))
    found["steps"] = len(rows)
    print(json.dumps(found))
    return status


if __name__ == "__main__":
    sys.exit(main())
