"""Checks that need no engine."""

from __future__ import annotations

import numpy as np
import pytest

from sdpo.errors import UserError
from sdpo.rollout.config import EngineConfig, check_model_folder, environment
from sdpo.rollout.metrics import EngineMetrics
from sdpo.rollout.requests import Sampling, response_seed
from sdpo.rollout.startup import kv_cache_bytes
from sdpo.types import Turn, VersionSpan
from tests.helpers.engine import CONTEXT, config_for


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"max_tokens": 0}, "at least 1 token"),
        ({"temperature": 0.0}, "greedy=True"),
        ({"temperature": -1.0}, "above 0"),
        ({"top_p": 0.0}, "top_p"),
        ({"top_p": 1.2}, "top_p"),
        ({"top_k": -1}, "0 for all"),
        ({"greedy": True}, "no temperature"),
        ({"greedy": True, "temperature": 0.0, "top_k": 5}, "no temperature"),
    ],
)
def test_sampling_refuses_what_makes_no_sense(wrong, message):
    with pytest.raises(UserError, match=message):
        Sampling(**({"max_tokens": 5} | wrong))


def test_response_seeds_are_distinct_and_fit_into_63_bits():
    seeds = {response_seed(group, index) for group in range(200) for index in range(50)}
    assert len(seeds) == 200 * 50
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert response_seed(2**32 + 5, 3) != response_seed(5, 3)


def test_versions_of_a_response():
    spans = (VersionSpan(3, 0, 7), VersionSpan(4, 7, 9))
    turn = Turn((1,), tuple(range(9)), np.zeros(9, np.float32), "stop", spans)
    assert (turn.policy_version, turn.final_version) == (3, 4)


def test_a_model_folder_is_checked(tmp_path):
    with pytest.raises(UserError, match="no model folder"):
        check_model_folder(str(tmp_path / "gone"))
    with pytest.raises(UserError, match=r"no config\.json"):
        check_model_folder(str(tmp_path))
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(UserError, match="no weights"):
        check_model_folder(str(tmp_path))
    (tmp_path / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(UserError, match=r"are pickles \(pytorch_model.bin\).* are refused"):
        check_model_folder(str(tmp_path))
    (tmp_path / "model.safetensors").write_bytes(b"")
    check_model_folder(str(tmp_path))
    (tmp_path / "adapter_model.bin").write_bytes(b"")
    (tmp_path / "config.json").write_text('{"transformers_weights": "adapter_model.bin"}')
    with pytest.raises(UserError, match="are pickles"):
        check_model_folder(str(tmp_path))
    (tmp_path / "config.json").write_text("{}")
    check_model_folder("Qwen/Qwen3-8B")  # may be on the hub
    with pytest.raises(UserError, match="no model folder"):
        check_model_folder("./runs/missing")


def test_weights_travel_where_the_device_allows():
    def config(device: str, way: str) -> EngineConfig:
        return EngineConfig("m", "bfloat16", 512, 8, 0, device, weight_transfer=way)

    for device, way in (("cuda", "nccl"), ("cuda", "ipc"), ("cpu", "shared_memory")):
        assert config(device, way).weight_transfer == way
    for device, way in (("cuda", "shared_memory"), ("cpu", "nccl"), ("cpu", "ipc")):
        with pytest.raises(UserError, match=way):
            config(device, way)


def test_a_cpu_engine_sees_no_gpu_and_one_plugin(model_path):
    env = environment(config_for(model_path))
    assert env["CUDA_VISIBLE_DEVICES"] == ""
    assert env["VLLM_PLUGINS"] == "sdpo_weight_transfer"
    assert env["HF_HUB_OFFLINE"] == "1"  # a local folder
    assert "HF_HUB_OFFLINE" not in environment(config_for("Qwen/Qwen3-8B"))


def test_busy_time_counts_overlapping_requests_once(monkeypatch):
    now = [0.0]
    monkeypatch.setattr("sdpo.rollout.metrics.time.monotonic", lambda: now[0])
    metrics = EngineMetrics()
    with metrics:
        now[0] = 2.0
        with metrics:
            now[0] = 3.0
        now[0] = 5.0
        metrics.response_tokens = 100
        assert metrics.snapshot()["tokens_per_second"] == 20.0
    now[0] = 9.0
    with metrics:
        now[0] = 10.0
    assert metrics.busy_seconds == 6.0


def test_the_cpu_cache_holds_every_sequence_or_half_of_the_memory():
    config = config_for("m")
    sequence = 1000 * 128 * (CONTEXT // 128 + 1)
    assert kv_cache_bytes(1000, config, 10**12) == 33 * sequence
    assert kv_cache_bytes(1000, config, 10 * sequence) == 5 * sequence
    with pytest.raises(UserError, match=f"one sequence of {CONTEXT} tokens.*smaller model or a shorter context"):
        kv_cache_bytes(1000, config, 3 * sequence)
