"""Recording a run: its folder, W&B, and the console.  Reading one: `RunFolder`."""

from sdpo.tracking.console import Console, Phase
from sdpo.tracking.disk import ensure_free
from sdpo.tracking.rollouts import rollout_rows
from sdpo.tracking.run_folder import RunFolder, set_aside
from sdpo.tracking.run_info import DIED, FAILED, FINISHED, INTERRUPTED, RUNNING, RunInfo
from sdpo.tracking.tracker import Tracker
from sdpo.tracking.wandb_logger import WandbLogger

__all__ = [
    "DIED",
    "FAILED",
    "FINISHED",
    "INTERRUPTED",
    "RUNNING",
    "Console",
    "Phase",
    "RunFolder",
    "RunInfo",
    "Tracker",
    "WandbLogger",
    "ensure_free",
    "rollout_rows",
    "set_aside",
]
