"""The fused projection + divergence on a GPU, beside full logits, top-K as released, and Liger-Kernel.

    python -m benchmarks.gpu.linear_divergence        # from the repository's root

Needs torch, triton and (for its own sides) liger-kernel.  Hidden 4096, 8,192 tokens, vocabulary 151,936, bfloat16.
Memory is the peak of allocated bytes beyond inputs and gradients.  The error is against the same formula in float64.
"""

from __future__ import annotations

import argparse
import sys

import torch

from benchmarks.common import Record, extra_packages, interleave, median_ratio, medians, parser
from benchmarks.divergence_sides import OURS, PLAIN, SIDES, make_inputs, relative_errors
from benchmarks.gpu.device import choose, matmul_limit, measure

FULL = {"tokens": 8192, "hidden": 4096, "vocabulary": 151_936}
SMALL = {"tokens": 64, "hidden": 32, "vocabulary": 1003}
ERROR_TOKENS = 256
MEMORY_BOUND = 1 / 10  # of full logits'; in time: less than every other side


def main() -> int:
    options = parser(__doc__, repeats=7)
    options.add_argument("--alpha", type=float, default=1.0, help="0 forward KL, 1 reverse KL, between Jensen-Shannon")
    options.add_argument("--chunk-tokens", type=int, default=1024)
    options.add_argument("--only", action="append", help="measure this side; may be given several times")
    args = options.parse_args()
    names = [name for name in SIDES if args.only is None or name in (*args.only, OURS, PLAIN)]
    device, size = choose(args), SMALL if args.small else FULL
    record = Record("gpu.linear_divergence", args)
    extra_packages()
    limit = matmul_limit(device, 256 if args.small else 8192)
    samples, refused = _sides(names, size, args, device)
    running = list(samples)
    shape = size | {"tokens": min(ERROR_TOKENS, size["tokens"])}
    errors = {name: relative_errors(name, args.alpha, 64, shape, torch.bfloat16, device) for name in running}
    middle = medians(samples)
    flops = 8.0 * size["tokens"] * size["hidden"] * size["vocabulary"]  # two logits, two gradients
    rows = []
    for name in names:
        if name in refused:
            rows.append([name, "does not run", "", "", "", "", ""])
            continue
        m = middle[name]
        memory = m["peak_bytes"] / max(1, middle[PLAIN]["peak_bytes"])
        share = flops / m["seconds"] / limit
        time = median_ratio(samples, name, PLAIN)
        cells = f"{1000 * m['seconds']:.1f}", f"{time:.2f}", f"{share:.0%}", f"{m['peak_bytes'] / 2**20:,.0f}"
        rows.append([name, *cells, f"{memory:.3f}", f"{max(errors[name].values()):.0e}"])
    others = [middle[name]["seconds"] for name in running if "linear_divergence" not in name]
    record.finish(
        ["side", "ms", "÷ full logits", "of the limit", "peak MiB", "÷ full logits", "relative error"],
        rows,
        [
            f"{size['tokens']:,} tokens, hidden {size['hidden']:,}, vocabulary {size['vocabulary']:,}, alpha "
            f"{args.alpha:g}, chunks of {args.chunk_tokens} tokens, bfloat16. The limit is a large bfloat16 "
            f"product of the same run, {limit / 1e12:.1f} TFLOP/s; counted are two logits and two gradients.",
            *(f"{name} does not run here: {reason}" for name, reason in refused.items()),
        ],
        size=size,
        matmul_limit_flops=limit,
        medians=middle,
        samples=samples,
        relative_error=errors,
        refused=refused,
        bounds_met={
            "memory": middle[OURS]["peak_bytes"] <= MEMORY_BOUND * middle[PLAIN]["peak_bytes"],
            "time": middle[OURS]["seconds"] < min(others),
        },
    )
    return 0


def _sides(
    names: list[str], size: dict[str, int], args: argparse.Namespace, device: torch.device
) -> tuple[dict, dict[str, str]]:
    """Samples of the sides that run, and why the others do not."""
    inputs = make_inputs(**size, dtype=torch.bfloat16, device=device)

    def one(name: str) -> dict[str, float]:
        spent = measure(device, lambda: SIDES[name](*inputs, args.alpha, args.chunk_tokens).backward())
        gradients = sum(x.grad.numel() * x.grad.element_size() for x in inputs[:2])
        for x in inputs[:2]:
            x.grad = None
        return spent | {"peak_bytes": spent["peak_bytes"] - gradients}

    refused: dict[str, str] = {}
    for name in names:  # once without counting: compiles what is compiled
        try:
            one(name)
        except Exception as error:
            if "Liger" not in name:
                raise
            refused[name] = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
    sides = {name: lambda name=name: one(name) for name in names if name not in refused}
    return interleave(sides, args.repeats), refused


if __name__ == "__main__":
    sys.exit(main())
