"""The training loop: AdamW on next-token loss, data-parallel over single-threaded processes.

One process per core instead of one process with many threads: the matrices are small, and a thread pool that waits at
every one of them suffers badly when the machine has other work.
"""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch.nn.functional import cross_entropy
from transformers import AutoTokenizer

from studies.pretrain.batches import Batch, batches
from studies.pretrain.model import make_model
from studies.pretrain.tokenizer import prompt_text, train_tokenizer
from studies.pretrain.worlds import CORPORA

Report = Callable[[int, dict[str, float]], None]


@dataclass(frozen=True)
class PretrainSettings:
    """The recipe.  Values are those of the feasibility study except where a comment says why not."""

    world: str = "minicode"  # or minitools
    seed: int = 0
    steps: int = 9000  # of fewer tokens than the study's
    batch: int = 32  # examples per step, over all processes; large batches fail: too few updates
    learning_rate: float = 2e-3
    warmup: int = 50
    constant: float = 0.6  # share of the steps at the full rate, then linear to `final`
    final: float = 0.05
    betas: tuple[float, float] = (0.9, 0.98)
    clip: float = 1.0
    layers: int = 4  # .21 M parameters each, and .1 M for the vocabulary
    vocab_size: int = 768
    tokenizer_examples: int = 12_000
    processes: int = 2
    checkpoint_every: int = 250

    def __post_init__(self) -> None:
        if self.world not in CORPORA:
            raise ValueError(f"world={self.world} is none of {', '.join(CORPORA)}.")
        if self.processes < 1 or self.batch % self.processes or self.steps < 1:
            raise ValueError(f"batch={self.batch} must be a multiple of processes={self.processes}; steps at least 1.")

    def rate(self, step: int) -> float:
        """Learning rate of step `step` (from 0)."""
        start = self.constant * self.steps
        decay = 1.0 if step < start else 1 - (1 - self.final) * (step - start) / (self.steps - start)
        return self.learning_rate * min(1.0, (step + 1) / self.warmup) * decay


def train(settings: PretrainSettings, out: Path, report: Report | None = None) -> None:
    """Train from nothing and write the policy to `out`, and to `out`/checkpoint every `checkpoint_every` steps.

    Results repeat for the same settings on the same kind of processor with the locked library versions.
    """
    out.mkdir(parents=True, exist_ok=True)
    corpus = CORPORA[settings.world]
    texts = (prompt_text(e.content) + e.response for e in corpus.examples(settings.seed, settings.tokenizer_examples))
    train_tokenizer(texts, corpus.phrases, settings.vocab_size).save_pretrained(out)
    rendezvous = f"file://{out.resolve()}/.rendezvous-{os.getpid()}-{time.time_ns()}"
    others = (
        mp.start_processes(
            _worker, (settings, out, rendezvous), nprocs=settings.processes - 1, join=False, start_method="spawn"
        )
        if settings.processes > 1
        else None
    )
    try:
        _run(0, settings, out, rendezvous, report)
        if others:
            others.join()
    finally:
        for process in others.processes if others else ():
            process.terminate()
        Path(rendezvous.removeprefix("file://")).unlink(missing_ok=True)


def _worker(index: int, settings: PretrainSettings, out: Path, rendezvous: str) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches every process of the terminal; the first one answers
    _run(index + 1, settings, out, rendezvous, None)


def _run(rank: int, settings: PretrainSettings, out: Path, rendezvous: str, report: Report | None) -> None:
    torch.set_num_threads(1)
    if settings.processes > 1:
        dist.init_process_group("gloo", init_method=rendezvous, rank=rank, world_size=settings.processes)
    try:
        _loop(rank, settings, out, report)
    finally:
        if settings.processes > 1:
            dist.destroy_process_group()


def _loop(rank: int, settings: PretrainSettings, out: Path, report: Report | None) -> None:
    tokenizer = AutoTokenizer.from_pretrained(out)
    model = make_model(len(tokenizer), settings.layers, settings.seed, tokenizer.pad_token_id, tokenizer.eos_token_id)
    parameters = list(model.parameters())
    optimizer = torch.optim.AdamW(parameters, lr=0.0, betas=settings.betas, fused=True)
    data = batches(CORPORA[settings.world], settings.seed, rank, settings.batch // settings.processes, tokenizer)
    model.train()
    for step in range(settings.steps):
        batch = next(data)
        losses, loss = _losses(model, batch)
        optimizer.zero_grad()
        loss.backward()
        _average_gradients(parameters, settings.processes)
        torch.nn.utils.clip_grad_norm_(parameters, settings.clip)
        for group in optimizer.param_groups:
            group["lr"] = settings.rate(step)
        optimizer.step()
        if rank == 0:
            if report:
                report(step + 1, _by_mode(losses, batch, list(CORPORA[settings.world].modes)))
            if (step + 1) % settings.checkpoint_every == 0 and step + 1 < settings.steps:
                save_policy(model, tokenizer, out / "checkpoint", settings, step + 1)
    if rank == 0:
        save_policy(model, tokenizer, out, settings, settings.steps)


def _losses(model: torch.nn.Module, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
    """(negative log-likelihoods [B, T − 1], weighted mean).  No attention mask: padding lies behind everything."""
    logits = model(input_ids=batch.ids[:, :-1], use_cache=False).logits
    losses = cross_entropy(logits.flatten(0, 1), batch.ids[:, 1:].flatten(), reduction="none").view(len(batch.ids), -1)
    weight = batch.weight[:, 1:]
    return losses.detach(), (losses * weight).sum() / weight.sum()


def _average_gradients(parameters: list[torch.nn.Parameter], processes: int) -> None:
    if processes == 1:
        return
    flat = torch.cat([p.grad.flatten() for p in parameters])
    dist.all_reduce(flat)
    flat /= processes
    offset = 0
    for p in parameters:
        p.grad.copy_(flat[offset : offset + p.numel()].view_as(p))
        offset += p.numel()


def _by_mode(losses: torch.Tensor, batch: Batch, modes: list[str]) -> dict[str, float]:
    """Mean negative log-likelihood of a whole answer, in nats, for each mode in the batch."""
    answers = (losses * batch.answer[:, 1:]).sum(1)
    return {
        name: answers[batch.mode == index].mean().item()
        for index, name in enumerate(modes)
        if (batch.mode == index).any()
    }


def save_policy(model, tokenizer, folder: Path, settings: PretrainSettings, step: int) -> None:
    """A Hugging Face folder, with the settings that made it beside the weights."""
    folder.mkdir(parents=True, exist_ok=True)
    model.generation_config.update(eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id)
    model.save_pretrained(folder)
    (folder / "model.safetensors").chmod(0o644)
    tokenizer.save_pretrained(folder)
    record = {"step": step, "settings": asdict(settings)}
    (folder / "pretraining.json").write_text(json.dumps(record, indent=2) + "\n")
