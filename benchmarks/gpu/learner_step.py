"""One learner step on a GPU, SDPO beside GRPO, with random weights of the Qwen3-0.6B, 1.7B and 8B configurations.

    python -m benchmarks.gpu.learner_step --model 8B        # from the repository's root

Needs torch, triton and transformers.  Prompts of 2,048 tokens, and responses whose lengths are quantiles of a
log-normal distribution (median 2,000, at most 8,192); the teacher's prompt also holds another response.  bfloat16,
gradient checkpointing, one sequence per micro-batch; the losses are the project's.  The optimiser is left out of all
sides: it is the same in all, and 8 B parameters with their moments do not fit on one device.  The teacher is a second
set of weights, as a moving average is.

Beside it the same batch as others train on it (`benchmarks.gpu.padded_step`): by TRL's own trainers where TRL can be
imported, else in plain transformers; the rows of the table say by which.
"""

from __future__ import annotations

import sys
from types import SimpleNamespace

import torch
from transformers import Qwen3Config, Qwen3ForCausalLM

from benchmarks.common import Record, extra_packages, interleave, median_ratio, medians, parser
from benchmarks.gpu import padded_step
from benchmarks.gpu.device import choose, matmul_limit, measure
from sdpo.learner.arithmetic import rows as row_by_row
from sdpo.learner.arithmetic import step_flops
from sdpo.losses.chunked import projected_loss
from sdpo.losses.linear import linear_divergence
from sdpo.losses.policy import policy_gradient
from sdpo.losses.vocabulary import vocabulary_pass

QWEN3 = {"vocab_size": 151_936, "head_dim": 128, "num_key_value_heads": 8, "max_position_embeddings": 40_960}
MODELS = {
    "0.6B": QWEN3
    | {
        "hidden_size": 1024,
        "intermediate_size": 3072,
        "num_hidden_layers": 28,
        "num_attention_heads": 16,
        "tie_word_embeddings": True,
    },
    "1.7B": QWEN3
    | {
        "hidden_size": 2048,
        "intermediate_size": 6144,
        "num_hidden_layers": 28,
        "num_attention_heads": 16,
        "tie_word_embeddings": True,
    },
    "8B": QWEN3
    | {
        "hidden_size": 4096,
        "intermediate_size": 12_288,
        "num_hidden_layers": 36,
        "num_attention_heads": 32,
        "tie_word_embeddings": False,
    },
    "tiny": QWEN3
    | {
        "vocab_size": 512,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 8,
        "tie_word_embeddings": True,
    },
}
TIME_BOUND, MEMORY_BOUND = 1.1, 1.1  # of the counted ratio; of GRPO's peak, beyond the teacher's own weights


def main() -> int:
    options = parser(__doc__, repeats=5)
    options.add_argument("--model", choices=("0.6B", "1.7B", "8B"), default="0.6B")
    options.add_argument("--sequences", type=int, default=8, help="responses per step")
    options.add_argument("--chunk-tokens", type=int, default=1024)
    args = options.parse_args()
    extra_packages()
    device, name = choose(args), "tiny" if args.small else args.model
    record = Record(f"gpu.learner_step_{name}", args)
    limit = matmul_limit(device, 256 if args.small else 8192)
    torch.manual_seed(0)
    config = Qwen3Config(**MODELS[name])
    student, teacher = (_model(config, device) for _ in range(2))
    student.gradient_checkpointing_enable({"use_reentrant": False})
    student.train()
    teacher.requires_grad_(False).eval()
    for parameter in student.parameters():  # gradients exist from the start, as between micro-batches
        parameter.grad = torch.zeros_like(parameter)
    prompt, longest = (10, 40) if args.small else (2048, 8192)
    lengths = response_lengths(args.sequences, longest)
    demonstrations = [prompt + length for length in (*lengths[1:], lengths[0])]
    batch = [
        _sequence(config, SimpleNamespace(prompt=prompt, response=own, teacher_prompt=told), device)
        for own, told in zip(lengths, demonstrations, strict=True)
    ]
    sides = {
        "SDPO": lambda: _step(student, batch, args.chunk_tokens, teacher),
        "GRPO": lambda: _step(student, batch, args.chunk_tokens, None),
    }
    for work in sides.values():
        work()
    samples = interleave({n: lambda work=work: measure(device, work) for n, work in sides.items()}, args.repeats)
    own = row_by_row((prompt, length) for length in lengths)
    theirs = row_by_row(zip(demonstrations, lengths, strict=True))
    counted = {
        "SDPO": step_flops(config, own, theirs, checkpointing=True),
        "GRPO": step_flops(config, own, checkpointing=True),
    }
    predicted = counted["SDPO"]["total"] / counted["GRPO"]["total"]
    ratio, middle = median_ratio(samples, "SDPO", "GRPO"), medians(samples)
    peak = {n: middle[n]["peak_bytes"] + _bytes(student) * 2 for n in sides}  # weights and gradients
    memory = peak["SDPO"] / peak["GRPO"]
    others, lacking = padded_step.samples(student, teacher, batch, args.repeats, device)
    middle |= medians(others)
    peak |= {n: middle[n]["peak_bytes"] + _bytes(student) for n in others}  # gradients come within the step
    rows = [["SDPO ÷ GRPO", f"{predicted:.3f}", f"{ratio:.3f}", "", f"{memory:.3f}"]]
    for n in (*sides, *others):
        flops = counted[n.rpartition(" ")[2]]["total"]
        spent = f"{middle[n]['seconds']:.3f}", f"{flops / middle[n]['seconds'] / limit:.0%}", f"{peak[n] / 2**30:.2f}"
        rows.insert(-1, [n, f"{flops / 1e12:.1f}", *spent])
    rows += [[n, "", "out of memory", "", ""] for n in lacking]
    record.finish(
        ["step", "counted TFLOP", "seconds", "of the limit", "peak GiB"],
        rows,
        [
            f"Qwen3-{name}, random weights; {args.sequences} responses of {min(lengths):,} to {max(lengths):,} tokens, "
            f"{sum(lengths):,} together; prompts of {prompt:,}, the teacher's of {min(demonstrations):,} to "
            f"{max(demonstrations):,}. Limit: {limit / 1e12:.1f} TFLOP/s. Counted is what has to be computed, without "
            "padding.",
            f"Measured ÷ counted: {ratio / predicted:.3f} (bound {TIME_BOUND:g}). Peak: weights, gradients, the rest, "
            f"without the teacher's {_bytes(teacher) / 2**30:.2f} GiB of weights (bound {MEMORY_BOUND:g}).",
        ],
        counted=counted,
        other=padded_step.name(),
        response_lengths=lengths,
        predicted_ratio=predicted,
        measured_ratio=ratio,
        samples=samples | others,
        matmul_limit_flops=limit,
        bounds_met={"time": ratio <= TIME_BOUND * predicted, "memory": memory <= MEMORY_BOUND},
    )
    return 0


def response_lengths(count: int, longest: int) -> list[int]:
    """Quantiles of a log-normal distribution, σ = 1, whose median is about a quarter of the longest."""
    quantiles = (torch.arange(count, dtype=torch.float64) + 0.5) / count
    lengths = longest * 2000 / 8192 * torch.special.ndtri(quantiles).exp()
    return lengths.clamp(2, longest).long().tolist()


def _model(config: Qwen3Config, device: torch.device) -> Qwen3ForCausalLM:
    with torch.device(device):
        torch.set_default_dtype(torch.bfloat16)
        try:
            return Qwen3ForCausalLM._from_config(config, attn_implementation="sdpa")
        finally:
            torch.set_default_dtype(torch.float32)


def _bytes(model: torch.nn.Module) -> int:
    return sum(p.numel() * p.element_size() for p in model.parameters())


def _sequence(config: Qwen3Config, lengths: SimpleNamespace, device: torch.device) -> SimpleNamespace:
    def tokens(count: int) -> torch.Tensor:
        return torch.randint(config.vocab_size, (1, count), device=device)

    return SimpleNamespace(
        prompt=tokens(lengths.prompt), teacher_prompt=tokens(lengths.teacher_prompt), response=tokens(lengths.response)
    )


def _hidden(model: Qwen3ForCausalLM, prompt: torch.Tensor, response: torch.Tensor) -> torch.Tensor:
    """[R, H]: the last hidden states that predict the response's tokens."""
    states = model.model(input_ids=torch.cat([prompt, response], 1), use_cache=False).last_hidden_state
    return states[0, prompt.shape[1] - 1 : -1]


def _step(student, batch: list[SimpleNamespace], chunk_tokens: int, teacher) -> None:
    """Forward and backward over all sequences: the divergence to the teacher, or without one a policy gradient."""
    for sequence in batch:
        tokens = sequence.response[0]
        weights = torch.full((len(tokens),), 1 / (len(batch) * len(tokens)), device=tokens.device)
        if teacher is None:
            loss = _policy_gradient(
                _hidden(student, sequence.prompt, sequence.response), student, tokens, weights, chunk_tokens
            )
        else:
            with torch.no_grad():
                theirs = _hidden(teacher, sequence.teacher_prompt, sequence.response)
            own = _hidden(student, sequence.prompt, sequence.response)
            inputs = own, student.lm_head.weight, theirs, teacher.lm_head.weight, weights
            loss = linear_divergence(*inputs, alpha=1.0, chunk_tokens=chunk_tokens, tokens=tokens)[0]
        loss.backward()


def _policy_gradient(hidden, student, tokens, weights, chunk_tokens: int) -> torch.Tensor:
    def loss(logits: torch.Tensor, rows: slice):
        log_probs = vocabulary_pass(logits, tokens[rows]).log_probs
        losses = policy_gradient(log_probs, None, torch.ones_like(log_probs))
        return (losses * weights[rows]).sum(), {"log_probs": log_probs}

    return projected_loss(hidden, student.lm_head.weight, loss, chunk_tokens=chunk_tokens)[0]


if __name__ == "__main__":
    sys.exit(main())
