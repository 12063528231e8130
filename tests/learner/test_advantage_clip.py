"""The clip at a multiple of the running mean of |log q − log π|, against closed forms in float64."""

from __future__ import annotations

import pytest
import torch
from transformers import AutoModelForCausalLM

from tests.learner.tiny import dealt, recipe, samples

FACTOR = 0.4  # small: the clip acts on most entries


def settings_of(model):
    return recipe(
        model, "sdpo", "distillation.alpha=1", f"distillation.advantage_clip_factor={FACTOR}", "teacher.kind=frozen",
        "teacher.rate=null", "teacher.clock=null", "distillation.sampler_threshold=null",
    )  # fmt: skip


def log_probs(policy, sample, prompt):
    ids = torch.tensor([[*prompt, *sample.response_ids]])
    return policy(input_ids=ids).logits[0, len(prompt) - 1 : -1].log_softmax(-1)


def both(policy, initial, batch):
    """(log π, log q) [R, V] of every taught response."""
    taught = [s for s in batch if s.teacher is not None]
    return [
        (s, log_probs(policy, s, s.prompt_ids), log_probs(initial, s, s.teacher.prompt_ids).detach()) for s in taught
    ]


def mean_size(pairs) -> float:
    sampled = [(q - p).gather(1, torch.tensor(s.response_ids)[:, None]).abs() for s, p, q in pairs]
    return torch.cat(sampled).mean().item()


def policy_of(worker, model):
    policy = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float64)
    policy.load_state_dict(worker.student.model.state_dict())
    return policy


def test_the_clip_follows_the_running_mean_and_survives_a_checkpoint(model, start, tmp_path):
    settings, batch = settings_of(model), samples(8)
    initial = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float64)
    worker = start(settings)
    [micro_batches] = dealt(settings, batch)

    first = mean_size(both(policy_of(worker, model), initial, batch))
    worker.update(micro_batches)  # no mean yet, so no clip
    assert worker.advantage_clip.mean == pytest.approx(first, rel=1e-5)
    second = mean_size(both(policy_of(worker, model), initial, batch))
    worker.update(micro_batches)
    mean = first + 0.1 * (second - first)
    assert worker.advantage_clip.mean == pytest.approx(mean, rel=1e-5)

    worker.checkpointing.save(str(tmp_path))
    resumed = start(settings)
    resumed.checkpointing.load(str(tmp_path))
    policy = policy_of(worker, model)
    clip = FACTOR * mean
    terms = []
    for _, p, q in both(policy, initial, batch):
        advantage = (q - p).detach()
        assert (advantage.abs() > clip).any()
        terms.append(-(p.detach().exp() * advantage.clamp(-clip, clip) * p).sum(-1))
    wanted = torch.cat(terms).mean()
    wanted.backward()
    loss = 0.0
    for rows in micro_batches:
        value, _ = resumed.passes.loss(rows)
        resumed.engine.backward(value)
        loss += value.item()
    assert loss == pytest.approx(wanted.item(), rel=1e-5)
    for (name, found), parameter in zip(resumed.student.model.named_parameters(), policy.parameters(), strict=True):
        scale = float(parameter.grad.abs().max())
        torch.testing.assert_close(found.grad.double(), parameter.grad, rtol=1e-3, atol=3e-5 * scale, msg=name)


def test_the_first_update_is_the_reverse_kl(model, start):
    settings, batch = settings_of(model), samples(8)
    [micro_batches] = dealt(settings, batch)
    clipped, plain = (
        start(settings),
        start(
            settings.model_copy(
                update={"distillation": settings.distillation.model_copy(update={"advantage_clip_factor": None})}
            )
        ),
    )
    assert sum(clipped.passes.loss(r)[0].item() for r in micro_batches) == sum(
        plain.passes.loss(r)[0].item() for r in micro_batches
    )
