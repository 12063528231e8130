"""What is not finite is noticed where it arises, named, and never kept: of losses, teachers, gradients, weights."""

from __future__ import annotations

import asyncio
import math
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from sdpo.errors import UserError
from sdpo.learner.replica import stored
from sdpo.learner.skipped import BrokenWeights, TooManySkipped
from tests.learner.test_skipped import settings_of, state, step
from tests.learner.tiny import InProcess, dealt, samples

EVERY = [*((stage, "float32") for stage in range(4)), (2, "bfloat16"), (3, "bfloat16")]  # that recipes may have


def modes(*fast: tuple[int, str]) -> list:
    """All of them, most of them slow."""
    return [pytest.param(*mode, marks=() if mode in fast else pytest.mark.slow) for mode in EVERY]


NORM = "model.layers.1.post_attention_layernorm.weight"  # the last weight of the last layer


def spoil(tensor: torch.Tensor, value: float = math.nan) -> None:
    """One element; of a ZeRO-3 parameter, one of this rank's shard."""
    with torch.no_grad():
        getattr(tensor, "ds_tensor", tensor).data.view(-1)[1] = value


def parts(worker) -> dict[str, torch.Tensor]:
    """One tensor of each kind that a checkpoint holds, by the beginning of its name in a message."""
    group = worker.held.optimized._flats()
    masters = {} if worker.student.head.weight is group[0] else {"the optimiser's copy of the weight": group[0]}
    moments = worker.held.optimized.optimizer.state[group[0]]
    return {
        "the teacher's average of the weight": worker.teacher.average.average["model.model.norm.weight"],
        "the optimiser's exp_avg of the weight": moments["exp_avg"],
        "the optimiser's exp_avg_sq of the weight": moments["exp_avg_sq"],
        **masters,
        "the weight model.norm.weight of the policy": dict(worker.student.model.named_parameters())[
            "model.norm.weight"
        ],
    }


@pytest.mark.parametrize("stage, dtype", modes((0, "float32"), (2, "float32")))
def test_every_number_that_goes_wrong_is_noticed_and_named(model, start, stage, dtype):
    """One learner, struck again and again: in gradients, in the teacher, in everything that a checkpoint holds."""
    settings = settings_of(model, stage, dtype, "learner.max_skipped=1")
    worker = start(settings)
    learner, groups = InProcess(settings, worker), [samples(4, seed=i) for i in range(4)]
    asyncio.run(learner.train(groups))
    before = state(worker)

    # A gradient that is not finite, of a loss and log-probs that are: it breaks off below the last layer's end.
    layer = worker.student.model.model.layers[1]
    hook = layer.register_forward_hook(lambda _module, _inputs, out: out.register_hook(lambda g: g * math.inf) and None)
    with pytest.raises(TooManySkipped) as stop:
        asyncio.run(learner.train(groups))
    hook.remove()
    assert stop.value.source.startswith(f"the gradient of {NORM} (")

    # A teacher whose logits are NaN.
    average = worker.teacher.average
    own = dict(average.policy.named_parameters())["model.model.norm.weight"]
    kept = stored(own).clone()
    spoil(own)
    with pytest.raises(TooManySkipped) as stop:
        asyncio.run(learner.train(groups))
    of = "teacher's average of the weight model.norm.weight", "weight model.norm.weight of the moving average"
    assert stop.value.source.startswith(f"the {of[dtype == 'bfloat16']} (1 of ")  # in fp32 these are one tensor
    stored(own).data.copy_(kept)
    for name, value in before.items():
        assert torch.equal(value, state(worker)[name]), name

    assert asyncio.run(learner.check_finite()) is None
    for name, tensor in parts(worker).items():
        kept = getattr(tensor, "ds_tensor", tensor).clone()
        for value in (math.nan, -math.inf):
            spoil(tensor, value)
            found = asyncio.run(learner.check_finite())
            assert found.startswith(name) and "(1 of " in found, (name, found)
        getattr(tensor, "ds_tensor", tensor).data.copy_(kept)
    assert asyncio.run(learner.check_finite()) is None
    assert asyncio.run(learner.train(groups))["learner/skipped_updates"] == 0


@pytest.mark.parametrize("stage, dtype", modes((2, "bfloat16")))
def test_weights_that_a_step_with_a_finite_gradient_breaks_are_noticed_at_once(model, start, stage, dtype):
    settings = settings_of(
        model, stage, dtype, "learner.lr=1e39", "learner.updates_per_batch=2", "teacher.clock=update"
    )
    worker = start(settings)
    learner, teacher = InProcess(settings, worker), None
    teacher = {n: w.clone() for n, w in worker.teacher.average.average.items()}
    with pytest.raises(BrokenWeights) as stop:
        asyncio.run(learner.train([samples(4, seed=i) for i in range(4)]))
    assert stop.value.source.startswith("the weight ") and stop.value.update == 1
    for name, weight in worker.teacher.average.average.items():
        assert torch.equal(weight, teacher[name]), name  # what is broken reaches no average


@pytest.mark.parametrize("stage", [0, pytest.param(3, marks=pytest.mark.slow)])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_policy_with_a_weight_that_is_not_finite_is_refused_by_name(model, start, tmp_path, stage, value):
    shutil.copytree(model, tmp_path / "bad")
    tensors = load_file(tmp_path / "bad" / "model.safetensors")
    tensors["model.layers.1.mlp.up_proj.weight"][5, 7] = value
    save_file(tensors, tmp_path / "bad" / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError, match=r"model\.layers\.1\.mlp\.up_proj\.weight of the policy \(1 of [\d,]+ values"):
        start(settings_of(tmp_path / "bad", stage, "float32"))


def test_a_teacher_that_is_not_finite_is_noticed_though_the_loss_is(model):
    """A weight of 0, a clip, or a top-K may hide what the teacher is made of."""
    from sdpo.learner.finite import one_or_nan

    logits = torch.zeros(3, requires_grad=True)
    loss = logits.sum()
    assert one_or_nan(loss, {"teacher_entropy": torch.ones(3)}) == 1
    for bad in (math.nan, math.inf, -math.inf):
        (loss * one_or_nan(loss, {"entropy": torch.ones(3), "teacher_entropy": torch.tensor([1.0, bad])})).backward()
        assert logits.grad.isnan().all()
        loss = logits.sum()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_one_bad_element_anywhere_is_noticed_and_large_ones_are_not_bad(dtype, value):
    from sdpo.learner.finite import all_finite

    tensors = [torch.full((5, 7), torch.finfo(dtype).max, dtype=dtype), torch.zeros(0), torch.arange(3), torch.ones(3)]
    assert all_finite(tensors)
    for place in (0, 17, 34):
        bad = torch.full((35,), torch.finfo(dtype).max, dtype=dtype)
        bad[place] = value
        assert not all_finite([*tensors, bad])


def test_a_gap_that_is_not_known_is_no_gap_of_zero(model, start):
    """The largest gap to the sampler and its mean are NaN, not those of the other tokens; without a sampler none is."""
    settings = settings_of(model, 0, "float32")
    worker = start(settings)
    [rows] = dealt(settings, samples(4))
    loss, outputs = worker.passes.loss(rows[0])

    from sdpo.learner.sums import Sums, token_sums

    good = token_sums(rows[0], loss, outputs)
    assert 0 < good.means()["policy/sampler_gap_max"] < 10
    row = max(rows[0], key=lambda r: len(r.response_ids))
    known = row.sampler_log_probs.copy()
    row.sampler_log_probs[1] = np.nan
    bad = token_sums(rows[0], loss, outputs)
    for order in ((good, bad), (bad, good)):
        both = Sums()
        for sums in order:
            both.add(sums)
        assert math.isnan(both.means()["policy/sampler_gap_max"]) and math.isnan(both.means()["policy/kl_sampler"])
    row.sampler_log_probs[:] = np.nan  # a dataset's
    assert 0 < token_sums(rows[0], loss, outputs).means()["policy/sampler_gap_max"] < 10
    for each in rows[0]:
        each.sampler_log_probs[:] = np.nan
    assert not {"policy/sampler_gap_max", "policy/kl_sampler"} & token_sums(rows[0], loss, outputs).means().keys()
    row.sampler_log_probs[:] = known
    assert step(worker, [rows[0]]) == 1  # the others': the loss weighs by the sampler's log-probs
