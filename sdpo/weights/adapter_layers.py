"""In vLLM's workers: whether every part of a loaded adapter has a layer that computes with it."""

from __future__ import annotations

from typing import Any


class AdapterLayers:
    """Part of vLLM's worker class (its option `worker_extension_cls`)."""

    get_model: Any

    def unused_adapter_parts(self, adapter: int) -> list[str]:
        """Modules for which the adapter of this id has weights and the model no layer; vLLM passes over them."""
        manager = self.get_model().lora_manager
        return sorted(set(manager.get_adapter(adapter).loras) - set(manager.modules))
