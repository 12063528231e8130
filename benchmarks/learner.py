"""A learner of one rank in this process: the project's own worker around a real DeepSpeed engine, without Ray."""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence

from sdpo.algorithms import build_algorithm
from sdpo.config.schema import Recipe
from sdpo.learner.rows import Row, assign_to_ranks, loss_weighted_rows, split
from sdpo.types import Sample


def free_address() -> tuple[str, int]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()


def start_worker(recipe: Recipe, rank: int = 0, address: tuple[str, int] | None = None):
    """A started `LearnerWorker`; its first step still builds what is built once."""
    os.environ["DS_ACCELERATOR"] = "cpu"
    from sdpo.learner.worker import LearnerWorker

    worker = LearnerWorker(recipe, build_algorithm(recipe).plan, rank)
    worker.start(address or free_address())
    return worker


def dealt(recipe: Recipe, samples: Sequence[Sample]) -> list[list[list[Row]]]:
    """Rank, micro-batch, rows: what the driver would send for one optimiser step on these samples."""
    rows = loss_weighted_rows(samples, build_algorithm(recipe).plan, recipe.rollout.max_response_tokens)
    return assign_to_ranks(rows, split(rows, recipe.learner.ranks, recipe.learner.micro_batch_tokens))


def step(worker, micro_batches: list[list[Row]]) -> None:
    """All that the learner does for one generation batch with one update."""
    worker.update(micro_batches)
    worker.finish_batch()
