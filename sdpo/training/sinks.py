"""The sinks that a recipe names: W&B, TensorBoard, a CSV file."""

from __future__ import annotations

import yaml

from sdpo.config.schema import Recipe
from sdpo.config.sections import TrackingSettings
from sdpo.tracking import Console, RunFolder, WandbLogger, wandb_logger
from sdpo.tracking.csv_file import CsvFile
from sdpo.tracking.sink import Sink
from sdpo.training import tensorboard


def check_sinks(settings: TrackingSettings) -> None:
    """Raises UserError where a package is missing that the recipe asks for by name."""
    if "wandb" in settings.sinks:
        wandb_logger.check_installed(settings.wandb)
    if "tensorboard" in settings.sinks:
        tensorboard.check_installed()


def make_sinks(recipe: Recipe, folder: RunFolder, console: Console) -> list[Sink]:
    """Open them for the run of `folder`, which has begun or is resumed, and say where each can be looked at."""
    rows = folder.metrics
    makers = {
        "wandb": lambda: _wandb(recipe, folder, console),
        "tensorboard": lambda: tensorboard.TensorBoard(
            folder.path,
            first_step=rows[-1]["step"] + 1 if rows else 0,
            recipe=yaml.safe_dump(folder.recipe, sort_keys=False),
            warn=console.message,
        ),
        "csv": lambda: CsvFile(folder.path, console.message),
    }
    sinks = [makers[name]() for name in recipe.tracking.sinks]
    for sink in sinks:
        console.message(sink.description)
    return sinks


def _wandb(recipe: Recipe, folder: RunFolder, console: Console) -> WandbLogger:
    logger = WandbLogger(
        folder.path,
        project=recipe.tracking.project,
        group=recipe.recipe,
        name=recipe.name,
        tags=[recipe.algorithm.label, recipe.profile, f"thinking: {recipe.evaluation.thinking}"],
        config=recipe.model_dump(mode="json"),
        mode=recipe.tracking.wandb,
        run_id=folder.info.wandb_id,
        warn=console.message,
    )
    if logger.run_id:
        folder.set_wandb_id(logger.run_id)  # a resume goes on with it
    return logger
