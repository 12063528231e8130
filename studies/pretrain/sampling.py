"""Sampling from a small policy with transformers, for measurements that should not need a vLLM engine."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from sdpo.errors import UserError


class Sampler:
    """A policy folder as a function from prompts to responses."""

    def __init__(self, folder: str | Path, seed: int = 0, max_new_tokens: int = 96, batch: int = 256) -> None:
        if not (Path(folder) / "config.json").is_file():
            raise UserError(f"{folder} is not a model folder (no config.json). Give a Hugging Face folder.")
        self.tokenizer = AutoTokenizer.from_pretrained(folder, padding_side="left")
        self.model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
        self.seed, self.max_new_tokens, self.batch = seed, max_new_tokens, batch

    def sample(self, prompts: Sequence[Sequence[int]], progress: Callable[[int], None] | None = None) -> list[str]:
        """One response at temperature 1 for each prompt of token ids, without special tokens."""
        return self.tokenizer.batch_decode(self.sample_ids(prompts, progress), skip_special_tokens=True)

    @torch.inference_mode()
    def sample_ids(
        self, prompts: Sequence[Sequence[int]], progress: Callable[[int], None] | None = None
    ) -> list[list[int]]:
        """The same as token ids, the end token included where the policy came to it."""
        torch.manual_seed(self.seed)
        responses: list[list[int]] = [[] for _ in prompts]
        order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
        for start in range(0, len(order), self.batch):
            rows = order[start : start + self.batch]
            padded = self.tokenizer.pad({"input_ids": [list(prompts[i]) for i in rows]}, return_tensors="pt")
            out = self.model.generate(
                **padded, do_sample=True, temperature=1.0, top_k=0, top_p=1.0, max_new_tokens=self.max_new_tokens
            )
            for row, answer in zip(rows, out[:, padded["input_ids"].shape[1] :].tolist(), strict=True):
                responses[row] = self._to_the_end(answer)
            if progress:
                progress(len(rows))
        return responses

    def _to_the_end(self, ids: list[int]) -> list[int]:
        end = self.tokenizer.eos_token_id
        return ids[: ids.index(end) + 1] if end in ids else ids
