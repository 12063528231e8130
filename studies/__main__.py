"""`python -m studies results|pretrain|faults`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from sdpo.errors import UserError


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    try:
        return options.run(options)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m studies", description="The studies behind sdpo's claims.")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    results = commands.add_parser("results", help="make the studies, or parts of them, and their page")
    results.add_argument("parts", nargs="*", metavar="PART", help="e.g. comparison, ablations, worlds/sdpo-world10; "
                         "settings, list, page (default: every part, in order of importance)")  # fmt: skip
    results.add_argument("--dry-run", action="store_true", help="print the command of every run, start nothing")
    results.add_argument("--retry", action="store_true", help="try failed runs again")
    results.add_argument("--studies", help="a YAML file of studies (default: the bundled one)")
    results.add_argument("--data", default="docs/results/evidence", help="records and page (default: %(default)s)")
    results.add_argument("--runs", default="runs/evidence", help="run folders (default: %(default)s)")
    results.set_defaults(run=_results)

    pretrain = commands.add_parser("pretrain", help="pre-train the bundled policy from scratch")
    pretrain.add_argument(
        "overrides",
        nargs="*",
        metavar="key=value",
        help="options of pre-training, e.g. seed=1 steps=3000 out=policies/mine; an unknown one lists all",
    )
    pretrain.set_defaults(run=_pretrain)

    faults = commands.add_parser("faults", help="disturb a run on purpose and compare it with an undisturbed one")
    faults.add_argument("kind", choices=("short", "grid", "random"), nargs="?", default="grid", help="short: two "
                        "strikes; grid: every part in every phase; random: 30 in 60 steps (default: %(default)s)"
    )  # fmt: skip
    faults.add_argument(
        "--minutes", type=float, default=60, help="stop disturbing after this many minutes (default: %(default)s)"
    )
    faults.add_argument("--seed", type=int, default=0, help="seed of the random disturbances (default: %(default)s)")
    faults.add_argument("--runs", default="runs/faults", help="run folders (default: %(default)s)")
    faults.set_defaults(run=_faults)
    return parser


def _results(options: argparse.Namespace) -> int:
    from studies.evidence.layout import Layout
    from studies.evidence.session import Session
    from studies.evidence.studies import load_studies

    layout = Layout(Path(options.data), Path(options.runs))
    session = Session(load_studies(*([Path(options.studies)] if options.studies else [])), layout, options.retry)
    words = options.parts or session.words
    if unknown := [word for word in words if word.split("/")[0] not in session.words + session.actions]:
        raise UserError(
            f"There is no part {', '.join(unknown)}. Parts: {', '.join(session.words)}; also "
            f"{', '.join(session.actions)}, and single runs as <part>/<run>."
        )
    if options.dry_run:
        session.show_commands(words)
        return 0
    return session.make(words)


def _faults(options: argparse.Namespace) -> int:
    from studies.faults.command import run_faults

    return run_faults(options)


def _pretrain(options: argparse.Namespace) -> int:
    from studies.pretrain import pretrain_main

    return pretrain_main(options.overrides)


if __name__ == "__main__":
    sys.exit(main())
