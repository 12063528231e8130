"""The learner's side: publishes the policy's weights to the engines."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import ray
import torch
from ray.actor import ActorHandle

from sdpo.errors import PartFailed, UserError
from sdpo.weights.buckets import Bucket, buckets
from sdpo.weights.checksum import checksum, combine
from sdpo.weights.errors import WeightTransferError

Kind = Literal["shared_memory", "nccl", "ipc", "objects"]
DEFAULT_BUCKET_BYTES = 256 * 1024**2


@dataclass(frozen=True)
class PublishReport:
    """One publication.  `pause_seconds`: how long the engines stood still; `seconds`: gathering and packing too."""

    version: int
    tensors: int
    bytes: int
    buckets: int
    seconds: float
    pause_seconds: float
    checksum: str  # of all tensors together, after the cast to the engines' dtype


class Sender(Protocol):
    """A way for one bucket to reach all engines."""

    def connect(self, engines: list[ActorHandle], infos: list[Any]) -> None:
        """Called when the set of engines is new."""

    def prepare(self, bucket: Bucket) -> Any:
        """What can be done while the engines still generate."""

    def send(self, prepared: Any) -> dict[ActorHandle, ray.ObjectRef]:
        """Start one update; the calls are done when the engines have loaded it."""

    def drop(self, engine: ActorHandle) -> None:
        """Go on without an engine that was lost.  Raises PartFailed where that cannot be done."""

    def close(self) -> None: ...


class Publisher:
    """Lives in learner rank 0 (for `ipc`: in every rank that shares a GPU with an engine).

    Args:
        kind: "shared_memory" between CPU processes of one machine, "nccl" from GPU to other GPUs, "ipc" to engines on
            the learner's own GPUs, "objects" through Ray's object store to ranks of a teacher.
        bucket_bytes: bound on what is packed at once; a single larger tensor travels alone.
        rank: the learner's rank.  Rank 0 sends and drives the engines.
    """

    def __init__(self, kind: Kind, bucket_bytes: int = DEFAULT_BUCKET_BYTES, rank: int = 0) -> None:
        self.kind = kind
        self.bucket_bytes = bucket_bytes
        self.rank = rank
        self._engines: list[ActorHandle] = []
        self._dtype: torch.dtype | None = None
        self._sender: Sender | None = None

    def publish(
        self, named_weights: Iterable[tuple[str, torch.Tensor]], engines: list[ActorHandle], version: int
    ) -> PublishReport:
        """Load these weights into all engines, under this version, while their requests are frozen.

        Pause, start, one update per bucket, verify the checksums of all that was loaded, finish, reset the prefix
        caches, resume.  The next bucket is packed while the engines load the last one, the first before they pause.

        Args:
            named_weights: Hugging Face names and full (gathered) tensors of any floating dtype; they are cast to the
                engines' dtype.  Tied weights are sent once, under the name of the input embedding.
            engines: handles of `RolloutEngine` (`EnginePool.handles`).
            version: number of this publication, from 1.

        An engine that dies on the way is left out; the others get their weights.

        Raises:
            WeightTransferError: an engine does not hold what was sent.  The engines then refuse to generate until a
                later publication succeeds.
        """
        if self.rank != 0:
            return self._follow(named_weights, engines, version)
        began = time.monotonic()
        if not self._connect(engines):
            return self._follow(named_weights, [], version)  # the other ranks gather them
        assert self._sender is not None
        sent: dict[str, int] = {}
        total = count = 0
        paused_at: float | None = None
        pending: dict[ActorHandle, ray.ObjectRef] = {}
        try:
            for bucket in buckets(named_weights, self.bucket_bytes, self._dtype):
                prepared = self._sender.prepare(bucket)
                sent |= {name: checksum(tensor) for name, tensor in bucket}
                if paused_at is None:
                    paused_at = time.monotonic()
                    self._all("pause")
                    self._all("start_weight_update")
                self._wait(pending)
                pending = self._sender.send(prepared)
                total += sum(tensor.numel() * tensor.element_size() for _, tensor in bucket)
                count += 1
            if paused_at is None:
                raise ValueError("there are no weights to publish")
            self._wait(pending)
            self._all("update_weights", {"checksums": sent})
            reported = self._all("finish_weight_update", version)
            if any(other != version for other in reported):
                raise WeightTransferError(f"The engines report versions {reported} after publication {version}.")
            self._all("resume")
        except BaseException as error:
            if paused_at is not None:
                self._abandon(error)
            raise
        ended = time.monotonic()
        return PublishReport(version, len(sent), total, count, ended - began, ended - paused_at, combine(sent))

    def close(self) -> None:
        """Free the shared memory, or the communicator."""
        if self._sender is not None:
            self._sender.close()
            self._sender = None
            self._engines = []

    # ---- internals ----

    def _connect(self, engines: list[ActorHandle]) -> bool:
        """Whether any of them lives."""
        if engines and self._sender is not None and engines == self._engines:
            return True
        self.close()
        self._engines = list(engines)
        infos = self._all("describe")
        if not infos:
            return False
        dtypes = {info.dtype for info in infos}
        if len(dtypes) != 1:
            raise WeightTransferError(f"The engines hold weights of different dtypes: {', '.join(sorted(dtypes))}.")
        for info in infos:
            if info.weight_transfer != self.kind:
                raise WeightTransferError(
                    f"The learner publishes by {self.kind}, an engine listens on {info.weight_transfer}: use one kind."
                )
        self._dtype = getattr(torch, dtypes.pop())
        sender = _make_sender(self.kind, self.bucket_bytes, self.rank)
        sender.connect(self._engines, infos)
        self._sender = sender
        return True

    def _all(self, method: str, *args: Any) -> list[Any]:
        return self._wait({engine: getattr(engine, method).remote(*args) for engine in self._engines})

    def _wait(self, calls: dict[ActorHandle, ray.ObjectRef]) -> list[Any]:
        return _answers(calls, self._drop)

    def _drop(self, engine: ActorHandle) -> None:
        self._engines = [other for other in self._engines if other != engine]
        if self._sender is not None:
            self._sender.drop(engine)

    def _abandon(self, error: BaseException) -> None:
        """Never leave an engine frozen or sampling from a mixture of weights.  A dead engine cannot be told."""
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        for call in [engine.abandon_weight_update.remote(reason) for engine in self._engines]:
            try:
                ray.get(call, timeout=30)
            except Exception:  # noqa: BLE001, S112 — the first error is the one to report
                continue

    def _follow(
        self, named_weights: Iterable[tuple[str, torch.Tensor]], engines: list[ActorHandle], version: int
    ) -> PublishReport:
        """A rank other than 0: takes part in gathering, and for `ipc` offers its copy to the engine on its own GPU."""
        began = time.monotonic()
        if self.kind == "ipc" and engines:
            self._connect(engines)
            assert self._sender is not None
        tensors = total = count = 0
        for bucket in buckets(named_weights, self.bucket_bytes, self._dtype):
            if self._sender is not None:
                self._sender.send(self._sender.prepare(bucket))
            tensors += len(bucket)
            total += sum(tensor.numel() * tensor.element_size() for _, tensor in bucket)
            count += 1
        return PublishReport(version, tensors, total, count, time.monotonic() - began, 0.0, "")


def publish_adapter(files: Mapping[str, bytes], engines: list[ActorHandle], version: int, slot: int = 0) -> int:
    """Have all engines load an adapter, PEFT's files by name, under this version.  Returns its size in bytes.

    Nothing pauses.  An engine that dies on the way is left out.

    Raises:
        UserError: vLLM does not take the adapter (`RolloutEngine.load_adapter`).
    """
    given = ray.put(dict(files))
    _answers({engine: engine.load_adapter.remote(given, version, slot) for engine in engines}, lambda engine: None)
    return sum(map(len, files.values()))


def _answers(calls: Mapping[ActorHandle, ray.ObjectRef], drop: Callable[[ActorHandle], None]) -> list[Any]:
    """Results of calls to engines, with the engine's own error instead of Ray's wrapping of it.  Dead ones: `drop`."""
    results = []
    for engine, call in calls.items():
        try:
            results.append(ray.get(call))
        except ray.exceptions.RayTaskError as error:
            if isinstance(error.cause, PartFailed):
                drop(engine)
            elif isinstance(error.cause, UserError | WeightTransferError):
                raise error.cause from None
            else:
                raise
        except ray.exceptions.RayActorError:
            drop(engine)
    return results


def _make_sender(kind: Kind, bucket_bytes: int, rank: int) -> Sender:
    if kind == "shared_memory":
        from sdpo.weights.send import SharedMemorySender

        return SharedMemorySender()
    if kind == "objects":
        from sdpo.weights.send_objects import ObjectSender

        return ObjectSender()
    from sdpo.weights.send_gpu import GpuSender

    return GpuSender(kind, bucket_bytes, rank)
