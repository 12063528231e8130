"""Whole generation batches through the driver's code and the real worker, against `naive` in float64."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import numpy as np
import pytest
import torch

from sdpo.algorithms import build_algorithm
from sdpo.prompts.context import ContextBuilder
from sdpo.types import Rollout
from tests.learner.naive import Naive, Response, chosen
from tests.learner.tiny import ROUNDED, InProcess, groups, recipe

PASSED = [[True, False, False], [False, False, True], [True, True, False], [False, False, False]]
BATCHES = 2

# The published forms, at sizes of this model.
CASES = {
    "GRPO": ("grpo", "learner.updates_per_batch=2", "learner.lr=1e-2"),
    "SDPO": ("sdpo", "distillation.alpha=1", "distillation.top_k=20", "teacher.rate=0.05",
             "learner.updates_per_batch=4"),
    "SRPO": ("srpo", "distillation.top_k=100", "teacher.rate=0.05", "learner.warmup_steps=10",
             "context.feedback=never"),
    "mix": ("sdpo", "algorithm.mix=0.9", "distillation.alpha=1", "context.feedback=fallback",
            "learner.updates_per_batch=2"),
    "OPSD": ("opsd", "distillation.aggregation=seq-mean-token-mean"),
    "softened teacher": ("opsd", "distillation.teacher_temperature=2"),
    "SDFT": ("sdft", "teacher.rate=0.05"),
}  # fmt: skip


def relative(found: dict[str, torch.Tensor], wanted: dict[str, torch.Tensor]) -> float:
    """The largest over the weights of ‖found − wanted‖ / ‖wanted‖."""
    return max(float((found[n].double() - w).norm() / w.norm()) for n, w in wanted.items() if float(w.norm()) > 0)


@pytest.mark.parametrize("case", CASES)
def test_gradients_weights_and_teacher_of_whole_batches(model, start, tokenizer, case, capsys):
    algorithm, *options = CASES[case]
    room = ROUNDED if algorithm != "grpo" else ROUNDED[:2]  # no teacher
    settings = recipe(model, algorithm, *room, "learner.lr=1e-3", "rollout.temperature=0.8", *options)
    worker, naive = start(settings), Naive(model, settings)
    learner, router = InProcess(settings, worker), build_algorithm(settings)
    contexts, rng = ContextBuilder(tokenizer, settings.context), np.random.default_rng(0)
    initial = {n: p.detach().clone() for n, p in naive.parameters.items()}
    names = [n for n, _ in worker.student.model.named_parameters()]
    gradients = []
    worker.engine.optimizer.register_step_pre_hook(
        lambda *_: gradients.append({n: p.grad.clone() for n, p in worker.student.model.named_parameters()})
    )
    worst, clipped = 0.0, []
    for batch in range(BATCHES):
        made = [with_samplers(naive, group, batch) for group in groups(PASSED)]
        samples = router.assign(made, contexts, rng)
        clipped.append(asyncio.run(learner.train(samples)).get("policy/clipped_fraction", 0))
        wanted = naive.train([
            [response(s, g.rewards[i] == 1, k) for i, s in enumerate(row)]
            for k, (row, g) in enumerate(zip(samples, made, strict=True))
        ])  # fmt: skip
        assert len(gradients) == len(wanted) == settings.learner.updates_per_batch
        worst = max(worst, *(relative(f, w) for f, w in zip(gradients, wanted, strict=True)))
        gradients.clear()

    moved = {n: p.detach() - initial[n] for n, p in naive.parameters.items()}
    ours = {n: worker.student.model.get_parameter(n).detach().double() - initial[n] for n in names}
    movement = relative(ours, moved)
    average = 0.0
    if settings.teacher is not None and settings.teacher.kind == "ema":
        own = dict(worker.teacher.average.policy.model.named_parameters())
        theirs = dict(naive.teacher.named_parameters())
        average = relative({n: own[n].double() - initial[n] for n in own}, {n: theirs[n] - initial[n] for n in own})
    with capsys.disabled():
        print(f"\n{case}: worst relative difference of a gradient {worst:.1e}, of weights' movement {movement:.1e}, "
              f"of the teacher's {average:.1e}")  # fmt: skip
    assert worst < 1e-4
    assert movement < 1e-3 and average < 1e-2  # of an average in float32 that moves by little
    assert algorithm != "grpo" or max(clipped) > 0


def with_samplers(naive: Naive, group, seed: int):
    """The group with log-probs of a sampler near the policy, on both sides of it."""
    rng, rollouts = np.random.default_rng(seed), []
    for r in group.rollouts:
        x = Response(list(r.last.prompt_ids), list(r.last.response_ids), None, False, 0, None)
        with torch.no_grad():
            [own] = naive.log_probs(naive.student, [x])
        noise = rng.normal(0, 0.5, len(x.ids))
        sampler = (chosen(own, x).numpy() + noise).astype(np.float32)
        rollouts.append(Rollout((replace(r.last, sampler_log_probs=sampler),)))
    return replace(group, rollouts=tuple(rollouts))


def response(sample, passed: bool, group: int) -> Response:
    teacher = None if sample.teacher is None else list(sample.teacher.prompt_ids)
    sampler = torch.from_numpy(sample.sampler_log_probs).double()
    return Response(list(sample.prompt_ids), list(sample.response_ids), sampler, bool(passed), group, teacher)
