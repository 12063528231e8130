"""The pass over the vocabulary as two Triton kernels: the statistics of a row, and its gradient.

One program works on one row of logits, block after block, so that nothing but the logits themselves is as large as
[n, V]; the gradient is written over the student's logits.  Bytes moved per entry of the vocabulary: the logits are
read twice (once without a teacher) for the statistics, and once more, with one write, for the gradient.

Importing this module needs triton; under TRITON_INTERPRET=1 it runs on the CPU.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

_MAX_BLOCK = 4096
_WARPS = 8

# Forms of the divergence, as in `sdpo.losses.divergence`.
_NONE, _FORWARD, _REVERSE, _JENSEN_SHANNON, _ADVANTAGE = (tl.constexpr(i) for i in range(5))
# Columns: the student's largest logit, logsumexp beyond it, entropy; the teacher's; loss, sum of slopes.
_STATISTICS = tl.constexpr(8)
_GRADIENTS = tl.constexpr(3)  # columns: of the loss, of the entropy, of the log-probs' sum


@triton.jit
def _normaliser(row, vocabulary, BLOCK: tl.constexpr):
    """(largest logit, logsumexp beyond it, entropy) of one row, in one pass with a running maximum.

    Apart, since the sum of the two would round off the digits that probabilities are made of.
    """
    peak = tl.load(row)
    total = tl.zeros([BLOCK], row.dtype.element_ty)  # Σ exp(z − peak)
    moment = tl.zeros([BLOCK], row.dtype.element_ty)  # Σ exp(z − peak)·(z − peak)
    for start in range(0, vocabulary, BLOCK):
        columns = start + tl.arange(0, BLOCK)
        inside = columns < vocabulary
        z = tl.load(row + columns, mask=inside, other=-float("inf"))
        higher = tl.maximum(peak, tl.max(z, 0))
        shift, peak = peak - higher, higher
        gap = tl.where(inside, z - peak, 0.0)
        mass = tl.where(inside, tl.exp(gap), 0.0)
        moment = (moment + shift * total) * tl.exp(shift) + mass * gap
        total = total * tl.exp(shift) + mass
    mass = tl.sum(total, 0)
    return peak, tl.log(mass), tl.log(mass) - tl.sum(moment, 0) / mass


@triton.jit
def _log_ratio(x, m, TINY: tl.constexpr):
    """log(x/m), a finite number where x underflows to 0.  A GPU's x/x may miss 1 by a digit."""
    return tl.where(x == m, 0.0, tl.log(tl.maximum(x / m, TINY)))


@triton.jit
def _entries(
    log_p, log_q, clip, inside,
    FORM: tl.constexpr, ALPHA: tl.constexpr, CLIPPED: tl.constexpr, TINY: tl.constexpr,
):  # fmt: skip
    """Contribution of each entry to the loss, and its slope: the derivative by log p, with q and p's mass constant.

    Where no clip acts, the KLs' slopes are shifted by p: over all entries that makes no gradient, and
    now the slope vanishes where the two agree, instead of cancelling against its sum with an error of rounding.
    """
    p, q = tl.exp(log_p), tl.exp(log_q)
    if FORM == _FORWARD:
        value, slope = q * (log_q - log_p), -q
        if not CLIPPED:
            slope += p
    elif FORM == _REVERSE:
        value = p * (log_p - log_q)
        slope = value
        if CLIPPED:
            slope += p
    elif FORM == _JENSEN_SHANNON:
        m = tl.maximum(p + ALPHA * (q - p), TINY)  # exactly p where they agree
        slope = (1 - ALPHA) * p * _log_ratio(p, m, TINY)
        value = slope + ALPHA * q * _log_ratio(q, m, TINY)
    else:
        weight = p * tl.minimum(tl.maximum(log_q - log_p, -clip), clip)
        value, slope = -weight * log_p, -weight
    if FORM != _ADVANTAGE and CLIPPED:
        slope = tl.where(value <= clip, slope, 0.0)
        value = tl.minimum(value, clip)
    return tl.where(inside, value, 0.0), tl.where(inside, slope, 0.0)


@triton.jit
def _statistics_kernel(
    student, teacher, clip, statistics, vocabulary, student_stride, teacher_stride,
    FORM: tl.constexpr, ALPHA: tl.constexpr, CLIPPED: tl.constexpr, TINY: tl.constexpr,
    BLOCK: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)  # n·V may pass 2³¹
    student += row * student_stride
    statistics += row * _STATISTICS
    student_peak, student_mass, student_entropy = _normaliser(student, vocabulary, BLOCK)
    tl.store(statistics, student_peak)
    tl.store(statistics + 1, student_mass)
    tl.store(statistics + 2, student_entropy)
    if FORM != _NONE:
        bound = tl.load(clip)
        teacher += row * teacher_stride
        teacher_peak, teacher_mass, teacher_entropy = _normaliser(teacher, vocabulary, BLOCK)
        loss = tl.zeros([BLOCK], student.dtype.element_ty)
        slopes = tl.zeros([BLOCK], student.dtype.element_ty)
        for start in range(0, vocabulary, BLOCK):
            columns = start + tl.arange(0, BLOCK)
            inside = columns < vocabulary
            log_p = tl.load(student + columns, mask=inside, other=0.0) - student_peak - student_mass
            log_q = tl.load(teacher + columns, mask=inside, other=0.0) - teacher_peak - teacher_mass
            value, slope = _entries(log_p, log_q, bound, inside, FORM, ALPHA, CLIPPED, TINY)
            loss += value
            slopes += slope
        tl.store(statistics + 3, teacher_peak)
        tl.store(statistics + 4, teacher_mass)
        tl.store(statistics + 5, teacher_entropy)
        tl.store(statistics + 6, tl.sum(loss, 0))
        tl.store(statistics + 7, tl.sum(slopes, 0))


@triton.jit
def _gradient_kernel(
    student, teacher, clip, statistics, gradients, vocabulary, student_stride, teacher_stride,
    FORM: tl.constexpr, ALPHA: tl.constexpr, CLIPPED: tl.constexpr, TINY: tl.constexpr,
    BLOCK: tl.constexpr,
):  # fmt: skip
    """student ← g_loss·(slope − p·Σ slopes) − g_entropy·p·(log p + entropy) − g_log_probs·p."""
    row = tl.program_id(0).to(tl.int64)
    student += row * student_stride
    teacher += row * teacher_stride
    statistics += row * _STATISTICS
    gradients += row * _GRADIENTS
    student_peak, student_mass, student_entropy = tl.load(statistics), tl.load(statistics + 1), tl.load(statistics + 2)
    teacher_peak, teacher_mass, slopes = tl.load(statistics + 3), tl.load(statistics + 4), tl.load(statistics + 7)
    bound = tl.load(clip)
    g_loss, g_entropy, g_log_probs = tl.load(gradients), tl.load(gradients + 1), tl.load(gradients + 2)
    for start in range(0, vocabulary, BLOCK):
        columns = start + tl.arange(0, BLOCK)
        inside = columns < vocabulary
        log_p = tl.load(student + columns, mask=inside, other=0.0) - student_peak - student_mass
        p = tl.exp(log_p)
        result = -p * (g_entropy * (log_p + student_entropy) + g_log_probs)
        if FORM != _NONE:
            log_q = tl.load(teacher + columns, mask=inside, other=0.0) - teacher_peak - teacher_mass
            _, slope = _entries(log_p, log_q, bound, inside, FORM, ALPHA, CLIPPED, TINY)
            result += g_loss * (slope - p * slopes)
        tl.store(student + columns, result, mask=inside)


def triton_pass(
    logits: Tensor,
    ids: Tensor,
    teacher: Tensor | None,
    alpha: float | None,
    entry_clip: float | None = None,
    advantage_clip: float | None = None,
) -> tuple[Tensor | None, ...]:
    """As `sdpo.losses.vocabulary.plain_pass`; the backward pass overwrites `logits` with their gradient."""
    wanted = alpha is not None
    settings = _settings(logits, alpha, entry_clip, advantage_clip)
    log_probs, entropy, losses, statistics = _Pass.apply(logits, ids, teacher if wanted else None, settings)
    if teacher is None:
        return log_probs, entropy, None, None, None
    theirs = statistics[:, 3:6] if wanted else _statistics(teacher, None, settings)[:, :3]
    return log_probs, entropy, losses if wanted else None, _log_probs(teacher, ids, theirs), theirs[:, 2]


def _log_probs(logits: Tensor, ids: Tensor, statistics: Tensor) -> Tensor:
    return logits.gather(-1, ids) - statistics[:, :1] - statistics[:, 1:2]


def _settings(
    logits: Tensor,
    alpha: float | None,
    entry_clip: float | None,
    advantage_clip: float | None,
) -> dict[str, Any]:
    if alpha is None:
        form = _NONE
    elif advantage_clip is not None:
        form = _ADVANTAGE
    else:
        form = {0.0: _FORWARD, 1.0: _REVERSE}.get(float(alpha), _JENSEN_SHANNON)
    clip = entry_clip if advantage_clip is None else advantage_clip
    constants = {
        "FORM": form.value,
        "ALPHA": float(alpha or 0.0),
        "CLIPPED": clip is not None,
        "TINY": torch.finfo(logits.dtype).tiny,
        "BLOCK": min(_MAX_BLOCK, triton.next_power_of_2(logits.shape[-1])),
    }
    # Read at run time: a clip that changes from update to update must not compile the kernels anew.
    bound = None if clip is None else logits.new_full((1,), clip)
    return {"clip": bound, "constants": constants}


def _statistics(student: Tensor, teacher: Tensor | None, settings: dict[str, Any]) -> Tensor:
    statistics = student.new_zeros(student.shape[0], _STATISTICS.value)
    constants = settings["constants"]
    if teacher is None:
        constants = constants | {"FORM": _NONE.value}
    _launch(_statistics_kernel, student, teacher, settings, (statistics,), constants)
    return statistics


def _launch(
    kernel: Any,
    student: Tensor,
    teacher: Tensor | None,
    settings: dict[str, Any],
    rest: tuple[Tensor, ...],
    constants: dict[str, Any],
) -> None:
    # pointers that are not read where there is nothing to read
    teacher, clip = (student if x is None else x for x in (teacher, settings["clip"]))
    assert student.stride(-1) == teacher.stride(-1) == 1
    rows, vocabulary = student.shape
    if rows and not student.is_meta:  # tensors that have shapes only, for counts of memory
        with torch.cuda.device_of(student):
            kernel[(rows,)](
                student, teacher, clip, *rest,
                vocabulary, student.stride(0), teacher.stride(0), **constants, num_warps=_WARPS,
            )  # fmt: skip


class _Pass(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, logits: Tensor, ids: Tensor, teacher: Tensor | None, settings: dict[str, Any]
    ) -> tuple[Tensor, ...]:
        statistics = _statistics(logits, teacher, settings)
        ctx.save_for_backward(logits, ids, teacher, statistics)
        ctx.settings = settings
        ctx.set_materialize_grads(False)
        ctx.mark_non_differentiable(statistics)
        return _log_probs(logits, ids, statistics), statistics[:, 2].clone(), statistics[:, 6].clone(), statistics

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(
        ctx: Any, g_log_probs: Tensor | None, g_entropy: Tensor | None, g_loss: Tensor | None, _statistics: Any
    ) -> tuple[Tensor | None, ...]:
        logits, ids, teacher, statistics = ctx.saved_tensors
        gradients = logits.new_zeros(logits.shape[0], _GRADIENTS.value)
        sums = None if g_log_probs is None else g_log_probs.sum(-1)
        for column, gradient in enumerate((g_loss, g_entropy, sums)):
            if gradient is not None:
                gradients[:, column] = gradient
        constants = ctx.settings["constants"]
        if g_loss is None:  # the teacher's logits need not be read
            constants = constants | {"FORM": _NONE.value}
        _launch(_gradient_kernel, logits, teacher, ctx.settings, (statistics, gradients), constants)
        if g_log_probs is not None:
            logits.scatter_add_(-1, ids, g_log_probs)
        return logits, None, None, None
