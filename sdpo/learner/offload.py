"""What only updates need, in the host's memory between them: a GPU that is shared with an engine is the engine's then.

DeepSpeed's `offload_states` takes its own optimiser under ZeRO-3 alone, and no second set of weights.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import torch

Tensors = Callable[[], Iterable[torch.Tensor]]


@dataclass(frozen=True)
class _Moved:
    """A storage without memory, its bytes on the host, and the tensors on it with the data that they had."""

    storage: torch.UntypedStorage
    device: torch.device
    host: torch.Tensor
    tensors: dict[int, tuple[torch.Tensor, torch.Tensor]] = field(default_factory=dict)


class Offload:
    """Moves tensors to the host and back, bit for bit.

    Away, a tensor is one of the host's memory, and can be read.  Back, it lies on the storage that it came from: views
    of its parts, as DeepSpeed has them, are valid again.  They must not be used in between.
    """

    def __init__(self, moving: Tensors, staying: Tensors) -> None:
        """`moving`: asked anew each time; what shares memory with one of `staying` is left where it is, and
        what is not torch's own memory (a file that is mapped, on a CPU)."""
        self._moving, self._staying = moving, staying
        self._moved: list[_Moved] = []
        self._buffers: dict[int, list[torch.Tensor]] = {}  # by size; pinned memory takes long to be made

    @torch.no_grad()
    def away(self) -> None:
        """To the host.  Nothing happens if they are there."""
        if self._moved:
            return
        staying = {tensor.untyped_storage().data_ptr() for tensor in self._staying()}
        found: dict[int, _Moved] = {}
        for tensor in self._moving():
            storage = tensor.untyped_storage()
            where = storage.data_ptr()
            if where in staying or not storage.nbytes() or not storage.resizable():
                continue
            if where not in found:
                found[where] = _Moved(storage, tensor.device, self._buffer(storage.nbytes(), tensor.device))
            found[where].tensors[id(tensor)] = (tensor, tensor.data)
        self._moved = list(found.values())
        self._wait()  # for all streams
        for moved in self._moved:
            moved.host.copy_(_bytes(moved.storage, moved.device), non_blocking=True)
        self._wait()
        for moved in self._moved:
            for tensor, data in moved.tensors.values():
                tensor.data = torch.empty(0, dtype=data.dtype).set_(
                    moved.host.untyped_storage(), data.storage_offset(), data.size(), data.stride()
                )
            moved.storage.resize_(0)

    @torch.no_grad()
    def back(self) -> None:
        """To where they were.  Nothing happens if they are there."""
        for moved in self._moved:
            moved.storage.resize_(moved.host.numel())
            _bytes(moved.storage, moved.device).copy_(moved.host, non_blocking=True)
            for tensor, data in moved.tensors.values():
                tensor.data = data
        self._wait()
        for moved in self._moved:
            self._buffers.setdefault(moved.host.numel(), []).append(moved.host)
        self._moved = []

    def _buffer(self, size: int, device: torch.device) -> torch.Tensor:
        if free := self._buffers.get(size):
            return free.pop()
        return torch.empty(size, dtype=torch.uint8, pin_memory=device.type == "cuda")

    def _wait(self) -> None:
        for device in {moved.device for moved in self._moved if moved.device.type == "cuda"}:
            torch.cuda.synchronize(device)


def _bytes(storage: torch.UntypedStorage, device: torch.device) -> torch.Tensor:
    return torch.empty(0, dtype=torch.uint8, device=device).set_(storage, 0, (storage.nbytes(),), (1,))
