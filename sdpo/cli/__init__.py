"""The `sdpo` command: argument parsing only.  Each command is a module of `sdpo.cli`, imported when it runs."""

from __future__ import annotations

import argparse
import errno
import importlib
import sys
from collections.abc import Sequence
from contextlib import nullcontext

from sdpo import __version__
from sdpo.config.discovery import refuse_overrides
from sdpo.config.registry import DEFAULT_ALGORITHM
from sdpo.config.terminal import say, say_exception
from sdpo.errors import UserError
from sdpo.training.interrupt import STOPPED, Signals

# The commands that start processes, which a signal must not orphan.
STARTERS = ("train", "evaluate", "discover", "profile")
EXIT_STATUS = """exit status:
  0    done; a run: finished
  1    an unexpected error, with a traceback (please report it); `tasks check` and `doctor`: they found a problem;
       `plan`: the run does not fit
  2    an error that you can correct, explained in one message; or unknown arguments
  3    stopped by its guard (guard.action): the run is saved
  130  stopped by Ctrl-C, SIGTERM or SIGHUP; a run is saved, and the same command resumes it"""


def main(arguments: Sequence[str] | None = None) -> int:
    parser = _parser()
    options, rest = parser.parse_known_args(arguments)
    # argparse gives up on positional arguments that follow an option; key=value may stand anywhere.
    overrides = [word for word in rest if "=" in word and not word.startswith("-") and hasattr(options, "overrides")]
    if unknown := [word for word in rest if word not in overrides]:
        parser.error(f"unrecognized arguments: {' '.join(unknown)}")
    if overrides:
        options.overrides = [*options.overrides, *overrides]
    if options.command is None:
        parser.print_help()
        return 0
    sys.excepthook = say_exception
    starts_processes = options.module in STARTERS and not getattr(options, "dry_run", False)
    try:
        if options.command != "discover":
            refuse_overrides(getattr(options, "overrides", ()), options.command)
        with Signals() if starts_processes else nullcontext():
            return importlib.import_module(f"sdpo.cli.{options.module}").run(options) or 0
    except UserError as error:
        say(f"error: {error}", sys.stderr)
        return 2
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        say(f"error: the disk is full ({error.filename or error}). Free some space and run the same command: a run "
            "goes on from its last complete checkpoint.", sys.stderr)  # fmt: skip
        return 2
    except KeyboardInterrupt:
        say("stopped", sys.stderr)
        return STOPPED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="sdpo", description="Post-training of language models by self-distillation.")
    parser.add_argument("--version", action="version", version=f"sdpo {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")

    init = _command(commands, "init", "write a recipe for a model and tasks of your own")
    init.add_argument("file", help="the recipe to write, e.g. my.yaml")
    init.add_argument("--model", required=True, help="a Hugging Face model folder, or a hub name")
    init.add_argument(
        "--data", required=True, help="rows: a file, a folder, a hub name, or module:function that yields them"
    )
    init.add_argument("--reward", metavar="MODULE:FUNCTION", help="reward(task, response), also as path.py:function")
    init.add_argument("--algorithm", default=DEFAULT_ALGORITHM, help="grpo, srpo, …; default: %(default)s")
    init.add_argument("--force", action="store_true", help="write over an existing file")

    train = _command(commands, "train", "train a policy with a recipe; a second call resumes the run")
    _recipe(train)
    train.add_argument(
        "--seeds",
        metavar="0,1,2",
        help="one run per seed, one after the other, until one fails; a second call continues there",
    )
    train.add_argument("--dry-run", action="store_true", help="check everything, print the plan, start nothing")
    train.add_argument("--fresh", action="store_true", help="move an existing run of this name aside and start afresh")
    train.add_argument(
        "--fork", metavar="NAME", help="start a new run NAME from the last checkpoint of the run that would be resumed"
    )

    plan = _command(
        commands, "plan", "print what a recipe's run takes of every GPU, of time and of money, and whether it fits"
    )
    _recipe(plan)
    plan.add_argument("--gpus", type=int, help="GPUs there are; default: as many as the recipe asks for")
    plan.add_argument("--gpu-memory", type=float, metavar="GIB", help="of each GPU; default: 80")
    plan.add_argument("--tflops", type=float, help="what a GPU of the learner computes, TFLOP/s; default: 300")
    plan.add_argument("--bandwidth", type=float, help="what a GPU of an engine reads, TB/s; default: 1.5")
    plan.add_argument(
        "--response-tokens", type=int, metavar="N", help="mean length of a response; default: the longest"
    )
    plan.add_argument("--price", type=float, help="of a GPU hour, in any currency")

    submit = _command(commands, "submit", "train as a job of a Ray cluster, and follow it")
    submit.add_argument("recipe", nargs="?", help="a recipe's name, or a YAML file in the current folder")
    submit.add_argument("--address", metavar="URL", help="the cluster's dashboard, e.g. http://head:8265")
    submit.add_argument("--algorithm", help="as of train")
    submit.add_argument("--profile", help="as of train; default: gpu")
    submit.add_argument("--seeds", metavar="0,1,2", help="as of train")
    submit.add_argument(
        "--env", metavar="NAME", action="append", default=[], help="hand on this variable of yours, too"
    )
    submit.add_argument(
        "--pip", metavar="FILE", help="packages that the machines install first, e.g. requirements/gpu.lock"
    )
    submit.add_argument("--python", default="python", help="the machines' interpreter (default: %(default)s)")
    submit.add_argument("--status", metavar="JOB", help="print how a job stands")
    submit.add_argument("--logs", metavar="JOB", help="follow a job again")
    submit.add_argument("--stop", metavar="JOB", help="stop a job; its run saves the last complete step")
    _overrides(submit)

    evaluate = _command(commands, "eval", "measure pass@k of a run, a checkpoint or a Hugging Face folder", "evaluate")
    evaluate.add_argument("policy", help="runs/<name>, a checkpoint in it, or a model folder")
    evaluate.add_argument(
        "--recipe", help="recipe whose data and settings are used (default: the run's own, else livecodebench)"
    )
    evaluate.add_argument("--profile", help="cpu or gpu; default: gpu where there is one")
    evaluate.add_argument(
        "--out", help="folder for results.json and the LiveCodeBench export (default: runs/eval/<policy>)"
    )
    _overrides(evaluate, "options of the recipe, e.g. evaluation.temperature=0.8")

    discover = _command(
        commands,
        "discover",
        "search hard questions one by one: by training on each, by sampling, by telling what failed",
    )
    _recipe(discover)

    profile = _command(commands, "profile", "run a few steps and print where time and memory go")
    _recipe(profile)
    profile.add_argument(
        "--steps", type=int, default=3, help="steps to measure (default: %(default)s), after one to warm up"
    )

    compare = _command(commands, "compare", "draw pass@k against generations for comparable runs, side by side")
    compare.add_argument(
        "words",
        nargs="+",
        metavar="RUNS",
        help="a recipe's name (all its runs), a run's name, or a pattern of names (*-seed?); each may end in :LABEL",
    )
    compare.add_argument("--runs", default="runs", help="folder of run folders (default: %(default)s)")
    compare.add_argument("--wandb", action="store_true", help="also log curves, tables and the page to W&B")
    compare.add_argument("--wandb-report", action="store_true", help="as --wandb, and write a report on its server")
    compare.add_argument("--out", help="folder of the page (default: <runs>/compare/<recipe or runs>)")

    inspect = _command(
        commands,
        "inspect",
        "write a page that shows a run's responses, every token coloured by what the teacher thinks of it",
    )
    inspect.add_argument("run", help="runs/<name>; the page is <run>/inspect.html")
    inspect.add_argument("--text", action="store_true", help="print one response in the terminal instead")
    inspect.add_argument("--step", type=int, help="with --text: the step (default: the last one recorded)")
    inspect.add_argument("--task", help="with --text: the task's id")
    inspect.add_argument("--sample", type=int, help="with --text: the response's number in its group, from 0")

    export = _command(commands, "export", "write a run's policy as a Hugging Face folder with a model card")
    export.add_argument("run", help="runs/<name> (its best checkpoint), or a checkpoint in it")
    export.add_argument("out", help="folder to write")
    export.add_argument("--adapter", action="store_true", help="the adapter alone, as PEFT reads it; else merged")
    export.add_argument("--push-to-hub", metavar="OWNER/NAME", help="upload the folder to this repository, too")
    export.add_argument("--private", action="store_true", help="with --push-to-hub: make the repository private")

    for name in ("results", "pretrain"):
        _command(commands, name, f"moved: python -m studies {name}", "moved")

    tasks = _command(commands, "tasks", "print bundled problems, or try a recipe's tasks and grading")
    actions = tasks.add_subparsers(dest="action", metavar="ACTION", required=True)
    show = actions.add_parser("show", help="print problems in readable form")
    show.add_argument("source", choices=["minicode"], help="which problems")
    show.add_argument("--n", type=int, default=5, help="how many (default: %(default)s)")
    show.add_argument("--seed", type=int, default=0, help="the world's seed (default: %(default)s)")
    show.add_argument("--out", metavar="FILE", help="write all of them to a file of rows (JSON Lines) instead")
    trial = actions.add_parser(
        "check", help="grade some answers to a recipe's tasks; starts neither engines nor training"
    )
    _recipe(trial)
    trial.add_argument(
        "--n", type=int, default=20, help="training tasks and evaluation tasks to try, of each (default: %(default)s)"
    )

    listing = _command(commands, "options", "print every option of a recipe, or some: type, default, meaning, source")
    listing.add_argument(
        "keys", nargs="*", metavar="KEY", help="an option or a section (learner.lr, teacher); default: all"
    )
    listing.add_argument("--markdown", action="store_true", help="as the page docs/options.md")

    _command(commands, "doctor", "what is installed, which devices there are, and how to fix what is missing")
    return parser


def _command(commands, name: str, text: str, module: str | None = None) -> argparse.ArgumentParser:
    parser = commands.add_parser(
        name,
        help=text,
        description=text[0].upper() + text[1:] + ".",
        epilog=EXIT_STATUS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(module=module or name)
    return parser


def _recipe(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("recipe", help="a recipe's name (a folder under recipes/) or a YAML file")
    parser.add_argument("--algorithm", help="sdpo (default), grpo, srpo, …: which file of the recipe's folder")
    parser.add_argument("--profile", help="cpu or gpu; default: gpu where there is one")
    _overrides(parser)


def _overrides(parser: argparse.ArgumentParser, text: str = "options of the recipe, e.g. learner.lr=1e-5") -> None:
    parser.add_argument("overrides", nargs="*", metavar="key=value", help=text)
