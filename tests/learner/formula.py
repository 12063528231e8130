"""From groups through an algorithm, the driver's hooks and the real learner: loss and gradient of one update."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch

from sdpo.algorithms import build_algorithm
from sdpo.learner.rows import assign_to_ranks, loss_weighted_rows, split
from sdpo.prompts.context import ContextBuilder
from sdpo.types import Group
from tests.learner.tiny import InProcess, groups, loss_and_gradient

MIXED = [[True, False, False], [False, False], [True, True]]


def learned(
    settings, worker, tokenizer, passed: list[list[bool]] | Sequence[Group], began: float | None = None, step: int = 1
):
    """Samples, loss and gradients of the recipe's algorithm on one optimiser batch, in micro-batches of one row.

    passed  of each group which responses succeed, or groups
    began   every token's log-prob of the policy with which the batch began, in the second of several updates
    step    the generation batch
    """
    made = groups(passed) if isinstance(passed[0], list) else passed
    samples, rows = dealt_rows(settings, tokenizer, made, step)
    rows = asyncio.run(InProcess(settings, worker)._hooked(rows, build_algorithm(settings).plan.at(step)))
    if began is not None:
        rows = [replace(row, old_log_probs=np.full(len(row.response_ids), began, np.float32)) for row in rows]
    [micro_batches] = assign_to_ranks(rows, split(rows, 1, 1))
    return samples, *loss_and_gradient(worker, micro_batches)


def dealt_rows(settings, tokenizer, made: Sequence[Group], step: int = 1):
    """Samples of the groups, and their rows before a hook sees them."""
    algorithm, contexts = build_algorithm(settings), ContextBuilder(tokenizer, settings.context)
    samples = sum(algorithm.assign(made, contexts, np.random.default_rng(0)), [])
    return samples, loss_weighted_rows(samples, algorithm.plan.at(step), settings.rollout.max_response_tokens)


def moved(settings, worker, tokenizer, passed: list[list[bool]], double):
    """The student in float64 after one update of the worker, with which its generation batch ends."""
    _, rows = dealt_rows(settings, tokenizer, groups(passed))
    worker.update(assign_to_ranks(rows, split(rows, 1, 8192))[0])
    worker.finish_batch()
    double.load_state_dict({n: w.double() for n, w in worker.student.model.state_dict().items()})
    return double


def compare(wanted: torch.Tensor, student, loss: float, gradient) -> None:
    wanted.backward()
    assert loss == pytest.approx(wanted.item(), rel=1e-4)
    for name, parameter in student.named_parameters():
        scale = float(parameter.grad.abs().max())
        torch.testing.assert_close(gradient[name].double(), parameter.grad, rtol=1e-3, atol=3e-5 * scale)


def chosen(log_probs: torch.Tensor, sample) -> torch.Tensor:
    return log_probs.gather(1, torch.tensor(sample.response_ids)[:, None])[:, 0]
