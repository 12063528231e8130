"""Time, peak memory and error of the fused projection + divergence, beside full logits, top-K as released, and Liger.

    python -m benchmarks.linear_divergence            # hidden 1024, vocabulary 151,936, 1,024 tokens: needs 9 GB
    python -m benchmarks.linear_divergence --small    # seconds

Every side goes from the hidden states and output matrices of student and teacher to the loss and the gradients of the
student's two, each time in a fresh process.  Memory is the peak of the resident set beyond inputs and gradients
(VmHWM, Linux).  The error is that of loss and gradients in float32 against the same formula in float64.
"""

from __future__ import annotations

import argparse
import json
import sys

from benchmarks.common import Record, extra_packages, in_fresh_process, interleave, median_ratio, medians, parser, timed
from benchmarks.memory import MIB, reset_peak, resident

SIZES = {
    "full": {"tokens": 1024, "hidden": 1024, "vocabulary": 151_936},
    "small": {"tokens": 64, "hidden": 32, "vocabulary": 4_001},
}
MEMORY_BOUND, TIME_BOUND = 1 / 8, 1.0  # of full logits'
ERROR_TOKENS = 32  # float64 costs twice the memory


def main() -> int:
    options = parser(__doc__, repeats=5)
    options.add_argument("--alpha", type=float, default=1.0, help="0 forward KL, 1 reverse KL, between Jensen-Shannon")
    options.add_argument("--chunk-tokens", type=int, help="default: an eighth of the tokens")
    options.add_argument("--threads", type=int, default=2)
    options.add_argument("--tokens", type=int, help="another number of tokens")
    options.add_argument("--only", action="append", help="measure this side; may be given several times")
    options.add_argument("--side", help=argparse.SUPPRESS)
    args = options.parse_args()
    size = SIZES["small" if args.small else "full"]
    if args.tokens:
        size = size | {"tokens": args.tokens}
    settings = {"alpha": args.alpha, "chunk_tokens": args.chunk_tokens or size["tokens"] // 8, "threads": args.threads}
    if args.side:
        print(json.dumps(_measure(args.side, size, **settings)))
        return 0
    _compare(Record("linear_divergence", args), size, settings, args)
    return 0


def _compare(record: Record, size: dict[str, int], settings: dict, args: argparse.Namespace) -> None:
    from benchmarks.divergence_sides import OURS, PLAIN, SIDES

    extra_packages()  # for the record of their versions
    names = [name for name in SIDES if args.only is None or name in (*args.only, OURS, PLAIN)]

    def side(name: str) -> dict[str, float]:
        return in_fresh_process("linear_divergence", "--side", name, *sys.argv[1:])

    refused = {name: r for name in names if (r := _reason(side, name))}
    running = [name for name in names if name not in refused]
    samples = interleave({name: lambda name=name: side(name) for name in running}, args.repeats)
    errors = {name: side(f"error of {name}") for name in running}
    middle = medians(samples)
    rows = []
    for name in names:
        if name in refused:
            rows.append([name, "does not run", "", "", "", ""])
            continue
        m, plain = middle[name], middle[PLAIN]
        rows.append(
            [
                name,
                f"{m['seconds']:.2f}",
                f"{median_ratio(samples, name, PLAIN):.2f}",
                f"{m['peak_bytes'] / MIB:,.0f}",
                f"{m['peak_bytes'] / plain['peak_bytes']:.3f}",
                f"{max(errors[name].values()):.0e}",
            ]
        )
    time = median_ratio(samples, OURS, PLAIN)
    memory = middle[OURS]["peak_bytes"] / middle[PLAIN]["peak_bytes"]
    record.finish(
        ["side", "seconds", "÷ full logits", "peak MiB", "÷ full logits", "relative error"],
        rows,
        [
            f"{size['tokens']:,} tokens, hidden {size['hidden']:,}, vocabulary {size['vocabulary']:,}, "
            f"alpha {settings['alpha']:g}, chunks of {settings['chunk_tokens']} tokens, float32, {settings['threads']} "
            "threads.",
            f"linear_divergence: {memory:.3f} of full logits' memory (bound {MEMORY_BOUND:g}), {time:.2f} of its time "
            f"(bound {TIME_BOUND:g}; by processor time {median_ratio(samples, OURS, PLAIN, 'processor_seconds'):.2f}).",
            *(f"{name} does not run here: {reason}" for name, reason in refused.items()),
        ],
        size=size,
        settings=settings,
        medians=middle,
        samples=samples,
        relative_error=errors,
        refused=refused,
        memory_ratio=memory,
        time_ratio=time,
        bounds_met={"memory": memory <= MEMORY_BOUND, "time": time <= TIME_BOUND},
    )


def _reason(side, name: str) -> str | None:
    """Why a side of another project cannot run here: the last line of its traceback.  Ours must run."""
    if "Liger" not in name:
        return None
    try:
        side(f"error of {name}")
    except RuntimeError as error:
        return str(error).strip().splitlines()[-1]
    return None


def _measure(side: str, size: dict[str, int], alpha: float, chunk_tokens: int, threads: int) -> dict[str, float]:
    import torch

    from benchmarks.divergence_sides import SIDES, make_inputs, relative_errors

    torch.set_num_threads(threads)
    extra_packages()
    if side.startswith("error of "):
        tokens = min(ERROR_TOKENS, size["tokens"])
        return relative_errors(side.removeprefix("error of "), alpha, tokens // 4, size | {"tokens": tokens})
    warm = make_inputs(8 * chunk_tokens, 16, 256)  # loads libraries, compiles what is compiled
    SIDES[side](*warm, alpha, chunk_tokens).backward()
    if "Liger" in side:  # torch.compile: once more with the shapes that are measured
        inputs = make_inputs(**size)
        SIDES[side](*inputs, alpha, chunk_tokens).backward()
        del inputs
    inputs = make_inputs(**size)
    before = reset_peak()
    spent = timed(lambda: SIDES[side](*inputs, alpha, chunk_tokens).backward())
    gradients = sum(x.grad.numel() * x.grad.element_size() for x in inputs[:2])
    return spent | {"peak_bytes": resident("VmHWM") - before - gradients}


if __name__ == "__main__":
    sys.exit(main())
