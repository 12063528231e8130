"""New weights into a running vLLM engine: in buckets, as this project publishes, beside one RPC per parameter.

A real engine (vLLM's CPU build in a Ray actor) generates all the while; its requests are frozen during an update and go
on afterwards.  Both sides use the project's publisher, with the same checksums and vLLM's weight-transfer API; one RPC
per parameter is the publisher with buckets too small for two tensors, which is kinder than what it stands for, because
the next tensor is packed while the engine loads the last one.  Two models: the bundled policy, and a larger one with
random weights.
"""

from __future__ import annotations

import asyncio
import itertools
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.common import Record, medians, parser, progress

SIDES = {"one bucket": 256 * 2**20, "buckets of 32 MiB": 32 * 2**20, "one RPC per parameter": 1}
LARGER = {
    "hidden_size": 512,
    "intermediate_size": 1536,
    "num_hidden_layers": 8,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "head_dim": 64,
    "vocab_size": 32_768,
}
REQUESTS, RESPONSE_TOKENS = 16, 256


def main() -> int:
    args = parser(__doc__, repeats=7).parse_args()
    record = Record("weight_update", args)
    rows, samples = [], {}
    with tempfile.TemporaryDirectory() as folder:
        models = {"bundled policy": _bundled()} | ({} if args.small else {"larger": _larger(Path(folder) / "larger")})
        for name, model in models.items():
            samples[name] = asyncio.run(_measure(model, args.repeats))
            middle = medians(samples[name])
            for side, m in middle.items():
                rows.append(
                    [
                        f"{name}, {side}",
                        f"{m['bytes'] / 1e6:.1f}",
                        f"{m['rpcs']:.0f}",
                        f"{1000 * m['seconds']:.0f}",
                        f"{1000 * m['pause_seconds']:.0f}",
                        f"{m['bytes'] / m['seconds'] / 1e6:.0f}",
                        f"{m['bytes'] / m['pause_seconds'] / 1e6:.0f}",
                    ]
                )
    in_flight = [sample["in_flight"] for sides in samples.values() for side in sides.values() for sample in side]
    met = f"{min(in_flight):.0f} to {max(in_flight):.0f}"
    record.finish(
        ["model and way", "MB", "updates", "ms in all", "ms of pause", "MB/s in all", "MB/s of pause"],
        rows,
        [f"{met} requests in flight; float32; medians of {args.repeats} interleaved updates."],
        samples=samples,
    )
    return 0


def _bundled() -> str:
    from sdpo.config.paths import locate

    return locate("policies/minicode")


def _larger(folder: Path) -> str:
    """Random weights of a larger shape, with the bundled tokenizer."""
    import torch
    from transformers import AutoConfig, Qwen3ForCausalLM

    small = Path(_bundled())
    config = AutoConfig.from_pretrained(small, **LARGER)
    config.layer_types = ["full_attention"] * config.num_hidden_layers
    torch.manual_seed(0)
    Qwen3ForCausalLM(config).save_pretrained(folder)
    for file in (*small.glob("tokenizer*"), small / "chat_template.jinja"):
        shutil.copy(file, folder)
    return str(folder)


async def _measure(model: str, repeats: int) -> dict[str, list[dict[str, float]]]:

    import ray
    import torch
    from transformers import AutoModelForCausalLM

    from sdpo.rollout.config import EngineConfig
    from sdpo.rollout.pool import EnginePool
    from sdpo.weights.publisher import Publisher

    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    config = EngineConfig(
        model=model, dtype="float32", max_model_len=1024, max_num_seqs=32, seed=0, device="cpu", enforce_eager=True
    )
    pool = EnginePool(config, engines=1)
    publishers = {name: Publisher("shared_memory", size) for name, size in SIDES.items()}
    samples: dict[str, list[dict[str, float]]] = {name: [] for name in SIDES}
    try:
        await pool.start(progress)
        weights = list(AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32).named_parameters())
        busy = [asyncio.create_task(_keep_busy(pool, number)) for number in range(REQUESTS)]
        version = 0
        for number in range(repeats + 1):  # the first round connects and allocates
            for name, publisher in publishers.items():
                await asyncio.sleep(0.5)  # requests are under way again
                version += 1
                progress(f"{name}: update {version}")
                in_flight = (await pool.metrics())["running"]
                report = await asyncio.to_thread(publisher.publish, iter(weights), pool.handles, version)
                if number:
                    samples[name].append(_values(report) | {"in_flight": in_flight})
                for task in busy:
                    if task.done():
                        await task  # raises what ended it
        for task in busy:
            task.cancel()
    finally:
        progress("")
        for publisher in publishers.values():
            publisher.close()
        await pool.shutdown()
        ray.shutdown()
    return samples


def _values(report: Any) -> dict[str, float]:
    return {
        "seconds": report.seconds,
        "pause_seconds": report.pause_seconds,
        "bytes": report.bytes,
        "rpcs": report.buckets,
    }


async def _keep_busy(pool: Any, number: int) -> None:
    """One request after the other."""
    from sdpo.rollout.requests import Sampling

    sampling = Sampling(max_tokens=RESPONSE_TOKENS)
    for seed in itertools.count(number, REQUESTS):
        await pool.generate_group([2, 3, 4], 1, sampling, seed)


if __name__ == "__main__":
    sys.exit(main())
