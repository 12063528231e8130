"""What an engine is started with, and the process environment that vLLM needs for it."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from sdpo.config.model_files import refuse_pickles
from sdpo.config.waiting import waiting
from sdpo.errors import UserError

PLUGIN = "sdpo_weight_transfer"  # the entry point in pyproject.toml, group vllm.general_plugins


@dataclass(frozen=True)
class AdapterSlots:
    """Room for adapters that an engine loads beside its model.

    `targets`: the last names of the layers that have them, as transformers calls them.
    """

    rank: int
    count: int  # at once
    targets: tuple[str, ...]


@dataclass(frozen=True)
class EngineConfig:
    """One engine.  Every field comes from the recipe; only what is a matter of this machine has a default here.

    `gpu_memory_utilization` is the share of a GPU's memory that the engine may fill; on a CPU the key-value cache has
    room for `max_num_seqs` sequences of `max_model_len` tokens.  `weight_transfer` is how the learner's weights arrive
    (`sdpo.weights`), or `adapters` where only an adapter does.  `sleep` lets a colocated engine give its GPU memory
    back while the learner works.
    """

    model: str
    dtype: str
    max_model_len: int
    max_num_seqs: int
    seed: int
    device: Literal["cpu", "cuda"]
    tensor_parallel_size: int = 1
    gpu_memory_utilization: float = 0.9
    enforce_eager: bool = False
    weight_transfer: Literal["shared_memory", "nccl", "ipc"] = "shared_memory"
    adapters: AdapterSlots | None = None
    sleep: bool = False
    threads: int = 1
    log_level: str = "WARNING"
    more: Mapping[str, Any] = field(default_factory=dict)  # rollout.engine_args

    def __post_init__(self) -> None:
        if self.device == "cuda" and self.weight_transfer == "shared_memory":
            raise UserError(
                "weight_transfer=shared_memory is for CPU processes. On GPUs use weight_transfer=nccl (engines on "
                "their own GPUs) or ipc (engines on the learner's GPUs)."
            )
        if self.device == "cpu" and self.weight_transfer != "shared_memory":
            raise UserError(f"weight_transfer={self.weight_transfer} needs GPUs; on a CPU use shared_memory.")

    @property
    def is_local(self) -> bool:
        return Path(self.model).is_dir()


def check_model_folder(model: str) -> None:
    """Refuse a model that cannot be loaded before anything is imported.

    Raises:
        UserError: a folder that is not there, or one without configuration or safe weights.
    """
    folder = Path(model)
    if not folder.exists():
        if re.fullmatch(r"[\w.-]+/[\w.-]+", model) and not model.startswith("."):
            return  # may be a name on the Hugging Face hub; the engine says so if it is not
        raise UserError(
            f"There is no model folder {model}. Give the path of a Hugging Face model folder, or owner/name."
        )
    if not (folder / "config.json").is_file():
        raise UserError(f"{model} is not a Hugging Face model folder: it has no config.json.")
    refuse_pickles(folder)
    if not any(folder.glob("*.safetensors")):
        raise UserError(
            f"{model} has no weights (*.safetensors). A checkpoint becomes a model folder by `sdpo export`."
        )


def environment(config: EngineConfig) -> dict[str, str]:
    """Environment variables of an engine's process.  They must be set before torch and vLLM are imported."""
    env = {
        "VLLM_PLUGINS": PLUGIN,  # no other plugin: each one is imported in every process
        "VLLM_LOGGING_LEVEL": config.log_level,
        "VLLM_NO_USAGE_STATS": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }
    if config.is_local:
        env["HF_HUB_OFFLINE"] = "1"
    if config.device == "cpu":
        env |= {
            # One process for the engine core and its worker; with "1" vLLM forces a worker process of its own.
            "VLLM_ENABLE_V1_MULTIPROCESSING": "0" if config.tensor_parallel_size == 1 else "1",
            # vLLM would pin itself to core 0, beside the learner.
            "VLLM_CPU_OMP_THREADS_BIND": "nobind",
            "OMP_NUM_THREADS": str(config.threads),
            # vLLM compiles one small function (the rank of the sampled token), which takes a C++ compiler 5 to 30 s at
            # every cold start; run eagerly it costs nothing that can be measured.
            "TORCHDYNAMO_DISABLE": "1",
            "CUDA_VISIBLE_DEVICES": "",
        } | waiting()
    if config.weight_transfer == "ipc":
        # CUDA IPC handles travel between vLLM's own processes as pickles.
        env["VLLM_ALLOW_INSECURE_SERIALIZATION"] = "1"
    for name in ("HF_HOME", "VLLM_CACHE_ROOT"):
        if name in os.environ:
            env[name] = os.environ[name]
    return env
