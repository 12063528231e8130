"""`sdpo tasks`: look at bundled problems, or try a recipe's tasks and their grading before anything is started."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

import numpy as np
from rich.table import Table

from sdpo.config.files import find_recipe, load_recipe
from sdpo.config.hardware import choose_profile
from sdpo.config.safe_console import SafeConsole
from sdpo.config.schema import Recipe
from sdpo.config.terminal import say
from sdpo.envs import Dataset, Environment, Purpose, build_environment
from sdpo.errors import UserError
from sdpo.tracking import Console
from sdpo.training.fitting import fitted
from sdpo.types import Outcome, Task, Turn

NONSENSE = "This is no answer to anything."


def run(options) -> int:
    if options.action == "check":
        return check(options)
    from sdpo.envs.minicode import show_problems, write_world

    if options.out is None:
        show_problems(options.n, options.seed)
        return 0
    count = write_world(options.out, seed=options.seed)
    say(f"Wrote {count} problems in LiveCodeBench's format to {options.out}: data.path={options.out} reads them.")
    return 0


@dataclass(frozen=True)
class Trial:
    """One answer to one task, and what it was worth."""

    kind: str  # "reference", "empty", "wrong"
    task: Task
    answer: str
    outcome: Outcome


@dataclass
class Findings:
    """What looks wrong, and what is only worth knowing."""

    wrong: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def check(options) -> int:
    """1 where something looks wrong.  Neither engines nor Ray are started."""
    profile, _ = choose_profile(options.profile, plan_only=True)
    file, findings = find_recipe(options.recipe, options.algorithm), Findings()
    recipe = load_recipe(file, profile, options.overrides)
    with suppress(UserError):  # of the model or the tasks, which is said below
        recipe = fitted(recipe, file, options.overrides)
    with Console(f"check of {recipe.recipe}", 0) as console:
        try:
            dataset, trials = tried(recipe, options.n, findings, console)
        except UserError as error:
            say(f"Wrong: {error}")
            return 1
    look_at_rewards(trials, findings)
    look_at_feedback(recipe, trials, findings)
    _print(dataset, trials, findings)
    return 1 if findings.wrong else 0


def tried(recipe: Recipe, n: int, findings: Findings, console: Console) -> tuple[Dataset, list[Trial]]:
    """The tasks, and some answers to n of either side.  Raises UserError where there are no tasks to try."""
    with build_environment(recipe) as environment:
        with console.phase("reading the tasks", announce=True):
            dataset = environment.load()
        look_at_rows(dataset, findings)
        with console.phase("looking at the prompts", announce=True):
            look_at_prompts(recipe, dataset, findings)
        planned = answers(dataset, n, recipe.seed)
        with console.phase("grading", total=len(planned), announce=True) as progress:
            return dataset, asyncio.run(graded(environment, planned, progress.advance))


def answers(dataset: Dataset, n: int, seed: int) -> list[tuple[str, Task, str, Purpose]]:
    """For some tasks of either side: the reference answer, none at all, and one that is not theirs."""
    sides: list[tuple[Sequence[Task], Purpose]] = [(dataset.train, "training")]
    if dataset.held_out:
        sides.append((dataset.evaluation, "evaluation"))
    planned: list[tuple[str, Task, str, Purpose]] = []
    for tasks, purpose in sides:
        chosen = random.Random(seed).sample(list(tasks), min(n, len(tasks)))
        solutions = [task.solution for task in chosen if task.solution is not None]
        for task in chosen:
            if task.solution is not None:
                planned.append(("reference", task, task.solution, purpose))
            others = [other for other in solutions if other != task.solution]
            planned.append(("empty", task, "", purpose))
            planned.append(("wrong", task, others[len(planned) % len(others)] if others else NONSENSE, purpose))
    return planned


async def graded(
    environment: Environment, planned: Sequence[tuple[str, Task, str, Purpose]], on_outcome: Callable[[], None]
) -> list[Trial]:
    gate = asyncio.Semaphore(64)

    async def one(kind: str, task: Task, answer: str, purpose: Purpose) -> Trial:
        turn = Turn((), (), np.zeros(0, np.float32), "stop", text=answer, answer=answer)
        async with gate:
            outcome = await environment.grade(task, turn, purpose)
        on_outcome()
        return Trial(kind, task, answer, outcome)

    return list(await asyncio.gather(*(one(*each) for each in planned)))


# ---------------------------------------------------------------------------------------------------- what looks wrong


def look_at_rows(dataset: Dataset, findings: Findings) -> None:
    report = dataset.report
    if report.bad_rows:
        shown = [f"\n    {row}" for row in report.bad_rows[:10]]
        more = [f"\n    … and {len(report.bad_rows) - 10} more"] if len(report.bad_rows) > 10 else []
        findings.wrong.append("".join([f"{len(report.bad_rows)} of {report.rows} rows cannot be used:", *shown, *more]))
    findings.notes += [line for line in report.lines() if not line.startswith(("Bad row", "… and"))]
    if not dataset.held_out:
        findings.notes.append("Training and evaluation have the same tasks: the evaluation measures no unseen ones.")


def look_at_prompts(recipe: Recipe, dataset: Dataset, findings: Findings) -> None:
    """Whether they fit the recipe and the model; without the model's tokenizer nobody knows."""
    from sdpo.config.model_files import check_model, load_tokenizer
    from sdpo.training.parts import check_prompts

    try:
        tokenizer = load_tokenizer(recipe)
    except UserError as error:
        findings.notes.append(f"Whether the prompts fit was not checked: {error}")
        return
    try:
        check_prompts(recipe, dataset, tokenizer)
        check_model(recipe, tokenizer)
    except UserError as error:
        findings.wrong.append(str(error))


def look_at_rewards(trials: Sequence[Trial], findings: Findings) -> None:
    ungraded = [trial for trial in trials if trial.outcome.reward is None]
    for label, count in Counter(trial.outcome.label for trial in ungraded).items():
        first = next(trial.outcome for trial in ungraded if trial.outcome.label == label)
        said = first.details.get("message") or "the environment says no more"
        findings.wrong.append(f"{count} of {len(trials)} answers got no reward ({label or 'no label'}): {said}")
    rewards = {trial.outcome.reward for trial in trials} - {None}
    if len(rewards) == 1 and len(trials) > len(ungraded) + 1:
        findings.wrong.append(
            f"Every answer got the reward {rewards.pop():g}, right or wrong: there is nothing to learn from."
        )
    for kind, should in (("reference", True), ("empty", False), ("wrong", False)):
        mine = [trial for trial in trials if trial.kind == kind and trial.outcome.reward is not None]
        odd = [trial for trial in mine if trial.outcome.solved != should]
        if not odd:
            continue
        said = f"{len(odd)} of {len(mine)} {kind} answers {'are not' if should else 'count as'} solved, {_of(odd[0])}"
        # That another task's answer is right for this one as well may be so; that none of them is wrong may not.
        (findings.wrong if kind != "wrong" or len(odd) > len(mine) / 2 else findings.notes).append(said)
    if not any(trial.kind == "reference" for trial in trials):
        findings.notes.append("No task has a reference answer, so no right answer was tried.")


def look_at_feedback(recipe: Recipe, trials: Sequence[Trial], findings: Findings) -> None:
    unsolved = [t for t in trials if t.outcome.reward is not None and not t.outcome.solved]
    if not unsolved or any(trial.outcome.feedback for trial in unsolved):
        return
    if recipe.teacher is None or recipe.context.feedback == "never":
        findings.notes.append("No answer got feedback; nothing in this recipe reads it.")
    else:
        findings.wrong.append(
            f"None of {len(unsolved)} unsolved answers got feedback, so that the teacher knows no more than the "
            "policy.  Return (reward, words), or set context.feedback=never and learn from siblings alone."
        )


def _of(trial: Trial) -> str:
    feedback = f", feedback {trial.outcome.feedback!r:.200}" if trial.outcome.feedback else ""
    return f"e.g. task {trial.task.id}: answer {trial.answer!r:.100}, reward {trial.outcome.reward:g}{feedback}"


def _print(dataset: Dataset, trials: Sequence[Trial], findings: Findings) -> None:
    console = SafeConsole(highlight=False, soft_wrap=True)
    console.print(
        f"{dataset.name}: {dataset.report.rows or len(dataset.train)} rows, {len(dataset.train)} tasks to train on, "
        f"{len(dataset.evaluation)} to evaluate on",
        markup=False,
    )
    table = Table("answers", "graded", "solved", "reward", "with feedback", "outcomes", box=None, padding=(0, 2, 0, 0))
    for kind in ("reference", "empty", "wrong"):
        outcomes = [trial.outcome for trial in trials if trial.kind == kind]
        rewards = [outcome.reward for outcome in outcomes if outcome.reward is not None]
        spread = f"{min(rewards):.3g} … {max(rewards):.3g}, mean {np.mean(rewards):.3g}" if rewards else "none"
        labels = ", ".join(f"{label} {count}" for label, count in Counter(o.label for o in outcomes).most_common())
        solved, told = sum(o.solved for o in outcomes), sum(bool(o.feedback) for o in outcomes)
        table.add_row(kind, f"{len(rewards)} of {len(outcomes)}", str(solved), spread, str(told), labels)
    console.print(table)
    sample = next((t.outcome.feedback for t in trials if t.kind == "wrong" and t.outcome.feedback), None)
    if sample is not None:
        console.print(f"Feedback reads, for example: {sample:.300}", markup=False)
    for line in findings.notes:
        console.print(f"Note: {line}", markup=False)
    for line in findings.wrong:
        console.print(f"Wrong: {line}", markup=False)
    if not findings.wrong:
        console.print("No problem was found.  Nothing was started.")
