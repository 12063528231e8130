"""Examples as padded batches of token ids with a weight per token."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from transformers import PreTrainedTokenizerFast

from studies.pretrain.example import Example
from studies.pretrain.tokenizer import END, prompt_text
from studies.pretrain.worlds import Corpus

PROMPT_WEIGHT = 0.2  # of the loss on prompt tokens, beside 1 on the answer's
POOL = 16  # batches that are sorted by length together, so that little is padded


@dataclass(frozen=True)
class Batch:
    ids: torch.Tensor  # int64 [B, T], padded on the right
    weight: torch.Tensor  # float32 [B, T]: loss weight of predicting this token; 0 on padding and on the first
    answer: torch.Tensor  # bool [B, T]: tokens of the response, end token included
    mode: torch.Tensor  # int64 [B]: index into the modes of the corpus


def collate(examples: list[Example], tokenizer: PreTrainedTokenizerFast, modes: Sequence[str]) -> Batch:
    prompts = tokenizer([prompt_text(e.content) for e in examples], add_special_tokens=False).input_ids
    answers = tokenizer([e.response + END for e in examples], add_special_tokens=False).input_ids
    width = max(len(p) + len(a) for p, a in zip(prompts, answers, strict=True))
    ids = torch.full((len(examples), width), tokenizer.pad_token_id)
    weight = torch.zeros(len(examples), width)
    answer = torch.zeros(len(examples), width, dtype=torch.bool)
    for row, (p, a) in enumerate(zip(prompts, answers, strict=True)):
        ids[row, : len(p) + len(a)] = torch.tensor(p + a)
        weight[row, 1 : len(p)] = PROMPT_WEIGHT
        weight[row, len(p) : len(p) + len(a)] = 1.0
        answer[row, len(p) : len(p) + len(a)] = True
    mode = torch.tensor([modes.index(e.mode) for e in examples])
    return Batch(ids, weight, answer, mode)


def batches(corpus: Corpus, seed: int, rank: int, size: int, tokenizer: PreTrainedTokenizerFast) -> Iterator[Batch]:
    """Endless batches of `size` examples.  Ranks get different examples of about the same length at the same step."""
    examples = random.Random(f"{seed} rank {rank}")
    order = random.Random(f"{seed} order")
    while True:
        pool = [corpus.random_example(examples) for _ in range(POOL * size)]
        pool.sort(key=lambda e: len(e.content) + len(e.response))
        for index in order.sample(range(POOL), POOL):
            yield collate(pool[index * size : (index + 1) * size], tokenizer, list(corpus.modes))
