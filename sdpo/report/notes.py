"""What a reader has to know before comparing."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from sdpo.config.files import recipe_names
from sdpo.config.registry import BASELINE, DEFAULT_ALGORITHM
from sdpo.report.curves import by_label
from sdpo.report.figures import display
from sdpo.report.runs import Run, measured_pass_at_k

EXPECTED = (DEFAULT_ALGORITHM, BASELINE)  # in every comparison


def listed(values: Iterable[str]) -> str:
    """Each value once, or that it was not recorded."""
    return " | ".join(dict.fromkeys(value or "not recorded" for value in values))


def unfinished(runs: Sequence[Run]) -> list[str]:
    """A note for each run that did not reach its end."""
    notes = []
    for run in runs:
        if not run.finished:
            reason = f" ({run.info.reason})" if run.info.reason else ""
            notes.append(f"{run.name} is {run.info.status}{reason}: it is shown up to step {run.steps}.")
    return notes


def warnings(loaded: Sequence[Run]) -> list[str]:
    """Notes on all that makes `loaded`, runs of one setup, less than comparable."""
    runs = [run for run in loaded if run.rows]
    notes = [f"{run.name} has recorded nothing yet and is left out." for run in loaded if not run.rows]
    algorithms = {run.info.algorithm for run in runs}
    for missing in (name for name in EXPECTED if name not in algorithms and len({run.label for run in runs}) == 1):
        recipe = runs[0].info.recipe
        command = f" Make its run with: make train RECIPE={recipe} ALGORITHM={missing}"
        known = recipe in recipe_names()  # a recipe file of the user's names its algorithm itself
        notes.append(f"{display(missing)} is missing: there is nothing to compare with.{command if known else ''}")
    notes += unfinished(runs)
    if not measured_pass_at_k(runs):
        notes.append("None of the runs has evaluated yet: there is no pass@k.")
    for what, consequence, values in (
        ("hardware", "their wall clock is not comparable", [run.info.hardware for run in runs]),
        ("commits", "a difference may come from the code", [run.info.commit for run in runs]),
    ):
        if len(set(values)) > 1:
            notes.append(f"The runs differ in {what} ({listed(values)}): {consequence}.")
    budgets = {label: max(run.generations for run in members) for label, members in by_label(runs).items()}
    if len(set(budgets.values())) > 1:
        text = ", ".join(f"{display(label)} {count:,}" for label, count in budgets.items())
        notes.append(
            f"The budgets differ (generations: {text}): compare generations to a pass rate, not the last values."
        )
    seeds = {display(label): {run.info.seed for run in members} for label, members in by_label(runs).items()}
    if len({frozenset(s) for s in seeds.values()}) > 1:
        text = ", ".join(f"{label} {sorted(s)}" for label, s in seeds.items())
        notes.append(f"The seeds differ ({text}): ratios are over the common ones.")
    return notes
