"""vocabulary_pass, its plain and its Triton form, against the formulas in float64 by autograd.

The kernels run on the CPU under Triton's interpreter, which must be chosen before they are imported: the tests of
this module that need it run in a process of their own (`test_the_kernels`), where the variable is set.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sdpo.losses.divergence import divergence
from sdpo.losses.linear import linear_divergence
from sdpo.losses.vocabulary import vocabulary_pass

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
TRITON = INTERPRETED  # the form under test

OPTIONS = [
    dict(alpha=0.0),
    dict(alpha=1.0),
    dict(alpha=0.5),
    dict(alpha=0.3),
    dict(alpha=0.0, entry_clip=0.05),
    dict(alpha=1.0, entry_clip=0.02),
    dict(alpha=1.0, advantage_clip=0.7),
    dict(alpha=1.0, top_k=3),
    dict(alpha=0.5, top_k=2, tail=False, support="teacher"),
    dict(alpha=0.0, top_k=3, entry_clip=0.05),
    dict(alpha=1.0, top_k=4, advantage_clip=0.5),
]


def problem(n, v, seed, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)

    tokens = torch.randint(v, (n,), generator=generator)
    return 2 * normal(n, v), 2 * normal(n, v), tokens, normal(3, n)


def whole(student, teacher, tokens, coefficients, form):
    """The formulas: (weighted sum of everything that is differentiable, the values)."""
    p, q = student.log_softmax(-1), teacher.log_softmax(-1)
    form = dict(form)
    if form.get("top_k"):  # the support is chosen by value, so choose it among equal values
        form["top_k"] = min(form["top_k"], student.shape[-1])
    losses = divergence(p, q, form.pop("alpha"), **form)
    values = [p.gather(-1, tokens[:, None]).squeeze(-1), -(p.exp() * p).sum(-1), losses]
    total = sum((c * v).sum() for c, v in zip(coefficients, values, strict=True))
    return total, [*values, q.gather(-1, tokens[:, None]).squeeze(-1), -(q.exp() * q).sum(-1)]


def close(found, expected, tolerance):
    scale = expected.norm().clamp(min=1e-2)  # a divergence of almost equal distributions is what their terms leave
    assert (found.double() - expected).norm() <= tolerance * scale, (found, expected)


@settings(max_examples=30, deadline=None)
@given(
    n=st.integers(0, 4), v=st.integers(5, 70), form=st.sampled_from(OPTIONS), seed=st.integers(0, 99),
    used=st.sampled_from([(1, 1, 1), (0, 0, 1), (1, 0, 0), (0, 1, 0), (1, 0, 1)]),
    dtype=st.sampled_from([torch.float64, torch.float32]),
)  # fmt: skip
def test_values_and_gradients(n, v, form, seed, used, dtype):
    student, teacher, tokens, coefficients = problem(n, v, seed)
    student, teacher = student.to(dtype), teacher.to(dtype)
    coefficients = coefficients * torch.tensor(used).unsqueeze(-1)
    exact = student.double().requires_grad_()
    total, expected = whole(exact, teacher.double(), tokens, coefficients, form)
    (gradient,) = torch.autograd.grad(total, exact)

    logits = student.clone().requires_grad_()
    found = vocabulary_pass(logits, tokens, teacher, **form, triton=TRITON)
    values = [found.log_probs, found.entropy, found.losses, found.teacher_log_probs, found.teacher_entropy]
    tolerance = 1e-9 if dtype == torch.float64 else 1e-5
    for value, wanted in zip(values, expected, strict=True):
        assert value.shape == (n,) and value.dtype == dtype
        close(value.detach(), wanted.detach(), tolerance)
    total = sum((c.to(dtype) * x).sum() for c, x, u in zip(coefficients, values[:3], used, strict=True) if u)
    (own,) = torch.autograd.grad(total, logits)
    assert own.dtype == dtype
    close(own, gradient, tolerance)


def test_without_a_teacher_and_with_one_that_only_scores():
    student, teacher, tokens, coefficients = problem(5, 33, 7)
    exact = student.clone().requires_grad_()
    p = exact.log_softmax(-1)
    log_probs, entropy = p.gather(-1, tokens[:, None]).squeeze(-1), -(p.exp() * p).sum(-1)
    (gradient,) = torch.autograd.grad((coefficients[0] * log_probs + coefficients[1] * entropy).sum(), exact)
    for other in (None, teacher):
        logits = student.clone().requires_grad_()
        found = vocabulary_pass(logits, tokens, other, triton=TRITON)
        assert found.losses is None and (found.teacher_entropy is None) == (other is None)
        close(found.log_probs.detach(), log_probs.detach(), 1e-12)
        close(found.entropy.detach(), entropy.detach(), 1e-12)
        (own,) = torch.autograd.grad(
            (coefficients[0] * found.log_probs + coefficients[1] * found.entropy).sum(), logits
        )
        close(own, gradient, 1e-10)
    q = torch.distributions.Categorical(logits=teacher)
    close(found.teacher_log_probs, q.log_prob(tokens), 1e-12)
    close(found.teacher_entropy, q.entropy(), 1e-12)


@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0])
def test_equal_distributions_have_no_divergence_and_no_gradient(alpha):
    logits = (30 * torch.randn(3, 4100, generator=torch.Generator().manual_seed(0))).requires_grad_()
    found = vocabulary_pass(logits, None, logits.detach().clone(), alpha, triton=TRITON)
    (gradient,) = torch.autograd.grad(found.losses.sum(), logits)
    assert found.log_probs is None
    # all but 0: where a probability underflows, the smallest number stands for it
    assert float(found.losses.detach().abs().max()) < 1e-30 and float(gradient.detach().abs().max()) < 1e-30


@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0])
def test_far_apart_distributions_stay_finite(alpha):
    """Probabilities underflow on both sides."""
    student = torch.tensor([[0.0, 300.0, -300.0], [80.0, -80.0, 0.0]])
    teacher = student.flip(-1).contiguous()
    expected_logits = student.double().requires_grad_()
    expected = divergence(expected_logits, teacher.double(), alpha)
    (gradient,) = torch.autograd.grad(expected.sum(), expected_logits)
    logits = student.clone().requires_grad_()
    found = vocabulary_pass(logits, None, teacher, alpha, triton=TRITON)
    (own,) = torch.autograd.grad(found.losses.sum(), logits)
    close(found.losses.detach(), expected.detach(), 1e-5)
    close(own, gradient, 1e-5)


@pytest.mark.parametrize("dtype, tolerance", [(torch.float32, 1e-5), (torch.bfloat16, 1e-2)])
@pytest.mark.parametrize("n, h, v", [(1, 17, 1031), (7, 33, 4999)])  # the last is more than one block of a kernel
@pytest.mark.parametrize("form", [dict(alpha=0.0), dict(alpha=0.5), dict(alpha=1.0), dict(alpha=1.0, top_k=20)])
def test_from_hidden_states(dtype, tolerance, n, h, v, form):
    """linear_divergence: loss and gradients of the student's hidden states and matrix, a token masked out."""
    generator = torch.Generator().manual_seed(n)
    shapes = (n, h), (v, h), (n, h + 3), (v, h + 3)
    inputs = [torch.randn(*shape, generator=generator).mul(1.4 * shape[1] ** -0.25).to(dtype) for shape in shapes]
    token_weights = torch.linspace(0.1, 1.0, n)
    token_weights[n // 2 : n // 2 + (n > 1)] = 0.0
    tokens = torch.randint(v, (n,), generator=generator)
    exact = [x.double() for x in inputs]
    for x in (*inputs[:2], *exact[:2]):
        x.requires_grad_()
    loss, outputs = linear_divergence(
        *inputs, token_weights, **form, chunk_tokens=5, temperature=0.8, tokens=tokens, triton=TRITON
    )
    loss.backward()
    student, teacher = (a @ b.T / 0.8 for a, b in (exact[:2], exact[2:]))
    wanted = (divergence(student, teacher, **form) * token_weights).sum()
    wanted.backward()
    close(loss.detach(), wanted.detach(), tolerance)
    for found, reference in zip(inputs[:2], exact[:2], strict=True):
        assert found.grad.dtype == dtype
        close(found.grad, reference.grad, tolerance)
    close(outputs["log_probs"], torch.distributions.Categorical(logits=student).log_prob(tokens).detach(), tolerance)


@pytest.mark.parametrize("alpha, softcap", [(0.0, None), (0.5, None), (1.0, None), (0.5, 3.0), (1.0, 3.0)])
def test_a_head_with_factor_bias_and_softcap(alpha, softcap):
    """As if the logits had been made by plain PyTorch, gradients included."""
    generator = torch.Generator().manual_seed(5)
    hidden, teacher_hidden = (torch.randn(7, 16, generator=generator, dtype=torch.float64) for _ in range(2))
    weight, teacher_weight = (torch.randn(4999, 16, generator=generator, dtype=torch.float64) for _ in range(2))
    bias, teacher_bias = (torch.randn(4999, generator=generator, dtype=torch.float64) for _ in range(2))
    tokens, token_weights = torch.randint(4999, (7,), generator=generator), torch.rand(7, generator=generator)

    def plain(scale, hidden, weight, bias):
        logits = scale * (hidden @ weight.T + bias)
        return (logits if softcap is None else softcap * torch.tanh(logits / softcap)) / 0.8

    exact = [x.clone().requires_grad_() for x in (hidden, weight, bias)]
    student = plain(0.125, *exact)
    teacher = plain(0.4, teacher_hidden, teacher_weight, teacher_bias)
    wanted = (divergence(student, teacher, alpha) * token_weights).sum()
    wanted.backward()
    inputs = [x.float().requires_grad_() for x in (hidden, weight, bias)]
    loss, outputs = linear_divergence(
        *inputs[:2], teacher_hidden.float(), teacher_weight.float(), token_weights, alpha=alpha, chunk_tokens=3,
        temperature=0.8, student_logit_scale=0.125, teacher_logit_scale=0.4, student_bias=inputs[2],
        teacher_bias=teacher_bias.float(), student_softcap=softcap, teacher_softcap=softcap,
        tokens=tokens, triton=TRITON,
    )  # fmt: skip
    loss.backward()
    close(loss.detach(), wanted.detach(), 1e-5)
    for found, reference in zip(inputs, exact, strict=True):
        close(found.grad, reference.grad, 1e-5)
    close(outputs["log_probs"], torch.distributions.Categorical(logits=student.detach()).log_prob(tokens), 1e-5)


def test_a_mask_without_tokens_gives_zeros():
    inputs = [torch.randn(4, 6), torch.randn(9, 6), torch.randn(4, 6), torch.randn(9, 6)]
    for x in inputs[:2]:
        x.requires_grad_()
    loss, _ = linear_divergence(*inputs, torch.zeros(4), alpha=1.0, chunk_tokens=3, triton=TRITON)
    loss.backward()
    assert loss == 0 and not inputs[0].grad.any() and not inputs[1].grad.any()


@pytest.mark.slow
@pytest.mark.skipif(INTERPRETED, reason="this is the process that the test starts")
@pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="triton is not installed")
@pytest.mark.timeout(600)
def test_the_kernels():
    """The other tests of this module, and those on the released code, with the Triton form under its interpreter."""
    files = [__file__, str(Path(__file__).with_name("test_golden.py"))]
    environment = {**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", *files]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0 and "passed" in done.stdout, done.stdout[-8000:] + done.stderr[-2000:]
