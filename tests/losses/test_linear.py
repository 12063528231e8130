"""linear_divergence against the plain formulas on full logits."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sdpo.losses.divergence import divergence
from sdpo.losses.linear import linear_divergence


def _tensors(n, h, v, dtype=torch.float64, seed=0):
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)

    return dict(
        student_hidden=normal(n, h).requires_grad_(),
        student_weight=normal(v, h).requires_grad_(),
        teacher_hidden=normal(n, h + 2),
        teacher_weight=normal(v, h + 2),
        token_weights=torch.rand(n, generator=generator, dtype=torch.float64),
        tokens=torch.randint(v, (n,), generator=generator),
    )


@settings(max_examples=15, deadline=None)
@given(
    n=st.integers(0, 9), chunk=st.integers(1, 10), alpha=st.sampled_from([0.0, 0.5, 1.0]),
    options=st.sampled_from([{}, dict(top_k=3), dict(top_k=3, tail=False, support="teacher"), dict(entry_clip=0.05)]),
)  # fmt: skip
def test_linear_divergence(n, chunk, alpha, options):
    a = _tensors(n, 4, 13)
    loss, outputs = linear_divergence(**a, alpha=alpha, chunk_tokens=chunk, temperature=0.7, **options)
    loss.backward()
    found = a["student_hidden"].grad, a["student_weight"].grad
    a["student_hidden"].grad = a["student_weight"].grad = None
    student = a["student_hidden"] @ a["student_weight"].T / 0.7
    teacher = a["teacher_hidden"] @ a["teacher_weight"].T / 0.7
    losses = divergence(student, teacher, alpha, **options)
    expected = (losses * a["token_weights"]).sum()
    expected.backward()
    torch.testing.assert_close(loss, expected, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(found, (a["student_hidden"].grad, a["student_weight"].grad), rtol=1e-8, atol=1e-11)
    s, t = (torch.distributions.Categorical(logits=x.detach(), validate_args=False) for x in (student, teacher))
    by_products = {
        "divergence": losses.detach(),
        "student_entropy": s.entropy(),
        "teacher_entropy": t.entropy(),
        "log_probs": s.log_prob(a["tokens"]),
        "teacher_log_probs": t.log_prob(a["tokens"]),
    }
    torch.testing.assert_close(outputs, by_products, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_a_factor_on_the_logits_of_each_model(temperature):
    a = _tensors(9, 4, 13)
    options = dict(alpha=0.5, chunk_tokens=2, temperature=temperature)
    loss, outputs = linear_divergence(**a, **options, student_logit_scale=0.25, teacher_logit_scale=3.0)
    scaled = a | {"student_weight": a["student_weight"] * 0.25, "teacher_weight": a["teacher_weight"] * 3.0}
    wanted, expected = linear_divergence(**scaled, **options)
    inputs = a["student_hidden"], a["student_weight"]
    torch.testing.assert_close((loss, outputs), (wanted, expected), rtol=1e-10, atol=1e-12)
    gradients = (torch.autograd.grad(x, inputs) for x in (loss, wanted))
    torch.testing.assert_close(*gradients, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("scale", [0.0, -1.0, float("inf"), float("nan")])
def test_a_factor_that_is_none_is_refused(scale):
    a = _tensors(5, 4, 13)
    with pytest.raises(ValueError, match="logit_scale is"):
        linear_divergence(**a, alpha=1.0, chunk_tokens=2, student_logit_scale=scale)


def test_frozen_output_matrix_gets_no_gradient():
    a = _tensors(5, 4, 13)
    weight = a["student_weight"] = a["student_weight"].detach()
    linear_divergence(**a, alpha=1.0, chunk_tokens=2)[0].backward()
    assert weight.grad is None and a["student_hidden"].grad.any()


def test_teacher_of_another_vocabulary_is_refused():
    a = _tensors(5, 4, 13)
    a["teacher_weight"] = a["teacher_weight"][:-1]
    with pytest.raises(ValueError, match="vocabulary 13"):
        linear_divergence(**a, alpha=1.0, chunk_tokens=2)
