"""projected_loss against plain autograd on all logits at once."""

from __future__ import annotations

import weakref

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.checkpoint import checkpoint

from sdpo.learner.activations import Live
from sdpo.losses.chunked import project, projected_loss
from sdpo.losses.divergence import divergence
from sdpo.losses.logits import sampled_log_probs

DIVERGENCES = [(0.0, None), (1.0, None), (0.5, None), (0.3, 4), (1.0, 4)]


def entropy(logits):
    # without validation, which fails on no rows at all
    return torch.distributions.Categorical(logits=logits, validate_args=False).entropy()


def _problem(n, h, v, dtype=torch.float64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    hidden = torch.randn(n, h, generator=generator, dtype=torch.float64)
    weight = torch.randn(v, h, generator=generator, dtype=torch.float64) / h**0.5 * 2
    teacher = torch.randn(n, v, generator=generator, dtype=torch.float64) * 2
    token_weights = torch.rand(n, generator=generator, dtype=torch.float64)
    token_weights[::3] = 0  # masked tokens
    return hidden.to(dtype), weight.to(dtype), teacher, token_weights


def _plain(hidden, weight, teacher, token_weights, alpha, top_k, temperature=1.0):
    """Loss and gradients in float64 from the formulas, on full logits."""
    hidden = hidden.detach().double().requires_grad_()
    weight = weight.detach().double().requires_grad_()
    s = F.log_softmax(hidden @ weight.T / temperature, -1)
    t = F.log_softmax(teacher, -1)
    if top_k is not None:
        ids = s.detach().topk(top_k).indices
        s, t = s.gather(-1, ids), t.gather(-1, ids)
        s, t = (torch.cat([x, _rest(x)], -1) for x in (s, t))
    p, q = s.exp(), t.exp()
    if alpha == 0:
        losses = (q * (t - s)).sum(-1)
    elif alpha == 1:
        losses = (p * (s - t)).sum(-1)
    else:
        m = ((1 - alpha) * p + alpha * q).log()
        losses = (1 - alpha) * (p * (s - m)).sum(-1) + alpha * (q * (t - m)).sum(-1)
    loss = (token_weights * losses).sum()
    loss.backward()
    return loss.detach(), hidden.grad, weight.grad, losses.detach()


def _rest(top):
    """Log of the mass beside the top K, at least 1e−7, as released."""
    return torch.log1p(-top.exp().sum(-1, keepdim=True).clamp(max=1 - 1e-7))


def _loss_fn(teacher, token_weights, alpha, top_k, dtype=torch.float64):
    teacher, token_weights = teacher.to(dtype), token_weights.to(dtype)

    def fn(logits, rows):
        losses = divergence(logits, teacher[rows], alpha, top_k)
        return (token_weights[rows] * losses).sum(), {"losses": losses, "entropy": entropy(logits)}

    return fn


def _distance(found, expected):
    """Relative to the largest norm at hand, so that a gradient of 0 can be met."""
    return float((found.double() - expected).norm() / expected.norm().clamp(min=1e-12))


@settings(max_examples=25, deadline=None)
@given(
    n=st.integers(0, 13), h=st.integers(1, 7), v=st.integers(5, 23), chunk=st.integers(1, 14),
    case=st.sampled_from(DIVERGENCES), temperature=st.sampled_from([1.0, 0.6]), seed=st.integers(0, 99),
)  # fmt: skip
def test_loss_and_gradients_equal_plain_autograd(n, h, v, chunk, case, temperature, seed):
    hidden, weight, teacher, token_weights = _problem(n, h, v, seed=seed)
    hidden.requires_grad_(), weight.requires_grad_()
    fn = _loss_fn(teacher, token_weights, *case)
    loss, outputs = projected_loss(hidden, weight, fn, chunk_tokens=chunk, temperature=temperature)
    (3.0 * loss).backward()
    expected = _plain(hidden, weight, teacher, token_weights, *case, temperature)
    torch.testing.assert_close(loss.detach(), expected[0], rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(hidden.grad, 3 * expected[1], rtol=1e-8, atol=1e-11)
    torch.testing.assert_close(weight.grad, 3 * expected[2], rtol=1e-8, atol=1e-11)
    torch.testing.assert_close(outputs["losses"], expected[3], rtol=1e-9, atol=1e-12)
    assert outputs["entropy"].shape == (n,) and not outputs["losses"].requires_grad


@pytest.mark.parametrize("dtype, tolerance", [(torch.float32, 1e-5), (torch.bfloat16, 1e-2)])
@pytest.mark.parametrize("alpha, top_k", [(0.0, None), (1.0, None), (0.5, None), (1.0, 20)])
@pytest.mark.parametrize("n, h, v", [(1, 64, 1031), (37, 48, 20_011)])  # the last spans slabs of the output matrix
def test_lower_precision_stays_near_float64(dtype, tolerance, alpha, top_k, n, h, v):
    hidden, weight, teacher, _ = _problem(n, h, v, dtype)
    token_weights = torch.linspace(0.1, 1.0, n, dtype=torch.float64)
    teacher = (teacher.float()).double()
    hidden.requires_grad_(), weight.requires_grad_()
    fn = _loss_fn(teacher, token_weights, alpha, top_k, torch.float32)
    loss, _ = projected_loss(hidden, weight, fn, chunk_tokens=8)
    loss.backward()
    expected = _plain(hidden, weight, teacher, token_weights, alpha, top_k)
    assert loss.dtype == torch.float32 and hidden.grad.dtype == weight.grad.dtype == dtype
    assert _distance(loss.detach(), expected[0]) < tolerance
    assert _distance(hidden.grad, expected[1]) < tolerance
    assert _distance(weight.grad, expected[2]) < tolerance


@settings(max_examples=25, deadline=None)
@given(
    n=st.integers(0, 9), chunk=st.integers(1, 10), case=st.sampled_from(DIVERGENCES),
    scale=st.sampled_from([1.0, 0.25]), softcap=st.sampled_from([None, 1.5, 30.0]), biased=st.booleans(),
    entries=st.sampled_from([None, 14]),
)  # fmt: skip
def test_a_head_with_bias_factor_softcap_and_padding_equals_plain_autograd(
    n, chunk, case, scale, softcap, biased, entries
):
    hidden, weight, teacher, token_weights = _problem(n, 5, 17)
    padded = teacher.clone()
    padded[:, slice(entries, None) if entries else slice(0)] = -1e30  # what `project` makes of a teacher's padding
    bias = torch.linspace(-2, 3, 17, dtype=torch.float64).requires_grad_() if biased else None
    inputs = [x for x in (hidden.requires_grad_(), weight.requires_grad_(), bias) if x is not None]
    fn, padded_fn = (_loss_fn(t, token_weights, *case) for t in (teacher[:, :entries], padded))
    head = {"bias": bias, "logit_scale": scale, "softcap": softcap, "padding": range(entries or 17, 17)}
    loss, outputs = projected_loss(hidden, weight, padded_fn, chunk_tokens=chunk, temperature=0.7, **head)
    logits = scale * (hidden @ weight.T + (bias if biased else 0))
    logits = ((logits if softcap is None else softcap * torch.tanh(logits / softcap)) / 0.7)[:, :entries]
    expected, plain = fn(logits, slice(0, n))
    torch.testing.assert_close((loss, outputs), (expected, plain), rtol=1e-9, atol=1e-11, check_stride=False)
    gradients = (torch.autograd.grad(2.0 * x, inputs) for x in (loss, expected))
    torch.testing.assert_close(*gradients, rtol=1e-8, atol=1e-11)
    found = project(hidden, weight, 0.7, **head)
    torch.testing.assert_close(found[:, :entries], logits.detach())
    assert entries is None or (found[:, entries:] == -1e30).all()


def test_a_heads_gradient_is_accumulated_in_float32_for_bfloat16():
    """512 chunks that each add 1 to a sum: bfloat16 would stop counting at 256."""
    hidden = torch.ones(512, 1, dtype=torch.bfloat16)
    weight = torch.zeros(3, 1, dtype=torch.bfloat16, requires_grad=True)
    bias = torch.zeros(3, dtype=torch.bfloat16, requires_grad=True)
    loss, _ = projected_loss(hidden, weight, lambda logits, rows: (logits.sum(), {}), chunk_tokens=1, bias=bias)
    loss.backward()
    assert weight.grad.flatten().tolist() == bias.grad.tolist() == [512.0] * 3


@pytest.mark.parametrize("hidden_grad", [True, False])
@pytest.mark.parametrize("weight_grad", [True, False])
def test_only_what_requires_a_gradient_gets_one(hidden_grad, weight_grad):
    hidden, weight, teacher, token_weights = _problem(7, 3, 11)
    hidden.requires_grad_(hidden_grad), weight.requires_grad_(weight_grad)
    loss, _ = projected_loss(hidden, weight, _loss_fn(teacher, token_weights, 1.0, None), chunk_tokens=2)
    expected = _plain(hidden, weight, teacher, token_weights, 1.0, None)
    torch.testing.assert_close(loss.detach(), expected[0])
    assert loss.requires_grad == (hidden_grad or weight_grad)
    if loss.requires_grad:
        loss.backward()
    for tensor, wanted, gradient in ((hidden, hidden_grad, expected[1]), (weight, weight_grad, expected[2])):
        if wanted:
            torch.testing.assert_close(tensor.grad, gradient)
        else:
            assert tensor.grad is None


def test_no_grad_gives_the_same_loss_and_builds_no_graph():
    hidden, weight, teacher, token_weights = _problem(7, 3, 11)
    hidden.requires_grad_(), weight.requires_grad_()
    seen = []

    def fn(logits, rows):
        seen.append(logits.requires_grad)
        return _loss_fn(teacher, token_weights, 1.0, None)(logits, rows)

    with torch.no_grad():
        loss, _ = projected_loss(hidden, weight, fn, chunk_tokens=2)
    assert not loss.requires_grad and not any(seen)
    torch.testing.assert_close(loss, _plain(hidden, weight, teacher, token_weights, 1.0, None)[0])


@pytest.mark.parametrize("use_reentrant", [None, True, False], ids=["plain", "reentrant", "non-reentrant"])
def test_tied_embedding_under_gradient_checkpointing(use_reentrant):
    torch.manual_seed(0)
    _, _, teacher, token_weights = _problem(9, 1, 17)
    embedding = torch.nn.Parameter(torch.randn(17, 5, dtype=torch.float64))
    layer = torch.nn.Linear(5, 5, dtype=torch.float64)
    tokens = torch.randint(17, (9,))

    def body(x):
        return torch.tanh(layer(x)) * 3

    def gradients(loss_of):
        embedding.grad = layer.weight.grad = None
        hidden = F.embedding(tokens, embedding)
        hidden = body(hidden) if use_reentrant is None else checkpoint(body, hidden, use_reentrant=use_reentrant)
        loss_of(hidden).backward()
        return embedding.grad.clone(), layer.weight.grad.clone()

    fn = _loss_fn(teacher, token_weights, 0.5, None)
    found = gradients(lambda hidden: projected_loss(hidden, embedding, fn, chunk_tokens=4)[0])
    expected = gradients(lambda hidden: fn(hidden @ embedding.T, slice(0, 9))[0])
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("use_reentrant", [True, False])
def test_the_loss_itself_may_be_checkpointed(use_reentrant):
    hidden, weight, teacher, token_weights = _problem(9, 3, 17)
    hidden.requires_grad_(), weight.requires_grad_()
    fn = _loss_fn(teacher, token_weights, 1.0, None)
    loss = checkpoint(lambda x: projected_loss(x, weight, fn, chunk_tokens=4)[0], hidden, use_reentrant=use_reentrant)
    loss.backward()
    expected = _plain(hidden, weight, teacher, token_weights, 1.0, None)
    torch.testing.assert_close(hidden.grad, expected[1])
    torch.testing.assert_close(weight.grad, expected[2])


def test_gradients_accumulate_over_micro_batches():
    hidden, weight, teacher, token_weights = _problem(11, 3, 17)
    hidden.requires_grad_(), weight.requires_grad_()
    for part in (slice(0, 4), slice(4, 4), slice(4, 11)):
        fn = _loss_fn(teacher[part], token_weights[part], 1.0, 4)
        projected_loss(hidden[part], weight, fn, chunk_tokens=3)[0].backward()
    expected = _plain(hidden, weight, teacher, token_weights, 1.0, 4)
    torch.testing.assert_close(hidden.grad, expected[1])
    torch.testing.assert_close(weight.grad, expected[2])


def test_a_loss_that_ignores_the_logits_has_zero_gradient():
    hidden, weight, *_ = _problem(5, 3, 7)
    hidden.requires_grad_(), weight.requires_grad_()
    loss, _ = projected_loss(hidden, weight, lambda logits, rows: (torch.tensor(1.0), {}), chunk_tokens=2)
    loss.backward()
    assert loss.item() == 3 and not hidden.grad.any() and not weight.grad.any()


def test_second_backward_is_refused_with_a_reason():
    hidden, weight, teacher, token_weights = _problem(5, 3, 7)
    hidden.requires_grad_()
    loss, _ = projected_loss(hidden, weight, _loss_fn(teacher, token_weights, 1.0, None), chunk_tokens=2)
    loss.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="differentiated twice"):
        loss.backward()


@pytest.mark.parametrize(
    "change, message",
    [
        (dict(chunk_tokens=0), "chunk_tokens is 0"),
        (dict(temperature=0.0), "temperature is 0.0"),
        (dict(hidden=torch.zeros(4, 2)), "expected"),
        (dict(hidden=torch.zeros(4, 3, dtype=torch.bfloat16)), "cast one"),
        (dict(fn=lambda logits, rows: (logits.sum(), {"a": torch.zeros(3)})), "first dimension"),
    ],
)
def test_wrong_input_is_named(change, message):
    arguments = dict(hidden=torch.zeros(4, 3), weight=torch.zeros(5, 3), fn=lambda logits, rows: (logits.sum(), {}))
    arguments |= dict(chunk_tokens=2) | change
    with pytest.raises(ValueError, match=message):
        projected_loss(**arguments)


class _LargestResult(TorchDispatchMode):
    """Remembers the size of the largest tensor that any operation creates."""

    def __init__(self):
        super().__init__()
        self.elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, (tuple, list)) else [result]:
            if isinstance(tensor, torch.Tensor):
                self.elements = max(self.elements, tensor.numel())
        return result


@pytest.mark.parametrize("alpha, top_k", DIVERGENCES)
def test_nothing_larger_than_a_chunk_of_logits_is_created(alpha, top_k):
    n, h, v, chunk = 64, 2, 101, 5
    hidden, weight, teacher, token_weights = _problem(n, h, v)
    teacher_hidden, teacher_weight = torch.randn(n, h).double(), torch.randn(v, h).double()
    hidden.requires_grad_(), weight.requires_grad_()
    rows_seen = []

    def fn(logits, rows):
        rows_seen.append(logits.shape[0])
        tokens = torch.zeros(logits.shape[0], dtype=torch.int64)
        losses = divergence(logits, teacher_hidden[rows] @ teacher_weight.T, alpha, top_k)
        losses = losses + sampled_log_probs(logits, tokens) + entropy(logits)
        return (token_weights[rows] * losses).sum(), {"losses": losses}

    with _LargestResult() as largest:
        projected_loss(hidden, weight, fn, chunk_tokens=chunk)[0].backward()
    assert max(rows_seen) == chunk and sum(rows_seen) == n
    # + 1 column: the tail's bucket.  The gradients of hidden and weight are smaller than a chunk here.
    assert largest.elements <= chunk * (v + 1) < n * v


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("learns", [True, False])
def test_a_chunk_of_logits_and_its_gradient_are_gone_when_the_next_one_is_made(learns, dtype):
    """Many chunks take what one takes, in bytes of living storages."""
    chunk, h, v = 8, 4, 4096

    def peak(chunks):
        n = chunk * chunks
        hidden, weight = torch.randn(n, h, dtype=dtype), torch.randn(v, h, dtype=dtype)
        hidden.requires_grad_(learns), weight.requires_grad_(learns)
        teacher_hidden, teacher_weight = torch.randn(n, h), torch.randn(v, h)

        def fn(logits, rows):
            losses = divergence(logits, teacher_hidden[rows] @ teacher_weight.T, 1.0)
            return losses.sum(), {"losses": losses}

        with Live() as live:
            projected_loss(hidden, weight, fn, chunk_tokens=chunk)
        return live.peak

    assert peak(4) - peak(1) < chunk * v  # a quarter of a chunk of logits


@pytest.mark.parametrize("chunk_tokens", [2, 5, 64])
def test_the_gradient_of_a_chunk_in_half_precision_does_not_outlive_its_rounding(chunk_tokens):
    """Where the products begin, only the rounded one is left."""
    hidden = torch.randn(10, 4, dtype=torch.bfloat16, requires_grad=True)
    weight = torch.randn(300, 4, dtype=torch.bfloat16, requires_grad=True)
    seen = []

    class Products(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            if func is torch.ops.aten.mm.out and args[0].dtype == torch.bfloat16:
                seen.append(any(gone() is not None for gone in wide))
            return func(*args, **(kwargs or {}))

    wide = []

    def fn(logits, rows):
        loss = (logits * logits).sum()
        logits.register_hook(lambda gradient: wide.append(weakref.ref(gradient.untyped_storage())))
        return loss, {}

    with Products():
        projected_loss(hidden, weight, fn, chunk_tokens=chunk_tokens)
    assert len(wide) == len(seen) == -(-10 // chunk_tokens) and not any(seen)
