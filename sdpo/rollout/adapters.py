"""The adapters that an engine has loaded beside its model: of every slot the newest, and older ones still in use.

A run that trains one policy has one slot, 0.  Policies that are trained side by side have one each.
"""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sdpo.errors import UserError


@dataclass(eq=False)
class Adapter:
    """`request`: what names it to vLLM.  Its id and name never come again, so that no cached key or value of another
    adapter is taken for its own."""

    slot: int
    version: int
    request: Any  # vllm.lora.request.LoRARequest
    folder: tempfile.TemporaryDirectory[str]  # vLLM may read it again
    uses: int = 0  # responses under way


class Adapters:
    """Of one `vllm.v1.engine.async_llm.AsyncLLM`.  A response keeps the adapter that it began with."""

    def __init__(self, llm: Any) -> None:
        self._llm = llm
        self._ids = itertools.count(1)
        self._loaded: list[Adapter] = []  # the newest last

    @property
    def _newest(self) -> dict[int, Adapter]:
        return {adapter.slot: adapter for adapter in self._loaded}

    @contextmanager
    def newest(self, slot: int) -> Iterator[Adapter | None]:
        """Of a slot.  Within the context that adapter stays loaded; None: there is none yet."""
        adapter = self._newest.get(slot)
        if adapter is None:
            yield None
            return
        adapter.uses += 1
        try:
            yield adapter
        finally:
            adapter.uses -= 1

    async def load(self, files: Mapping[str, bytes], version: int, slot: int) -> None:
        """Take an adapter into use for the responses of a slot that begin from now on.

        Args:
            files: PEFT's, by name.

        Raises:
            UserError: vLLM does not take it, or not all of it.
        """
        from vllm.lora.request import LoRARequest

        await self._unload_old()
        folder = tempfile.TemporaryDirectory(prefix="adapter-")
        for name, content in files.items():
            (Path(folder.name) / name).write_bytes(content)
        number = next(self._ids)
        request = LoRARequest(f"{version}-{number}", number, folder.name)
        try:
            await self._llm.add_lora(request)
            unused = await self._llm.collective_rpc("unused_adapter_parts", args=(number,))
        except Exception as error:
            folder.cleanup()
            if self._llm.errored:
                raise
            raise refused(str(error).removeprefix("Call to add_lora method failed: ")) from error
        if parts := sorted({part for each in unused for part in each}):
            await self._llm.remove_lora(number)
            folder.cleanup()
            raise refused(f"it has no layer for {', '.join(parts[:3])}{', …' if len(parts) > 3 else ''}")
        self._loaded.append(Adapter(slot, version, request, folder))
        await self._unload_old()

    async def _unload_old(self) -> None:
        newest = self._newest.values()
        for adapter in [each for each in self._loaded if each not in newest and not each.uses]:
            self._loaded.remove(adapter)
            await self._llm.remove_lora(adapter.request.lora_int_id)
            adapter.folder.cleanup()


def refused(reason: str) -> UserError:
    return UserError(
        f"vLLM does not load the adapter: {reason.rstrip('.')}. Leave rollout.adapter at merged, or name other layers "
        "in model.adapter.targets."
    )
