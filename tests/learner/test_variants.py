"""The defining formula of each variant: from groups through its algorithm and the real learner, against float64."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch

from sdpo.algorithms import build_algorithm
from tests.learner.formula import MIXED, chosen, compare, dealt_rows, learned, moved
from tests.learner.tiny import ROUNDED, groups, recipe, reference_log_probs

OWN = "distillation.sampler_threshold=null"
GRADIENT = "policy_gradient.sampler_threshold=null"


def gap(teacher, student, sample) -> torch.Tensor:
    """log q − log π of the sampled tokens, a constant."""
    q = reference_log_probs(teacher, sample, prompt=sample.teacher.prompt_ids)
    return (chosen(q, sample) - chosen(reference_log_probs(student, sample), sample)).detach()


def on_policy(log_probs: torch.Tensor) -> torch.Tensor:
    """π/π_old with π_old = π: 1, with the gradient of log π."""
    return (log_probs - log_probs.detach()).exp()


def reverse_kl(p: torch.Tensor, q: torch.Tensor) -> torch.Tensor:
    return (p.exp() * (p - q)).sum(-1)


def advantages(passed: list[list[bool]]) -> list[float]:
    return [float(x) - sum(row) / len(row) for row in passed for x in row]


def test_sc_sdpo(model, start, double, tokenizer):
    """Σ w·KL(π‖q) over the tokens with w > 0, by their number; w ∝ sqrt(p(1 − p)), mean 1 over questions with w > 0."""
    settings = recipe(model, "sc-sdpo", *ROUNDED, OWN, "distillation.alpha=1")
    passed = [[True, False, False], [False, False], [True, False], [True, True]]
    samples, loss, gradient = learned(settings, start(settings), tokenizer, passed)
    # Whoever failed has feedback, who succeeded needs a sibling; without a failure or a success a question is left out.
    assert [s.teacher is not None for s in samples] == [False, True, True, False, False, False, True, False, False]
    raw = [(1 / 3 * 2 / 3) ** 0.5, 0.5]
    mean = sum(raw) / 2
    student, terms = copy.deepcopy(double), []
    for i, weight in ((1, raw[0]), (2, raw[0]), (6, raw[1])):
        q = reference_log_probs(double, samples[i], prompt=samples[i].teacher.prompt_ids).detach()
        terms.append(weight / mean * reverse_kl(reference_log_probs(student, samples[i]), q))
    compare(torch.cat(terms).mean(), student, loss, gradient)


@pytest.mark.parametrize("failures_only", [False, True])
def test_rlsd(model, start, double, tokenizer, failures_only):
    """−Σ A_t·ratio by the number of tokens, A_t = A·(1 − λ + λ·clip((q/π)^sign(A), 1 − ε, 1 + ε)), λ falling."""
    settings = recipe(
        model, "rlsd", *ROUNDED, GRADIENT, "algorithm.strength_steps=4", f"algorithm.failures_only={failures_only}"
    )
    samples, loss, gradient = learned(settings, start(settings), tokenizer, MIXED, step=3)
    assert all("print(" in tokenizer.decode(s.teacher.prompt_ids) for s in samples)
    student, terms, clipped = copy.deepcopy(double), [], []
    for s, a in zip(samples, advantages(MIXED), strict=True):
        ratio = (gap(double, double, s) * (1 if a > 0 else -1)).exp()
        clipped.append(ratio.clamp(0.8, 1.2) != ratio)
        shaped = a * (1 - 0.25 + 0.25 * ratio.clamp(0.8, 1.2)) if a < 0 or not failures_only else a
        terms.append(-shaped * on_policy(chosen(reference_log_probs(student, s), s)))
    assert 0 < torch.cat(clipped).double().mean() < 1
    compare(torch.cat(terms).mean(), student, loss, gradient)


def test_rlsds_teacher_is_asked_in_the_pass_of_the_hook_only(model, start, tokenizer):
    """Without a loss of its own it costs no second pass, but where a response is recorded."""
    settings = recipe(model, "rlsd", *ROUNDED, GRADIENT, "algorithm.strength_steps=2")
    worker, asked = start(settings), []
    answer = worker.teacher.logits

    def counted(student, run_student, told, *rest):
        asked.append(len(told[0]))
        return answer(student, run_student, told, *rest)

    worker.teacher.logits = counted
    learned(settings, worker, tokenizer, MIXED)
    assert sum(asked) == 1
    learned(settings, worker, tokenizer, MIXED, step=3)  # λ is 0
    assert sum(asked) == 1
    _, rows = dealt_rows(settings, tokenizer, groups(MIXED))
    _, outputs = worker.passes.loss([replace(rows[0], recorded=True)], record=True)
    assert {"teacher_log_probs", "top_teacher_log_probs"} <= outputs.keys()


def behind(teacher, sample, prompt) -> torch.Tensor:
    """log q of the sampled tokens behind a prompt, a constant."""
    return chosen(reference_log_probs(teacher, sample, prompt=prompt), sample).detach()


def test_cepo(model, start, double, tokenizer):
    """RLSD's form with log q(y|c⁺) − log q(y|c⁻): the solution, and the first of the siblings that failed."""
    settings = recipe(model, "cepo", *ROUNDED, GRADIENT, "algorithm.strength_steps=null")
    samples, loss, gradient = learned(settings, start(settings), tokenizer, MIXED)
    shown = [[tokenizer.decode(prompt) for prompt in s.teacher.contrasts] for s in samples]
    wrong = [1, 2, 1, 1, 0, None, None]
    assert [len(texts) for texts in shown] == [int(i is not None) for i in wrong]
    assert all(f"answer {i}" in texts[0] for texts, i in zip(shown, wrong, strict=True) if i is not None)
    student, terms, clipped = copy.deepcopy(double), [], []
    for s, a in zip(samples, advantages(MIXED), strict=True):
        factor = torch.ones(len(s.response_ids), dtype=torch.float64)
        if s.teacher.contrasts:
            contrast = behind(double, s, s.teacher.prompt_ids) - behind(double, s, s.teacher.contrasts[0])
            ratio = (contrast * (1 if a > 0 else -1)).exp()
            factor = 0.5 + 0.5 * ratio.clamp(0.8, 1.2)
            clipped.append(ratio.clamp(0.8, 1.2) != ratio)
        terms.append(-a * factor * on_policy(chosen(reference_log_probs(student, s), s)))
    assert 0 < torch.cat(clipped).double().mean() < 1
    compare(torch.cat(terms).mean(), student, loss, gradient)


def test_rlcsd(model, start, double, tokenizer):
    """Two means, over tokens with ρ = 0 and over the others, of −max(A + ρ, 0)·ratio (A > 0; < 0 likewise)."""
    passed = [[True, False, False, True], [True, False], [True, True]]
    settings = recipe(
        model, "rlcsd", *ROUNDED, GRADIENT, "algorithm.largest_addition=2", "algorithm.contrast_scale=0.1",
        "algorithm.smallest_addition=0.3", "algorithm.changed_weight=2",
    )  # fmt: skip
    samples, loss, gradient = learned(settings, start(settings), tokenizer, passed)
    # Nobody else succeeded, nobody else failed; and the last group is left out.
    assert [s.teacher and len(s.teacher.contrasts) for s in samples[:6]] == [2, 1, 1, 2, None, 0]
    assert all(s.advantages is None for s in samples[6:])
    student, same, other, held = copy.deepcopy(double), [], [], 0
    for s, a in zip(samples[:6], advantages(passed), strict=False):
        rho = torch.zeros(len(s.response_ids), dtype=torch.float64)
        if s.teacher is not None and s.teacher.contrasts:
            wrong = torch.stack([behind(double, s, prompt).exp() for prompt in s.teacher.contrasts]).mean(0)
            rho = 2 * torch.tanh((behind(double, s, s.teacher.prompt_ids) - wrong.log()) / 0.1)
            rho = torch.where(rho.abs() > 0.3, rho, 0.0)
        new = (a + rho).clamp(min=0) if a > 0 else (a + rho).clamp(max=0)
        held += int((new == 0).sum())
        terms = -new * on_policy(chosen(reference_log_probs(student, s), s))
        same.append(terms[rho == 0])
        other.append(terms[rho != 0])
    assert held and min(len(torch.cat(same)), len(torch.cat(other))) > 2
    compare(torch.cat(same).mean() + 2 * torch.cat(other).mean(), student, loss, gradient)


@pytest.mark.parametrize("positive_only", [True, False])
def test_sdpg(model, start, double, tokenizer, positive_only):
    """PG with A/std, β·KL(π‖q) where A > 0, α·½(log π − log π_ref)², all by the number of all tokens."""
    settings = recipe(
        model, "sdpg", *ROUNDED, OWN, GRADIENT, "distillation.coefficient=0.5", "reference.coefficient=0.25",
        "learner.lr=3e-3", f"algorithm.positive_only={positive_only}",
    )  # fmt: skip
    worker = start(settings)
    student = moved(settings, worker, tokenizer, MIXED, copy.deepcopy(double))  # away from the reference
    samples, loss, gradient = learned(settings, worker, tokenizer, MIXED)
    terms = []
    for s, a in zip(samples, advantages(MIXED), strict=True):
        a = a / ((1 / 3) ** 0.5 + 1e-6) if a else 0.0  # [1, 0, 0]: sample variance 1/3
        p = reference_log_probs(student, s)
        initial = chosen(reference_log_probs(double, s), s).detach()
        term = -a * on_policy(chosen(p, s)) + 0.25 * (chosen(p, s) - initial).square() / 2
        assert (s.teacher is not None) == (a > 0 or not positive_only)
        if s.teacher is not None:
            q = reference_log_probs(student, s, prompt=s.teacher.prompt_ids).detach()
            term = term + 0.5 * reverse_kl(p, q)
        terms.append(term)
    compare(torch.cat(terms).mean(), student, loss, gradient)


def test_sdar(model, start, double, tokenizer):
    """Mean of −A·ratio, and λ·mean of σ(β·(log q − log π))·(log π − log q)·log π, all factors of log π constant."""
    settings = recipe(
        model, "sdar", *ROUNDED, OWN, GRADIENT, "distillation.coefficient=0.5", "reference=null",
        "context.feedback=never",
    )  # fmt: skip
    samples, loss, gradient = learned(settings, start(settings), tokenizer, MIXED)
    student, gains, gated = copy.deepcopy(double), [], []
    for s, a in zip(samples, advantages(MIXED), strict=True):
        own = chosen(reference_log_probs(student, s), s)
        gains.append(a * on_policy(own))
        if s.teacher is not None:
            difference = gap(double, double, s)
            gated.append(torch.sigmoid(5 * difference) * -difference * own)
    assert len(gated) == 4  # two failures beside a success, two successes beside each other
    compare(0.5 * torch.cat(gated).mean() - torch.cat(gains).mean(), student, loss, gradient)


def test_sd_zero(model, start, double, tokenizer):
    """Mean of KL(π‖q) over all responses, q behind the response itself and what it was worth."""
    settings = recipe(
        model, "sd-zero", *ROUNDED, OWN, "context.max_reprompt_tokens=2608", "algorithm.right=Good.",
        "algorithm.wrong=Bad.",
    )  # fmt: skip
    samples, loss, gradient = learned(settings, start(settings), tokenizer, MIXED)
    student, terms = copy.deepcopy(double), []
    for s, right in zip(samples, sum(MIXED, []), strict=True):
        said = tokenizer.encode(
            f"<|im_end|>\n<|im_start|>user\n{'Good.' if right else 'Bad.'}<|im_end|>\n<|im_start|>assistant\n",
            add_special_tokens=False,
        )
        q = reference_log_probs(double, s, prompt=(*s.prompt_ids, *s.response_ids, *said)).detach()
        terms.append(reverse_kl(reference_log_probs(student, s), q))
    compare(torch.cat(terms).mean(), student, loss, gradient)


def test_drift(model, start, double, tokenizer):
    """Σ w_d·KL(π‖q) over failures with a teacher − Σ w_pg·A·ratio over successes and the rest, by all their tokens."""
    settings = recipe(
        model, "drift", *ROUNDED, OWN, GRADIENT, "distillation.alpha=1", "context.feedback=never",
        "algorithm.warmup_batches=0",
    )  # fmt: skip
    made = groups(MIXED)
    made = [replace(g, task=replace(g.task, id=str(i))) for i, g in enumerate(made)]
    samples, loss, gradient = learned(settings, start(settings), tokenizer, made)
    student, terms = copy.deepcopy(double), []
    order = [(n, right) for n, row in enumerate(MIXED) for right in row]
    for s, (n, right), a in zip(samples, order, advantages(MIXED), strict=True):
        solved, count = sum(MIXED[n]), len(MIXED[n])
        sure = count / (count + 8)
        p = torch.tensor(sure * (solved + 1) / (count + 2) + (1 - sure) / 2, dtype=torch.float64)
        h, e = torch.sigmoid((0.3 - p) / 0.08), torch.sigmoid((p - 0.7) / 0.08)
        h, m, e = torch.stack([h, (1 - h) * (1 - e), e]) / (1 + h * e)
        log_probs = reference_log_probs(student, s)
        if right or s.teacher is None:
            weight = 0.3 * h + m + 0.05 * e if right else 1.0
            terms.append(-weight * a * on_policy(chosen(log_probs, s)))
        else:
            q = reference_log_probs(double, s, prompt=s.teacher.prompt_ids).detach()
            terms.append((h + 0.35 * e) * reverse_kl(log_probs, q))
    assert [s.teacher is not None for s in samples] == [False, True, True, False, False, False, False]
    compare(torch.cat(terms).mean(), student, loss, gradient)


@pytest.mark.parametrize("kind", ["ema", "live"])
def test_demopsd(model, start, double, tokenizer, kind):
    """Mean of KL(π‖target), target ∝ q^(1−α)·q̄^α, α = α_max·(2σ(β·JSD(q̄, q)) − 1), q̄ the teacher without a hint."""
    rate = ["teacher.rate=0.25"] if kind == "ema" else []
    settings = recipe(
        model, "demopsd", *ROUNDED, OWN, "distillation.alpha=1", "distillation.blend={largest: 0.6, beta: 8}",
        "context.feedback=never", "learner.lr=3e-3", f"teacher.kind={kind}",
        *(rate or ["teacher.rate=null", "teacher.clock=null"]),
    )  # fmt: skip
    worker = start(settings)
    student = moved(settings, worker, tokenizer, MIXED, copy.deepcopy(double))
    teacher = copy.deepcopy(student)
    if kind == "ema":
        with torch.no_grad():
            for theirs, initial in zip(teacher.parameters(), double.parameters(), strict=True):
                theirs.mul_(0.25).add_(0.75 * initial)
    samples, loss, gradient = learned(settings, worker, tokenizer, MIXED)
    terms, shifts = [], []
    for s in samples:
        if s.teacher is None:
            continue
        p, untold = reference_log_probs(student, s), reference_log_probs(teacher, s).detach()
        q = reference_log_probs(teacher, s, prompt=s.teacher.prompt_ids).detach()
        middle = ((q.exp() + untold.exp()) / 2).log()
        distance = (reverse_kl(q, middle) + reverse_kl(untold, middle)) / 2
        shift = 0.6 * (2 * torch.sigmoid(8 * distance) - 1)
        shifts.append(shift)
        target = ((1 - shift)[:, None] * q + shift[:, None] * untold).log_softmax(-1)
        terms.append(reverse_kl(p, target))
    assert torch.cat(shifts).max() > 0.05
    compare(torch.cat(terms).mean(), student, loss, gradient)


def test_a_prefix(model, start, double, tokenizer):
    """The mean of KL(π‖q) over the first four tokens of each response; the others count in no mean."""
    settings = recipe(
        model, "sdpo", *ROUNDED, OWN, "distillation.alpha=1", "distillation.prefix_tokens=4", "context.feedback=never"
    )
    samples, loss, gradient = learned(settings, start(settings), tokenizer, MIXED)
    student, terms = copy.deepcopy(double), []
    taught = [s for s in samples if s.teacher is not None]
    for s in taught:
        q = reference_log_probs(double, s, prompt=s.teacher.prompt_ids).detach()
        terms.append(reverse_kl(reference_log_probs(student, s), q)[:4])
    assert min(len(s.response_ids) for s in taught) < 4 < max(len(s.response_ids) for s in taught)
    compare(torch.cat(terms).mean(), student, loss, gradient)


def test_rft(model, start, double, tokenizer):
    """Mean of −log π over the tokens of the responses that solved their task."""
    settings = recipe(model, "rft")
    samples, loss, gradient = learned(settings, start(settings), tokenizer, MIXED)
    student = copy.deepcopy(double)
    kept = [s for s, right in zip(samples, sum(MIXED, []), strict=True) if right]
    wanted = -torch.cat([chosen(reference_log_probs(student, s), s) for s in kept]).mean()
    compare(wanted, student, loss, gradient)


def test_ssd(model, start, double, tokenizer):
    """Mean of −log π at temperature 1, whatever the samples' was, over responses of two lines and more."""
    settings = recipe(model, "ssd", "learner.updates_per_batch=1")
    assert settings.rollout.temperature == 1.5 and not build_algorithm(settings).needs_rewards
    texts = ["one\ntwo", "one line", "  \n ", "a\nb\nc"]
    made = groups([[False]] * len(texts))
    made = [
        replace(g, rollouts=(replace(g.rollouts[0], turns=(replace(g.rollouts[0].last, text=text, outcome=None),)),))
        for g, text in zip(made, texts, strict=True)
    ]
    samples, loss, gradient = learned(settings, start(settings), tokenizer, made)
    assert [s.advantages is not None for s in samples] == [True, False, False, True]
    student = copy.deepcopy(double)
    wanted = -torch.cat([chosen(reference_log_probs(student, samples[i]), samples[i]) for i in (0, 3)]).mean()
    compare(wanted, student, loss, gradient)
