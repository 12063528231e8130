"""`sdpo inspect`: what the teacher thinks of every token, as a page or in the terminal."""

from __future__ import annotations

from pathlib import Path

from sdpo.config.safe_console import SafeConsole
from sdpo.config.terminal import say
from sdpo.errors import UserError
from sdpo.report.inspect_page import inspect_page
from sdpo.report.inspect_text import print_response
from sdpo.report.picks import picked
from sdpo.report.responses import Response, normalizes_by_std, recorded_steps, step_responses
from sdpo.report.runs import Run, load_run
from sdpo.tracking import Console


def run(options) -> int:
    found = load_run(Path(options.run))
    steps = recorded_steps(found.path)
    if options.text:
        print_response(_one(found, steps, options), SafeConsole())
        return 0
    if given := [f"--{name}" for name in ("step", "task", "sample") if getattr(options, name) is not None]:
        raise UserError(
            f"The page shows all responses; {' and '.join(given)} would have no effect. Add --text, which prints one."
        )
    with Console("inspect", 0) as console, console.phase("reading rollouts", total=len(steps)) as phase:
        page = inspect_page(found.path, phase.advance)
    say(f"Wrote {page}")
    return 0


def _one(run: Run, steps: list[int], options) -> Response:
    """The response that the options name; of several the first that `picked` would show."""
    step = steps[-1] if options.step is None else options.step
    if step not in steps:
        raise UserError(f"{run.name} has no table of step {step}. It has: {_listed(steps)}.")
    responses = step_responses(run.path, step, normalizes_by_std(run.recipe))
    tasks = list(dict.fromkeys(r.task for r in responses))
    if options.task is not None:
        if options.task not in tasks:
            raise UserError(f"Step {step} has no task {options.task!r}. It has: {_listed(tasks)}.")
        responses = [r for r in responses if r.task == options.task]
    if options.sample is not None:
        samples = sorted({r.row["sample"] for r in responses})
        responses = [r for r in responses if r.row["sample"] == options.sample]
        if not responses:
            raise UserError(f"There is no sample {options.sample} there. There are: {_listed(samples)}.")
    if options.sample is None and all(r.tokens is None for r in responses):
        raise UserError(
            f"No response of step {step}{'' if options.task is None else f' to {options.task}'} has its tokens "
            "recorded. Another step or task may have them; a run records more with a larger tracking.tokens_mb (a run "
            "that goes on may change it), and none with 0."
        )
    return next(iter(picked(responses)), next((r for r in responses if r.tokens), responses[0]))


def _listed(values: list) -> str:
    shown = values if len(values) <= 12 else [*values[:6], "…", *values[-5:]]
    return ", ".join(map(str, shown))
