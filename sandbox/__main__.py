"""`python -m sandbox judge …` and `python -m sandbox doctor`.

Exit status: 0 all accepted, 1 some not, 2 the question could not be answered (bad tests, no sandbox).
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from contextlib import nullcontext
from pathlib import Path

from .client import Sandbox
from .doctor import examine
from .errors import BadTests, SandboxError
from .report import printable, report
from .testfile import find_programs
from .types import Job, Judgement, Limits, Verdict, check_job


def main(arguments: list[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    try:
        return _doctor(options) if options.command == "doctor" else _judge(options)
    except (BadTests, SandboxError, ValueError) as error:
        print(f"sandbox: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m sandbox", description="Run and judge untrusted Python programs.")
    commands = parser.add_subparsers(dest="command", required=True)
    judge = commands.add_parser("judge", help="judge programs against tests")
    judge.add_argument("--program", type=Path, required=True, help="a .py or .md file, a directory of them, or a JSONL")
    judge.add_argument("--tests", type=Path, help="JSON: a list of {input, output, testtype, fn_name}")
    judge.add_argument("--all", action="store_true", help="run all tests instead of stopping at the first failure")
    judge.add_argument("--json", action="store_true", help="one JSON object per program on stdout")
    judge.add_argument("--workers", type=int, help="programs at the same time (default: the CPUs)")
    judge.add_argument("--isolation", default="auto", choices=("auto", "namespaces", "landlock", "seccomp", "none"))
    for field in dataclasses.fields(Limits):
        option = "--" + field.name.replace("_", "-")
        kind = float if field.name.endswith("_s") else int
        judge.add_argument(option, type=kind, default=field.default, help=f"(default: {field.default})")
    doctor = commands.add_parser("doctor", help="say which isolation this machine offers")
    doctor.add_argument("--json", action="store_true")
    return parser


def _judge(options: argparse.Namespace) -> int:
    limits = Limits(**{field.name: getattr(options, field.name) for field in dataclasses.fields(Limits)})
    programs = find_programs(options.program, options.tests)
    stop = "all" if options.all else "first_failure"
    jobs = [Job(code, tests, limits, stop=stop) for _, code, tests in programs]
    for (name, _, _), job in zip(programs, jobs, strict=True):
        try:
            check_job(job)
        except BadTests as error:
            raise BadTests(f"{name}: {error}") from None
    with Sandbox(workers=options.workers, isolation=options.isolation) as sandbox, _progress(len(jobs)) as progress:
        judgements = sandbox.judge_many(jobs, (lambda *_: progress.advance(0)) if progress is not None else None)
    names = [name for name, _, _ in programs]
    if options.json:
        for name, judgement in zip(names, judgements, strict=True):
            print(json.dumps(_as_dict(name, judgement)))
    else:
        _table(names, judgements)
    if any(judgement.verdict is Verdict.SANDBOX_ERROR for judgement in judgements):
        return 2
    return 0 if all(judgement.passed for judgement in judgements) else 1


def _progress(total: int):  # noqa: ANN202 — a rich Progress with one task, or nothing
    try:
        from rich.console import Console
        from rich.progress import MofNCompleteColumn, Progress, TimeElapsedColumn
    except ImportError:
        return nullcontext()
    progress = Progress(*Progress.get_default_columns(), MofNCompleteColumn(), TimeElapsedColumn(),
                        console=Console(stderr=True), transient=True)  # fmt: skip
    progress.add_task("judging", total=total)
    return progress


def _as_dict(name: str, judgement: Judgement) -> dict:
    return {
        "program": name,
        "passed": judgement.passed,
        "verdict": judgement.verdict.value,
        "message": judgement.message,
        "total_tests": judgement.total_tests,
        "tests": [dataclasses.asdict(test) for test in judgement.tests],
        "report": report(judgement),
    }


def _table(names: list[str], judgements: list[Judgement]) -> None:
    rows = []
    for name, judgement in zip(names, judgements, strict=True):
        passed = sum(test.passed for test in judgement.tests)
        cpu = sum(test.cpu_time_s for test in judgement.tests)
        last = judgement.first_failure
        remark = f"{last.exception_type}: {last.message}" if last is not None and last.exception_type else ""
        rows.append((name, judgement.verdict.value, f"{passed}/{judgement.total_tests}", f"{cpu:.2f}",
                     printable(remark.split("\n")[0])[:80]))  # fmt: skip
    heads = ("program", "verdict", "tests", "CPU s", "")
    try:
        from rich.console import Console
        from rich.table import Table
    except ImportError:
        for row in (heads, *rows):
            print("\t".join(row))
    else:
        table = Table(*heads)
        for row in rows:
            table.add_row(*(cell.replace("[", r"\[") for cell in row))
        Console().print(table)
    if len(judgements) == 1 and not judgements[0].passed:
        print(report(judgements[0]))


def _doctor(options: argparse.Namespace) -> int:
    report = examine()
    if options.json:
        print(json.dumps(report))
    else:
        print(f"isolation: {report['level'] or 'not available'} ({report['meaning']})")
        for name, reason in report["missing"].items():
            print(f"  without {name}: {reason}")
        if report["problem"]:
            print(f"  {report['problem']}")
        print("a program was judged: " + ("yes" if report["works"] else "no"))
    return 0 if report["works"] else 2


if __name__ == "__main__":
    sys.exit(main())
