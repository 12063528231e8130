"""One vLLM engine as an async Ray actor.

`EnginePool` starts it (`ray.remote(RolloutEngine)`); any number of requests run in it at once.  vLLM is imported only
when the engine starts, so that a driver imports this module in no time, and the environment of the process is set by
then.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import time
from dataclasses import dataclass
from typing import Any

import numpy as np

from sdpo.config.model_files import padding
from sdpo.errors import UserError
from sdpo.rollout import core_process, startup
from sdpo.rollout.adapters import Adapter, Adapters
from sdpo.rollout.config import EngineConfig, check_model_folder
from sdpo.rollout.metrics import EngineMetrics
from sdpo.rollout.processes import children, resident_bytes
from sdpo.rollout.requests import EngineError, EngineLost, Memory, Sampling
from sdpo.supervision.lifeline import die_with
from sdpo.supervision.watch import identity
from sdpo.types import Turn, VersionSpan
from sdpo.weights.errors import WeightTransferError
from sdpo.weights.machine import this_machine

WARMUP_TOKENS = 8
NEVER = -100.0  # the lowest of what vLLM adds to a logit: a factor of 4e-44 on the probability
CORE_CHECK_S = 0.2  # between two looks at whether vLLM's core still lives, while it owes an answer


@dataclass(frozen=True)
class EngineInfo:
    """What others need to know about a running engine."""

    node_id: str  # Ray's id of the machine
    machine: str  # the kernel's, see `sdpo.weights.machine.this_machine`
    pid: int
    dtype: str  # of the weights, e.g. "float32"
    vocab_size: int
    max_model_len: int
    tensor_parallel_size: int
    weight_transfer: str
    startup_seconds: dict[str, float]  # per phase: import, start, warm-up
    processes: dict[int, str]  # process id → what it is: the actor, vLLM's core and workers


class RolloutEngine:
    """Samples from the policy, and takes its new weights.

    The weight-update methods have the names and the order of vLLM's: `pause`, `start_weight_update`, `update_weights`
    once or more, `finish_weight_update`, `resume`; `sdpo.weights.publisher` calls them.  A request that is under way
    while weights change goes on with the new ones, its key-value cache recomputed, and says which tokens came from
    which version.  Where only an adapter changes (`load_adapter`), it goes on with the one that it began with.
    """

    def __init__(self, config: EngineConfig) -> None:
        die_with(os.getppid())
        self._config = config
        self._llm: Any = None
        self._adapters = Adapters(None)
        self._never: dict[int, float] | None = None  # biases that keep entries that are no tokens from being sampled
        self._version = 0
        self._unusable: str | None = None
        self._updating = False
        self._phase = "waiting"
        self._phase_since = time.monotonic()
        self._seconds: dict[str, float] = {}
        self._ids = itertools.count()
        self._tasks: set[asyncio.Task] = set()
        self._metrics = EngineMetrics()
        self._paused_at: float | None = None

    # ---- life ----

    async def ready(self) -> EngineInfo:
        """Start the engine and let it generate once.  Returns when it serves; `progress` tells what it is doing.

        Raises:
            UserError: the model cannot be loaded, with the cause and what to do.
        """
        if self._llm is None:
            check_model_folder(self._config.model)
            try:
                self._enter("importing vLLM")
                await asyncio.to_thread(core_process.import_vllm)
                self._enter("loading the model")
                self._seconds["importing vLLM"] += core_process.import_seconds  # before this actor began
                self._llm = await asyncio.to_thread(startup.start_engine, self._config)
                self._adapters = Adapters(self._llm)
                vocabulary = self._llm.vllm_config.model_config.get_vocab_size()
                self._never = dict.fromkeys(padding(self._llm.get_tokenizer(), vocabulary), NEVER) or None
                self._enter("warming up")
                await self._warm_up()
            except UserError:
                raise
            except Exception as error:
                raise startup.startup_error(self._config, self._phase, error) from error
            self._enter("ready")
        return self.describe_now()

    def _enter(self, phase: str) -> None:
        now = time.monotonic()
        self._seconds[self._phase] = now - self._phase_since
        self._phase, self._phase_since = phase, now

    async def identity(self) -> tuple[str, int, tuple[str, ...]]:
        return identity()

    async def progress(self) -> tuple[str, float]:
        """What the engine is doing, and for how many seconds it has been."""
        return self._phase, time.monotonic() - self._phase_since

    async def _warm_up(self) -> None:
        """The first steps of an engine allocate and compile; let nobody's request wait for that."""
        await self._llm.update_weight_version(str(self._version))
        if self._config.weight_transfer == "shared_memory":
            from vllm.distributed.weight_transfer.base import WeightTransferInitRequest

            await self._llm.init_weight_transfer_engine(WeightTransferInitRequest(init_info={}))
        tokens = min(WARMUP_TOKENS, self._config.max_model_len - 2)
        await asyncio.gather(*(self._one([1, 2], Sampling(max_tokens=tokens), seed) for seed in range(2)))
        await self._llm.reset_prefix_cache()
        self._metrics = EngineMetrics()

    def describe_now(self) -> EngineInfo:
        import ray

        model = self._llm.vllm_config.model_config
        return EngineInfo(
            node_id=ray.get_runtime_context().get_node_id(),
            machine=this_machine(),
            pid=os.getpid(),
            dtype=str(model.dtype).removeprefix("torch."),
            vocab_size=model.get_vocab_size(),
            max_model_len=model.max_model_len,
            tensor_parallel_size=self._config.tensor_parallel_size,
            weight_transfer=self._config.weight_transfer,
            startup_seconds={k: round(v, 2) for k, v in self._seconds.items() if k not in ("waiting", "ready")},
            processes={os.getpid(): "its actor"} | children(),
        )

    async def describe(self) -> EngineInfo:
        """What kind of engine this is.  Only after `ready`."""
        self._check_usable(weights=False)
        return self.describe_now()

    async def shutdown(self) -> None:
        """Stop vLLM and its processes, this one too.  Requests under way are dropped."""
        self._unusable = "The engine was shut down."
        for task in list(self._tasks):
            task.cancel()
        llm, self._llm = self._llm, None
        if llm is not None:
            await asyncio.to_thread(llm.shutdown, 0.0)
        import ray

        ray.actor.exit_actor()  # one that is killed Ray tells the user of as a system error

    # ---- sampling ----

    async def generate(self, prompt_ids: list[int], sampling: Sampling, seed: int, slot: int = 0) -> Turn:
        """One response, reproducible from `seed` for the same weights, whatever else the engine does; `slot`: of the
        adapter, where adapters are loaded.

        Raises:
            UserError: the prompt leaves no room for a response in the engine's context.
            EngineError: the engine is dead or holds half-loaded weights.
        """
        self._check_usable()
        self._check_prompt(len(prompt_ids), 1)
        task = asyncio.create_task(self._one(prompt_ids, sampling, seed, slot))
        self._tasks.add(task)
        try:
            return await task
        except asyncio.CancelledError:
            if self._unusable:
                raise EngineError(self._unusable) from None
            raise
        finally:
            self._tasks.discard(task)

    async def _one(self, prompt_ids: list[int], sampling: Sampling, seed: int, slot: int = 0) -> Turn:
        from vllm.sampling_params import RequestOutputKind, SamplingParams

        params = SamplingParams(
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            top_k=sampling.top_k,
            max_tokens=sampling.max_tokens,
            seed=None if sampling.greedy else seed,
            logit_bias=self._never,
            logprobs=0,  # of the sampled token alone
            flat_logprobs=True,
            detokenize=False,
            output_kind=RequestOutputKind.FINAL_ONLY,
        )
        with self._metrics, self._adapters.newest(slot) as adapter:
            output = (await self._request(prompt_ids, params, adapter)).outputs[0]
        self._metrics.requests += 1
        self._metrics.prompt_tokens += len(prompt_ids)
        self._metrics.response_tokens += len(output.token_ids)
        self._metrics.truncated += output.finish_reason == "length"
        if output.finish_reason not in ("stop", "length"):
            raise EngineError(f"vLLM ended a request early ({output.finish_reason}).")
        spans = [VersionSpan(int(s.version), s.start, s.end) for s in output.weight_versions or ()]
        if adapter is not None:
            spans = [VersionSpan(adapter.version, 0, len(output.token_ids))]
        return Turn(
            prompt_ids=tuple(prompt_ids),
            response_ids=tuple(output.token_ids),
            sampler_log_probs=np.asarray(output.logprobs.logprobs, dtype=np.float32),
            finish_reason=output.finish_reason,
            versions=tuple(spans) or (VersionSpan(self._version, 0, 0),),
        )

    async def score(self, prompt_ids: list[int], response_ids: list[int], slot: int = 0) -> np.ndarray:
        """Log-probs (float32 [len(response_ids)]) of given tokens after a prompt, always at temperature 1.

        For checks only: vLLM computes prompt log-probs without its prefix cache and one prompt at a time, which is many
        times slower than the learner's forward pass.
        """
        from vllm.sampling_params import RequestOutputKind, SamplingParams

        self._check_usable()
        self._check_prompt(len(prompt_ids) + len(response_ids), 1)
        params = SamplingParams(
            max_tokens=1,
            temperature=0.0,
            prompt_logprobs=0,
            detokenize=False,
            output_kind=RequestOutputKind.FINAL_ONLY,
        )
        with self._metrics, self._adapters.newest(slot) as adapter:
            output = await self._request([*prompt_ids, *response_ids], params, adapter)
        rows = output.prompt_logprobs[len(prompt_ids) :]
        return np.asarray([row[token].logprob for row, token in zip(rows, response_ids, strict=True)], dtype=np.float32)

    async def _request(self, prompt_ids: list[int], params: Any, adapter: Adapter | None) -> Any:
        from vllm.exceptions import VLLMClientError
        from vllm.inputs.engine import tokens_input
        from vllm.v1.engine.exceptions import EngineDeadError, EngineGenerateError

        loaded = None if adapter is None else adapter.request
        try:
            async for output in self._llm.generate(
                tokens_input(list(prompt_ids)), params, request_id=str(next(self._ids)), lora_request=loaded
            ):
                final = output  # FINAL_ONLY: there is one
        except VLLMClientError as error:
            raise UserError(f"vLLM refuses the request: {error}") from error
        except (EngineDeadError, EngineGenerateError) as error:
            raise self._lost(error.__cause__ or error) from error
        return final

    def _lost(self, cause: BaseException) -> EngineLost:
        text = f"its vLLM core failed ({type(cause).__name__}: {str(cause).strip() or 'no reason given'})"
        self._unusable = f"The rollout engine is dead: {text}."
        return EngineLost("a rollout engine", text)

    async def _core(self, call: Any) -> Any:
        """What vLLM's core answers.  A core that has died answers nothing, and vLLM waits for it without end."""
        task = asyncio.ensure_future(call)
        try:
            while not task.done():
                await asyncio.wait((task,), timeout=CORE_CHECK_S)
                if not task.done() and self._llm.errored:
                    raise self._lost(self._llm.dead_error)
            return task.result()
        finally:
            task.cancel()

    def _check_prompt(self, tokens: int, room: int) -> None:
        limit = self._config.max_model_len
        if tokens == 0:
            raise UserError("The prompt is empty; a response needs at least one token before it.")
        if tokens + room > limit:
            raise UserError(
                f"A prompt of {tokens} tokens leaves no room for a response in the engine's context of {limit} tokens. "
                "Raise rollout.max_model_len, or lower the limit on prompt tokens."
            )

    def _check_usable(self, weights: bool = True) -> None:
        if self._llm is not None and self._llm.errored:
            raise self._lost(self._llm.dead_error)
        if self._llm is None:
            raise EngineError(self._unusable or "The engine has not been started: call ready() first.")
        if weights and self._unusable:
            raise EngineError(self._unusable)

    # ---- weights ----

    async def pause(self) -> None:
        """Freeze all requests where they are, and forget the key-value cache: it belongs to the old weights."""
        self._check_usable(weights=False)
        self._paused_at = time.monotonic()
        await self._core(self._llm.pause_generation(mode="keep", clear_cache=True))

    async def init_weight_transfer_engine(self, init_info: dict[str, Any]) -> None:
        """Connect the engine's workers with the learner (NCCL, IPC)."""
        from vllm.distributed.weight_transfer.base import WeightTransferInitRequest

        self._check_usable(weights=False)
        await self._core(self._llm.init_weight_transfer_engine(WeightTransferInitRequest(init_info=init_info)))

    async def start_weight_update(self) -> None:
        self._check_usable(weights=False)
        if self._updating:
            await self.abandon_weight_update("the learner began another one.")
        await self._checked(self._llm.start_weight_update())
        self._updating = True

    async def update_weights(self, update_info: dict[str, Any] | list[dict[str, Any]]) -> None:
        """One bucket, or the learner's list of checksums."""
        from vllm.distributed.weight_transfer.base import WeightTransferUpdateRequest

        await self._checked(self._llm.update_weights(WeightTransferUpdateRequest(update_info=update_info)))

    async def finish_weight_update(self, version: int) -> int:
        """Take the new weights into use under this version, and return the version that vLLM reports."""
        await self._checked(self._llm.finish_weight_update(str(version)))
        await self.reset_prefix_cache()
        self._version = int(await self._core(self._llm.get_weight_version()))
        self._unusable = None
        self._updating = False
        self._metrics.weight_updates += 1
        return self._version

    async def load_adapter(self, files: dict[str, bytes], version: int, slot: int = 0) -> int:
        """Load an adapter (PEFT's files by name) for the responses of a slot that begin from now on.

        Returns its version.

        Raises:
            UserError: vLLM does not take it; the engine goes on with the one that it has.
        """
        self._check_usable(weights=False)
        await self._core(self._adapters.load(files, version, slot))
        self._version = version
        self._metrics.weight_updates += 1
        return version

    async def _checked(self, call: Any) -> None:
        try:
            await self._core(call)
        except EngineLost:
            raise
        except Exception as error:
            raise WeightTransferError(str(error).removeprefix("Call to collective_rpc method failed: ")) from error

    async def abandon_weight_update(self, reason: str) -> None:
        """The update cannot be completed and the model is in pieces.  The engine stays paused: requests under way fail,
        and new ones are refused until a later update succeeds."""
        self._unusable = (
            f"The rollout engine holds incomplete weights, because an update of them failed: {reason} Publish again, "
            "or restart the run, which resumes from its last checkpoint."
        )
        for task in list(self._tasks):
            task.cancel()
        self._updating = False
        with contextlib.suppress(WeightTransferError, EngineLost):  # it always raises, see `sdpo.weights.receive`
            await self.update_weights({"abandon": reason})

    async def reset_prefix_cache(self) -> None:
        """Forget all cached keys and values; requests under way recompute theirs."""
        if not await self._core(self._llm.reset_prefix_cache(reset_running_requests=True)):
            raise WeightTransferError("vLLM could not reset its prefix cache, so old keys and values would be used on.")

    async def resume(self) -> None:
        """Let the frozen requests go on."""
        await self._core(self._llm.resume_generation())
        if self._paused_at is not None:
            self._metrics.paused_seconds += time.monotonic() - self._paused_at
            self._paused_at = None

    async def version(self) -> int:
        """Version of the weights in use: 0 for the model folder, then what the learner published."""
        return self._version

    async def sleep(self) -> None:
        """Give the GPU memory back to a colocated learner (`EngineConfig.sleep`).

        The weights are forgotten, not moved to the host: others are published before the engine generates again.
        """
        await self._core(self._llm.sleep(level=2))

    async def wake_up(self, memory: Memory) -> None:
        """Take that part of the GPU memory again.  What it held is lost, so weights must be published."""
        await self._core(self._llm.wake_up([memory]))

    async def metrics(self) -> dict[str, float]:
        """Counters of `EngineMetrics`, tokens_per_second, and the resident memory of this process and its children."""
        return self._metrics.snapshot() | {"memory_bytes": float(resident_bytes())}
