"""One sequence per pass: the same numbers as with packs; entries that pad a vocabulary: none at all."""

from __future__ import annotations

import pytest
import torch
from transformers import AutoModelForCausalLM

from sdpo.config.sections import ModelSettings
from sdpo.errors import UserError
from sdpo.learner import attention
from sdpo.learner.model import load_model
from sdpo.learner.packing import pack
from sdpo.learner.worker import LearnerWorker
from sdpo.losses.vocabulary import vocabulary_pass
from tests.helpers.tiny_model import make_tiny_model
from tests.learner.tiny import dealt, loss_and_gradient, named_weights, recipe, samples

OFF = ("learner.packing=off", "learner.micro_batch_tokens=null")


@pytest.mark.parametrize("teacher", [
    ("teacher.kind=ema",),
    pytest.param(("teacher.kind=trust_region", "teacher.clock=null"), marks=pytest.mark.slow),
])  # fmt: skip
def test_one_sequence_per_pass_gives_the_loss_and_gradient_of_packs(model, start, teacher):
    found = []
    for options in ((), OFF):
        settings = recipe(model, "sdpo", *teacher, *options)
        worker, [micro_batches] = start(settings), dealt(settings, samples(9))
        with torch.no_grad():
            for name, weight in worker.student.model.named_parameters():  # the teacher stays behind
                weight.add_(torch.randn(weight.shape, generator=torch.Generator().manual_seed(len(name))), alpha=0.05)
        found.append(loss_and_gradient(worker, micro_batches))
        packed = attention.is_packed(worker.student.model.config._attn_implementation)
        assert worker.student.packs == packed == (not options)
    assert all(len(rows) == 1 for rows in micro_batches) and len(micro_batches) == 9
    (loss, gradient), (other_loss, other_gradient) = found
    assert other_loss == pytest.approx(loss, rel=1e-5)
    for name, wanted in gradient.items():
        assert (other_gradient[name] - wanted).norm() <= 1e-4 * wanted.norm() + 1e-6, name


def test_a_learner_does_not_start_where_the_scores_of_a_layer_cannot_fit(model, start, monkeypatch):
    monkeypatch.setattr(LearnerWorker, "_memory", lambda self: 1000)  # bytes
    with pytest.raises(UserError, match="makes the scores of all tokens of a pass at once.*Set model.attention=sdpa"):
        start(recipe(model, "sdpo", "model.attention=eager"))
    start(recipe(model, "sdpo"))


def test_padding_is_no_part_of_the_distribution_and_is_not_trained(tmp_path):
    folder = make_tiny_model(tmp_path, tied=False, tokens=100)
    policy = load_model(ModelSettings(path=str(folder), dtype="float32"), torch.float32)
    plain = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    policy.head.padding = range(100, len(policy.head.weight))
    ids = torch.arange(3, 40)
    logits = plain(input_ids=ids[None]).logits[0, 9:-1, :100]
    wanted = logits.log_softmax(-1).gather(1, ids[10:, None])[:, 0]
    wanted.sum().backward()
    asked = pack([ids[:10].numpy()], [ids[10:].numpy()], ids.device)

    def loss(logits, rows):
        log_probs = vocabulary_pass(logits, ids[10:][rows], triton=False).log_probs
        return log_probs.sum(), {"found": log_probs}

    total, outputs = policy(asked, loss, chunk_tokens=7)
    total.backward()
    torch.testing.assert_close(outputs["found"], wanted.detach(), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(policy.head.weight.grad, plain.lm_head.weight.grad, rtol=1e-3, atol=1e-5)
    assert not policy.head.weight.grad[100:].any()
    found = policy.head.logits(policy.hidden(asked), 1.0)
    torch.testing.assert_close(found[:, :100], logits.detach(), rtol=1e-4, atol=1e-4)
    assert not found.softmax(-1)[:, 100:].any()
    with policy.head.whole():  # what is compared with those that know no tokenizer
        assert policy.head.logits(policy.hidden(asked), 1.0).softmax(-1)[:, 100:].all()


def test_an_update_leaves_padding_as_it_was(tmp_path, start):
    folder = make_tiny_model(tmp_path, vocab=4224, tied=False, tokens=4200)
    settings = recipe(folder, "sdpo", "learner.weight_decay=0", "learner.lr=0.01")
    worker, [micro_batches] = start(settings), dealt(settings, samples(6))
    assert worker.student.head.padding == worker.teacher.average.policy.head.padding == range(4200, 4224)
    before = named_weights(worker)["lm_head.weight"]
    worker.update(micro_batches)
    moved = (named_weights(worker)["lm_head.weight"] - before).abs().amax(-1)
    assert moved[:4200].any() and not moved[4200:].any()
