"""Packed attention on a GPU: PyTorch's scaled dot products in padded batches beside FlashAttention without padding,
and FlexAttention, which has neither padding nor copies of shared keys.

    python -m benchmarks.gpu.attention        # from the repository's root

Forward and backward of one layer, bfloat16, heads of Qwen3-8B.  A pack holds one group: a shared prompt and the
responses that continue it.  The error is that of the values against the same formula in float32 with a mask.
"""

from __future__ import annotations

import sys

import torch

from benchmarks.common import Record, interleave, median_ratio, medians, parser
from benchmarks.gpu.device import choose, measure
from sdpo.learner import attention
from sdpo.learner.packing import SharedPrefix

HEADS, KEY_HEADS, SIZE = 32, 8, 128
PACKS = {
    "8 responses of 2,000": SharedPrefix(1000, (2000,) * 8),
    "8 of 100 to 4,000": SharedPrefix(1000, (100, 300, 700, 1100, 1500, 2000, 3000, 4000)),
    "7 of 1,500, one of 8,192": SharedPrefix(1000, (8192, *(1500,) * 7)),
    "8 of 2,000, nothing shared": SharedPrefix(0, (2000,) * 8),
}
SMALL = {"small": SharedPrefix(20, (7, 31, 2))}
CHECKED = SharedPrefix(100, (37, 250, 1, 3))
PADDED, VARLEN, BLOCKS = "sdpa", "flash_attention_2", "flex_attention"
FORMS = {PADDED: attention._sdpa, VARLEN: attention._flash, BLOCKS: attention._flex}


def main() -> int:
    args = parser(__doc__, repeats=7).parse_args()
    device = choose(args)
    forms = FORMS if device.type == "cuda" else {PADDED: FORMS[PADDED]}
    record = Record("gpu.attention", args)
    errors = {name: _error(form, device) for name, form in forms.items()}
    rows, values = [], {}
    for title, group in (SMALL if args.small else PACKS).items():
        inputs = _inputs(group, device)
        sides = {n: lambda f=form, i=inputs, g=group: _one(f, i, g, device) for n, form in forms.items()}
        for work in sides.values():
            work()
        samples = interleave(sides, args.repeats)
        middle = medians(samples)
        for name in forms:
            ratio = median_ratio(samples, name, PADDED)
            memory = middle[name]["peak_bytes"] / max(1, middle[PADDED]["peak_bytes"])
            mebibytes = middle[name]["peak_bytes"] / 2**20
            cells = f"{1000 * middle[name]['seconds']:.2f}", f"{ratio:.2f}", f"{mebibytes:,.0f}"
            rows.append([f"{title}: {name}", *cells, f"{memory:.2f}", f"{errors[name]:.0e}"])
        values[title] = samples
    record.finish(
        ["pack and form", "ms", "÷ sdpa", "peak MiB", "÷ sdpa", "relative error"],
        rows,
        [f"{HEADS} heads of {SIZE}, {KEY_HEADS} of keys; prompts of 1,000 tokens; forward and backward of one layer."],
        samples=values,
        relative_error=errors,
    )
    return 0


def _inputs(group: SharedPrefix, device: torch.device, dtype: torch.dtype = torch.bfloat16) -> list[torch.Tensor]:
    generator = torch.Generator(device).manual_seed(0)
    shapes = [(1, heads, group.length, SIZE) for heads in (HEADS, KEY_HEADS, KEY_HEADS)]
    return [torch.randn(s, generator=generator, device=device, dtype=dtype).requires_grad_() for s in shapes]


def _one(form, inputs: list[torch.Tensor], group: SharedPrefix, device: torch.device) -> dict[str, float]:
    def work() -> None:
        output, _ = form(None, *inputs, None, groups=(group,))
        output.backward(output.detach())

    spent = measure(device, work)
    for x in inputs:
        x.grad = None
    return spent


def _error(form, device: torch.device) -> float:
    """‖found − wanted‖ ÷ ‖wanted‖ over the values and all gradients, the worst of the four."""
    found, wanted = (_values(f, device, t) for f, t in ((form, torch.bfloat16), (attention._masked, torch.float32)))
    return max(float((a.float() - b).norm() / b.norm()) for a, b in zip(found, wanted, strict=True))


def _values(form, device: torch.device, dtype: torch.dtype) -> list[torch.Tensor]:
    inputs = [x.detach().to(dtype).requires_grad_() for x in _inputs(CHECKED, device)]
    output, _ = form(None, *inputs, None, groups=(CHECKED,))
    direction = torch.randn(output.shape, generator=torch.Generator(device).manual_seed(1), device=device)
    output.backward(direction.to(dtype))
    return [output.detach(), *(x.grad for x in inputs)]


if __name__ == "__main__":
    sys.exit(main())
