"""`sdpo profile`: a few steps of a recipe, then a table of where time and memory went."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Sequence
from pathlib import Path

from rich.table import Table

from sdpo.algorithms import Algorithm, build_algorithm
from sdpo.config.discovery import refuse_recipe
from sdpo.config.files import find_recipe, load_recipe
from sdpo.config.hardware import choose_profile, known_gpus
from sdpo.config.safe_console import SafeConsole
from sdpo.config.schema import Recipe
from sdpo.config.terminal import say
from sdpo.errors import UserError
from sdpo.learner.operators import Operator
from sdpo.tracking import Console, RunFolder, RunInfo, Tracker
from sdpo.tracking.known import mean
from sdpo.tracking.metric_names import part
from sdpo.training.fitting import fitted
from sdpo.training.parts import Parts, prepared
from sdpo.training.private_folder import private_folder

WARM_UP_STEPS = 1  # the first step allocates and compiles


def run(options) -> int:
    if options.steps < 1:
        raise UserError(f"--steps {options.steps}: at least one step is needed.")
    profile, reason = choose_profile(options.profile)
    file = find_recipe(options.recipe, options.algorithm)
    gpus = known_gpus(profile)
    say(f"Profile {profile}: {reason}.")
    recipe = fitted(load_recipe(file, profile, options.overrides, gpus), file, options.overrides, gpus)
    refuse_recipe(recipe)
    algorithm = build_algorithm(recipe)
    title, last = f"profile of {recipe.name}", options.steps + 2
    with (
        Console(title, last) as console,
        private_folder(None, console.message),
        prepared(recipe, console) as parts,
    ):
        with tempfile.TemporaryDirectory(prefix="sdpo-profile-") as folder:
            path = Path(folder) / "run"
            rows, operators = asyncio.run(_profile(recipe, algorithm, parts, path, options.steps, console))
    show(rows, operators)
    return 0


async def _profile(
    recipe: Recipe, algorithm: Algorithm, parts: Parts, path: Path, steps: int, console: Console
) -> tuple[list[dict], tuple[list[Operator], float]]:
    """Rows of the measured steps, and the learner's operators in one more step, which the recording slows down."""
    from sdpo.training.interrupt import Interrupt
    from sdpo.training.launch import cluster, make_trainer
    from sdpo.training.workers import workers

    async with cluster(console) as resources, workers(recipe, algorithm.plan, resources, console) as (pool, learner):
        with RunFolder(path) as folder:
            info = RunInfo.collect(
                recipe=recipe.recipe, algorithm=recipe.algorithm.name, seed=recipe.seed, profile=recipe.profile
            )
            folder.create(info, recipe.model_dump(mode="json"))
            tracker = Tracker(folder, console)
            interrupt = Interrupt(console.message)  # which nobody asks to stop: there is nothing to save
            trainer = make_trainer(recipe, algorithm, parts, pool, learner, folder, tracker, interrupt)
            try:
                await trainer.start()
                for _ in range(WARM_UP_STEPS + steps):
                    await trainer.step()
                await learner.start_profile()
                await trainer.step()
                operators = await learner.end_profile(12)
            finally:
                await trainer.batches.close()
            return folder.metrics[WARM_UP_STEPS - 1 : -1], operators


def show(rows: Sequence[dict], operators: tuple[list[Operator], float]) -> None:
    """Means over the rows of the measured steps; the first row is that of the step before them."""
    out = SafeConsole()
    clock = [row["wall_clock_s"] for row in rows]
    rows = rows[1:]
    named = [key for key in rows[-1] if key not in ("time", "step")]
    means = {key: value for key in named if (value := mean(row.get(key) for row in rows)) is not None}
    phases = part(means, "time")
    seconds = (clock[-1] - clock[0]) / len(rows)
    phases["everything else"] = max(0.0, seconds - sum(phases.values()))

    table = _table(
        out, f"One step: {seconds:.2f} s (mean of {len(rows)}, after {WARM_UP_STEPS} to warm up)", "s", "share"
    )
    for name, value in sorted(phases.items(), key=lambda item: -item[1]):
        table.add_row(name, f"{value:.3f}", f"{value / seconds:.0%}")
    out.print(table)

    table = _table(out, "Engines and learner", "", "")
    tokens = means["response/tokens"]
    table.add_row("engines at work", f"{means['utilization/engines']:.0%}", "of the time")
    table.add_row("learner at work", f"{means['utilization/learner']:.0%}", "of the time")
    table.add_row("sampled while at work", f"{means.get('utilization/engines_tokens_per_s', 0):,.0f}", "tokens/s")
    table.add_row("responses learned from, whole step", f"{tokens / seconds:,.0f}", "tokens/s")
    table.add_row("… while the learner updates", f"{tokens / phases['update']:,.0f}", "tokens/s")
    table.add_row("weights published", f"{means['weights/bytes'] / 2**20:,.1f}", "MiB a step")
    table.add_row("generation paused for it", f"{means['weights/pause_s']:.3f}", "s a step")
    out.print(table)

    table = _table(out, "Memory", "MiB", "")
    for name, note in {"engines": "resident, all", "learner": "peak, largest rank", "learner_gpu": "peak"}.items():
        if (key := f"memory/{name}_mb") in means:
            table.add_row(name.replace("_gpu", ", GPU"), f"{rows[-1][key]:,.0f}", note)
    out.print(table)

    longest, total = operators
    table = _table(
        out, f"Operators of learner rank 0 in one update: {total:.2f} s by themselves, recording included", "s", "calls"
    )
    for operator in longest:
        table.add_row(operator.name[:60], f"{operator.seconds:.3f}", f"{operator.calls:,}")
    out.print(table)


def _table(out: SafeConsole, title: str, *columns: str) -> Table:
    out.print(f"\n[bold]{title}[/bold]")
    table = Table(show_header=any(columns))
    table.add_column("")
    for name in columns:
        table.add_column(name, justify="right")
    return table
