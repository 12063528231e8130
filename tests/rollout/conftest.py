"""One real engine for all tests of this folder: Ray, vLLM and a tiny random Qwen3 on a CPU."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pytest
import ray
import torch

from sdpo.rollout.pool import EnginePool
from sdpo.weights.publisher import Publisher, PublishReport
from tests.helpers.engine import config_for
from tests.helpers.tiny_model import make_tiny_model


@pytest.fixture(scope="session")
def cluster() -> Iterator[None]:
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    yield
    ray.shutdown()


@pytest.fixture(scope="session")
def model_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("rollout") / "model")


@pytest.fixture(scope="session")
def pool(cluster: None, model_path: Path) -> Iterator[EnginePool]:
    lines: list[str] = []
    pool = EnginePool(config_for(model_path), engines=1)
    asyncio.run(pool.start(lines.append))
    print("\n".join(lines))
    assert any("warming up" in line or "loading the model" in line for line in lines)
    yield pool
    asyncio.run(pool.shutdown())


class Policy:
    """The learner's side: a transformers model in fp32, whose weights are published to the engine."""

    def __init__(self, path: Path, pool: EnginePool) -> None:
        from transformers import Qwen3ForCausalLM

        self.model = Qwen3ForCausalLM.from_pretrained(path, dtype=torch.float32).eval()
        self.pool = pool
        self.version = 0
        self.publisher = Publisher("shared_memory", bucket_bytes=64 * 1024)

    def weights(self) -> list[tuple[str, torch.Tensor]]:
        """Tied weights once."""
        return list(self.model.named_parameters())

    @torch.no_grad()
    def perturb(self, seed: int, scale: float = 0.02) -> None:
        generator = torch.Generator().manual_seed(seed)
        for parameter in self.model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * scale)

    async def publish(self, weights: Iterable[tuple[str, torch.Tensor]] | None = None) -> PublishReport:
        """Off the event loop, as in a learner's process of its own."""
        self.version += 1
        weights = self.weights() if weights is None else weights
        return await asyncio.to_thread(self.publisher.publish, iter(weights), self.pool.handles, self.version)

    @torch.no_grad()
    def logits(self, prompt: list[int], response: tuple[int, ...] | list[int]) -> torch.Tensor:
        """float32 [len(response), vocabulary]: what each response token was drawn from, before temperature."""
        ids = torch.tensor([[*prompt, *response]])
        return self.model(ids).logits[0, len(prompt) - 1 : -1]

    def log_probs(self, prompt: list[int], response: tuple[int, ...] | list[int]) -> np.ndarray:
        """float32 [len(response)] at temperature 1."""
        rows = self.logits(prompt, response).log_softmax(-1)
        return rows.gather(1, torch.tensor(response)[:, None])[:, 0].numpy()


@pytest.fixture(scope="session")
def policy(pool: EnginePool, model_path: Path) -> Iterator[Policy]:
    policy = Policy(model_path, pool)
    yield policy
    policy.publisher.close()
