"""One rank of the learner: the student in a DeepSpeed engine, with teacher and reference beside it.

All ranks form one process group (gloo on CPU, NCCL on GPUs).  Data parallelism with ZeRO 0–3; every rank runs the same
number of micro-batches, because collectives of ZeRO-2 and ZeRO-3 happen in each of them.
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import deepspeed
import numpy as np
import torch

from sdpo.algorithms.base import LossPlan
from sdpo.config.schema import Recipe
from sdpo.learner import export, model_check
from sdpo.learner.advantage_clip import AdvantageClip
from sdpo.learner.deepspeed_config import clips_itself, inference_config, learning_rate_factor, training_config
from sdpo.learner.extensions import build_extensions
from sdpo.learner.model import PolicyModel, load_model
from sdpo.learner.objective import Targets, build_objective
from sdpo.learner.packing import Pack, fill, pack
from sdpo.learner.replica import Replica
from sdpo.learner.rows import Row, unweighted_row
from sdpo.learner.skipped import not_finite_input, not_finite_output
from sdpo.learner.sums import Sums, scored_tokens, token_sums
from sdpo.learner.teacher import Teacher
from sdpo.losses.chunked import chunks
from sdpo.losses.vocabulary import vocabulary_pass
from sdpo.types import ScoredTokens
from sdpo.weights.publisher import Publisher


class LearnerWorker:
    def __init__(self, recipe: Recipe, plan: LossPlan, rank: int) -> None:
        self.recipe, self.plan, self.rank = recipe, plan, rank
        self.on_gpu = recipe.profile == "gpu"
        self._triton = None if recipe.learner.triton else False  # None: where there is a device for it

    def address(self) -> tuple[str, int]:
        """Where rank 0 listens for the others."""
        import ray

        with socket.socket() as free:
            free.bind(("", 0))
            return ray.util.get_node_ip_address(), free.getsockname()[1]

    def start(self, address: tuple[str, int]) -> None:
        """Join the process group, load the model, build the engine.  Collective."""
        os.environ.update(
            MASTER_ADDR=address[0],
            MASTER_PORT=str(address[1]),
            RANK=str(self.rank),
            WORLD_SIZE=str(self.recipe.learner.ranks),
            LOCAL_RANK="0",  # Ray shows every worker its own devices only
        )
        logging.getLogger("DeepSpeed").setLevel(logging.WARNING)
        settings = self.recipe.learner
        if not self.on_gpu:
            torch.set_num_threads(settings.cpu_threads)
        build_extensions()
        deepspeed.init_distributed(dist_backend="nccl" if self.on_gpu else "gloo", verbose=False)
        self.device = torch.device("cuda", 0) if self.on_gpu else torch.device("cpu")
        self.dtype = getattr(torch, self.recipe.model.dtype)
        config = training_config(self.recipe)
        # Kept alive: while it exists, from_pretrained shards weights as it reads them.
        self._zero3_loading = _shard_while_loading(config) if settings.zero_stage == 3 else None
        self.student: PolicyModel = load_model(self.recipe.model, self.dtype)
        if settings.gradient_checkpointing:
            self.student.recompute_layers()
        optimizer = torch.optim.AdamW(
            self.student.parameters(),
            lr=settings.lr,
            betas=settings.betas,
            weight_decay=settings.weight_decay,
            fused=True,
        )
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, learning_rate_factor(self.recipe))
        self.engine, *_ = deepspeed.initialize(
            model=self.student, optimizer=optimizer, lr_scheduler=scheduler, config=config
        )
        self.engine.train()
        if clips_itself(self.recipe):
            optimizer.register_step_pre_hook(self._clip)
        self.reference = self._replica(Replica) if self.plan.reference is not None else None
        self.teacher = None
        if self.plan.distillation is not None:
            self.teacher = Teacher(self.recipe.teacher, self._replica, self.reference)
        factor = self.plan.distillation and self.plan.distillation.advantage_clip_factor
        self.advantage_clip = AdvantageClip(factor) if factor else None
        self.publisher: Publisher | None = None
        self._bad_gradient: str | None = None
        self._moved = False  # whether the student has moved since the batch began
        self._check_numbers()

    def _replica(self, kind: type[Replica]) -> Replica:
        zero3 = inference_config(self.recipe) if self.recipe.learner.zero_stage == 3 else None
        return kind(self.recipe.model, self.dtype, self.device, zero3)

    @torch.no_grad()
    def _check_numbers(self) -> None:
        """UserError if the loaded student's log-probs are not plain transformers'.  Collective."""
        model, temperature = self.student.model, self.recipe.rollout.temperature
        asked = model_check.sequences(model.config.get_text_config(decoder=True).vocab_size)
        rows = [unweighted_row(p, r) for p, r in zip(*asked, strict=True)]
        self.engine.eval()
        packed = self._score(rows, self._run_student)
        alone = torch.cat([self._score([row], self._run_student) for row in rows])
        with model_check.own_attention(model):
            plain = model_check.plain_log_probs(model, asked, temperature)
        self.engine.train()
        model_check.compare(model.config.model_type, self.dtype, packed, alone, plain, exact=False)

    def probe(self, tokens: int) -> tuple[str, list[int], list[int], np.ndarray]:
        """(kind of model, prompt, response, log-probs of the response at temperature 1), random tokens.  Collective."""
        config = self.student.model.config
        prompt, response = model_check.probe(config.get_text_config(decoder=True).vocab_size, tokens)
        self.engine.eval()
        found = self._score([unweighted_row(prompt, response)], self._run_student, temperature=1.0)
        self.engine.train()
        return config.model_type, prompt, response, found.float().cpu().numpy()

    # ------------------------------------------------------------------------------------------------ training

    def update(self, micro_batches: list[list[Row]]) -> tuple[Sums, dict[str, float]]:
        """One optimiser step on this rank's micro-batches.  Returns sums over its tokens, and step-wide numbers.

        A gradient that is not finite changes nothing: not the weights, the optimiser, its schedule, nor the teacher.
        Then `learner/skipped_updates` is 1.
        """
        sums = Sums()
        for rows in micro_batches:
            loss, outputs = self._loss(rows)
            # DeepSpeed averages gradients over ranks; the weights already divide by the counts of all ranks.
            self.engine.backward(loss * self.recipe.learner.ranks)
            sums.add(token_sums(rows, loss, outputs))
        [rate] = self.engine.get_lr()  # the step moves the schedule on
        self.engine.step()
        applied = self.engine.was_step_applied()  # the same on every rank: gradients or their norm are reduced before
        if applied:
            self._moved = True
            if self.advantage_clip is not None:
                self.advantage_clip.observe(sums, self.device)
            if self.teacher is not None:
                self.teacher.follow(self.student, "update")
        norm = self._norm if clips_itself(self.recipe) else self.engine.get_global_grad_norm()
        return sums, {
            "learner/grad_norm": float(norm),
            "learner/lr": rate,
            "learner/skipped_updates": float(not applied),
        }

    def _clip(self, optimizer: torch.optim.Optimizer, *_: Any) -> None:
        """Between the reduction of the gradients over ranks and the optimiser's step."""
        self._norm = torch.nn.utils.clip_grad_norm_(self.student.parameters(), self.recipe.learner.clip_grad_norm)
        # As DeepSpeed's own optimisers say it: the step was skipped, and the schedule is to stay where it is.
        optimizer.overflow = not torch.isfinite(self._norm)
        if optimizer.overflow:
            gradients = ((n, p.grad) for n, p in self.student.model.named_parameters() if p.grad is not None)
            bad = (name for name, gradient in gradients if not torch.isfinite(gradient).all())
            self._bad_gradient = f"the gradient of {next(bad, 'all weights together, whose norm overflows')}"
            self.student.zero_grad(set_to_none=True)  # without gradients the step does nothing

    @torch.no_grad()
    def first_not_finite(self, micro_batches: list[list[Row]]) -> str | None:
        """What is not finite in a batch that was skipped: of its rows, the weights, or what is computed.  Collective.

        Else it is a gradient, of which plain data parallelism knows the name.
        """
        streams = (self.plan.policy_gradient, self.plan.distillation)
        sampled = any(s is not None and s.sampler_threshold is not None for s in streams)
        found = [not_finite_input(rows, sampled) for rows in micro_batches]
        for name, weight in export.checkpoint_tensors(self.student.model):
            if not torch.isfinite(weight).all():
                found.append(f"the weight {name} of the policy")
        for rows in micro_batches:
            outputs = self._loss(rows)[1]
            found.append(not_finite_output(rows, {n: value.float().cpu().numpy() for n, value in outputs.items()}))
        return next(filter(None, found), self._bad_gradient)

    def finish_batch(self) -> None:
        """The generation batch is used up: the moment at which a per-batch moving average moves.  Collective."""
        if self.teacher is not None and self._moved:
            self.teacher.follow(self.student, "batch")
        self._moved = False
        if self.recipe.rollout.colocated:
            torch.cuda.empty_cache()  # engines on the same GPU wake up next

    def log_probs(self, micro_batches: list[list[Row]]) -> list[list[np.ndarray]]:
        """The current policy's log-probs of the response tokens, row by row, at the sampling temperature."""
        return [_by_row(self._score(rows, self._run_student), rows) for rows in micro_batches]

    @torch.no_grad()
    def scores(self, micro_batches: list[list[Row]]) -> list[list[ScoredTokens]]:
        """What a weight hook sees of every row, under the present student and teacher.  Collective."""
        return [scored_tokens(rows, self._loss(rows)[1]) for rows in micro_batches]

    def _loss(self, rows: list[Row]) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        settings = self.recipe.learner
        targets = self._targets(rows)
        with self._teacher_logits(rows) as teacher:
            targets = self._sequence_means(rows, targets, teacher)
            plan = self.plan if self.advantage_clip is None else self.advantage_clip.applied(self.plan)
            objective = build_objective(plan, targets, teacher, self._triton)
            return self.engine(self._pack(rows), objective, settings.chunk_tokens, self.recipe.rollout.temperature)

    def _teacher_logits(self, rows: list[Row]):
        """Context of the teacher's logits for the rows' response tokens; zeros where a row has no teacher context."""
        if self.teacher is None:
            return nullcontext()
        taught = [i for i, row in enumerate(rows) if row.teacher_prompt_ids is not None]
        prompts = [rows[i].teacher_prompt_ids for i in taught]
        lengths = [len(row.response_ids) for row in rows]
        passes = fill(prompts, [lengths[i] for i in taught], self.recipe.learner.micro_batch_tokens)
        order = [taught[j] for members in passes for j in members]
        packs = [self._pack([rows[taught[j]] for j in members], "teacher_prompt_ids") for members in passes]
        if self.recipe.learner.zero_stage == 3:  # the other ranks may need this one in the teacher's collectives
            packs += [self._pack(rows[:1])] * (self._most(len(packs)) - len(packs))
        if not packs:
            return nullcontext()
        ends = np.cumsum(lengths)
        where = [np.arange(ends[i] - lengths[i], ends[i]) for i in order]
        places = torch.from_numpy(np.concatenate([np.empty(0, np.int64), *where])).to(self.device)

        def scatter(hidden: torch.Tensor) -> torch.Tensor:
            everywhere = hidden.new_zeros(ends[-1], hidden.shape[1])
            return everywhere.index_copy_(0, places, hidden[: len(places)])

        return self.teacher.logits(self.student, self._run_student, packs, self.recipe.rollout.temperature, scatter)

    def _most(self, number: int) -> int:
        """The largest `number` of all ranks.  Collective."""
        largest = torch.tensor(number, device=self.device)
        torch.distributed.all_reduce(largest, torch.distributed.ReduceOp.MAX)
        return int(largest)

    def _targets(self, rows: list[Row]) -> Targets:
        def flat(arrays: Iterable[np.ndarray]) -> torch.Tensor:
            return torch.from_numpy(np.concatenate(list(arrays))).to(self.device)

        def joined(name: str) -> torch.Tensor:
            return flat(getattr(row, name) for row in rows)

        reference = self.reference
        advantages = (np.zeros_like(r.sampler_log_probs) if r.advantages is None else r.advantages for r in rows)
        return Targets(
            tokens=joined("response_ids"),
            sampler_log_probs=joined("sampler_log_probs"),
            advantages=flat(advantages),
            policy_gradient_weight=joined("policy_gradient_weight"),
            distillation_weight=joined("distillation_weight"),
            reference_weight=joined("reference_weight"),
            old_log_probs=None if rows[0].old_log_probs is None else joined("old_log_probs"),
            reference_log_probs=None if reference is None else self._score(rows, reference.hidden, reference.policy),
            sequence_gap=None,
            sequence_log_ratio=None,
        )

    def _sequence_means(self, rows: list[Row], targets: Targets, teacher) -> Targets:
        """Fill in what a loss needs of whole responses, which one chunk does not hold, by a pass without gradient."""
        gradient, distillation = self.plan.policy_gradient, self.plan.distillation
        gap = distillation is not None and distillation.level == "sequence" and teacher is not None
        ratio = gradient is not None and gradient.variant == "gspo"
        if not (gap or ratio):
            return targets
        lengths = [len(row.response_ids) for row in rows]
        if gap:  # the teacher first: running the student's head lets ZeRO-3 release a matrix that a live teacher needs
            slices = chunks(sum(lengths), self.recipe.learner.chunk_tokens)
            passes = (vocabulary_pass(teacher(s), targets.tokens[s], triton=self._triton) for s in slices)
            theirs = torch.cat([found.log_probs for found in passes])
        own = self._score(rows, self._run_student)
        if gap:
            gaps = _response_means(own - theirs, lengths, targets.distillation_weight != 0)
            targets = replace(targets, sequence_gap=gaps)
        if ratio:
            old = own if targets.old_log_probs is None else targets.old_log_probs
            ratios = _response_means(own - old, lengths, torch.ones_like(own, dtype=torch.bool))
            targets = replace(targets, sequence_log_ratio=ratios)
        return targets

    @torch.no_grad()
    def _score(
        self, rows: list[Row], run, policy: PolicyModel | None = None, temperature: float | None = None
    ) -> torch.Tensor:
        """[N]: log-probs of the response tokens under a policy, at the sampling temperature unless given."""
        policy = policy or self.student
        temperature = temperature or self.recipe.rollout.temperature
        tokens = torch.from_numpy(np.concatenate([row.response_ids for row in rows])).to(self.device)

        def log_probs(logits: torch.Tensor, s: slice):
            return logits.new_zeros(()), {
                "log_probs": vocabulary_pass(logits, tokens[s], triton=self._triton).log_probs
            }

        hidden = run(self._pack(rows))
        head, settings = policy.model.get_output_embeddings(), self.recipe.learner
        return head(hidden, log_probs, settings.chunk_tokens, temperature)[1]["log_probs"]

    def _pack(self, rows: list[Row], prompts: str = "prompt_ids") -> Pack:
        return pack([getattr(row, prompts) for row in rows], [row.response_ids for row in rows], self.device)

    def _run_student(self, pack: Pack) -> torch.Tensor:
        with torch.no_grad():
            return self.engine(pack)

    # ------------------------------------------------------------------------------------- weights and checkpoints

    def publish(self, engines: list[Any], version: int) -> dict[str, float]:
        """Send the student's weights to the rollout engines.  Collective; rank 0 sends."""
        if self.publisher is None:
            bucket_bytes = self.recipe.rollout.weight_bucket_mb * 2**20
            self.publisher = Publisher(self.recipe.weight_transfer, bucket_bytes, self.rank)
        report = self.publisher.publish(export.checkpoint_tensors(self.student.model), engines, version)
        return {"weights/bytes": float(report.bytes), "weights/pause_s": report.pause_seconds}

    def _named_weights(self) -> Iterator[tuple[str, torch.Tensor]]:
        """Names within the model and full tensors, persistent buffers included; a tied matrix comes once."""
        for tensors in export.named_state(self.student.model):
            yield from tensors

    def save(self, folder: str) -> None:
        """Write student, optimiser, schedule and the moving-average teacher (fp32) below `folder`.  Collective."""
        state = {"mean_advantage": None if self.advantage_clip is None else self.advantage_clip.mean}
        self.engine.save_checkpoint(folder, tag="student", client_state=state, save_latest=False)
        average = self.teacher.average if self.teacher is not None else None
        if average is not None and (average.sharded or self.rank == 0):
            torch.save(average.state_dict(), self._teacher_file(folder))

    def load(self, folder: str) -> None:
        """Take over what `save` wrote.  Collective; needs the number of ranks that it was written with."""
        path, state = self.engine.load_checkpoint(folder, tag="student")
        if path is None:
            raise RuntimeError(f"DeepSpeed found no checkpoint in {folder}.")
        if self.advantage_clip is not None:
            self.advantage_clip.mean = state["mean_advantage"]
        if self.teacher is not None and self.teacher.average is not None:
            self.teacher.average.load_state_dict(torch.load(self._teacher_file(folder), map_location=self.device))

    def _teacher_file(self, folder: str) -> Path:
        sharded = self.teacher.average.sharded
        return Path(folder) / (f"teacher-rank{self.rank}.pt" if sharded else "teacher.pt")

    def export(self, folder: str) -> None:
        """Write the student as a Hugging Face folder (weights and configuration).  Collective; rank 0 writes."""
        state = {}
        for name, tensor in self._named_weights():
            if self.rank == 0:
                state[name] = tensor.cpu().clone()
        if self.rank == 0:
            export.write(self.student.model, state, folder)


def _shard_while_loading(config: dict) -> Any:
    from transformers.integrations import HfDeepSpeedConfig

    return HfDeepSpeedConfig(config)


def _by_row(values: torch.Tensor, rows: list[Row]) -> list[np.ndarray]:
    return np.split(values.float().cpu().numpy(), np.cumsum([len(row.response_ids) for row in rows])[:-1])


def _response_means(values: torch.Tensor, lengths: list[int], counted: torch.Tensor) -> torch.Tensor:
    """For every token the mean over the counted tokens of its response; 0 where none counts."""
    parts = zip((values * counted).split(lengths), counted.split(lengths), strict=True)
    return torch.cat([(part.sum() / tokens.sum().clamp(min=1)).expand(len(part)) for part, tokens in parts])
