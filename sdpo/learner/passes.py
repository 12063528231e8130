"""What a rank computes of rows: the loss, log-probs, and what the loss needs of the teacher and of whole responses.

The passes change nothing.  All of them are collectives under ZeRO-3.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from sdpo.algorithms.base import LossPlan
from sdpo.config.schema import Recipe
from sdpo.learner import model_check
from sdpo.learner.advantage_clip import AdvantageClip
from sdpo.learner.credit import Wanted
from sdpo.learner.layers import LayerTargets
from sdpo.learner.model import PolicyModel
from sdpo.learner.objective import Targets, build_objective
from sdpo.learner.packing import Pack, pack
from sdpo.learner.replica import Replica
from sdpo.learner.routing import Routing
from sdpo.learner.rows import Row, unweighted_row
from sdpo.learner.scorer import passes
from sdpo.learner.sums import scored_tokens
from sdpo.learner.teacher import Asked, Teacher
from sdpo.losses.chunked import chunks
from sdpo.losses.vocabulary import vocabulary_pass
from sdpo.types import ScoredTokens
from sdpo.weights.arrays import as_tensor


class ForwardPasses:
    """The passes of one rank through its student (`engine` around `student`), teacher and reference."""

    def __init__(
        self,
        recipe: Recipe,
        plan: LossPlan,
        engine: Any,
        student: PolicyModel,
        teacher: Teacher | None,
        reference: Replica | None,
        advantage_clip: AdvantageClip | None,
        device: torch.device,
    ) -> None:
        self.recipe, self.plan, self.engine, self.student = recipe, plan, engine, student
        self.teacher, self.reference, self.advantage_clip, self.device = teacher, reference, advantage_clip, device
        # What the loss divides logits by; those of a likelihood have nothing to do with how tokens were sampled.
        self.temperature = plan.temperature or recipe.rollout.temperature
        self._triton = None if recipe.learner.triton else False  # None: where there is a device for it
        self.routing = Routing(student.model)

    def log_probs(self, micro_batches: list[list[Row]]) -> list[list[np.ndarray]]:
        """The current policy's log-probs of the response tokens, row by row, at the loss's temperature."""
        return [_by_row(self.score(rows, self.run_student), rows) for rows in micro_batches]

    @torch.no_grad()
    def scores(self, micro_batches: list[list[Row]]) -> list[list[ScoredTokens]]:
        """What a weight hook sees of every row, under the present student and teacher.  Collective."""
        return [scored_tokens(rows, self.loss(rows)[1]) for rows in micro_batches]

    def loss(self, rows: list[Row], record: bool = False) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """The micro-batch's share of the loss, and outputs per token [N]; `record`: alternatives too (`Wanted`), and
        what routers did is counted."""
        settings = self.recipe.learner
        targets = self._targets(rows)
        with self._teacher_logits(rows) as teacher:
            targets = self._sequence_means(rows, targets, teacher)
            plan = self.plan if self.advantage_clip is None else self.advantage_clip.applied(self.plan)
            wanted = Wanted.of(rows, teacher is not None) if record else None
            objective = build_objective(plan, targets, teacher, self._triton, wanted)
            with self.routing.counting() if record else nullcontext():
                given = settings.chunk_tokens, self.temperature, self._layer_targets(rows)
                return self.engine(self._pack(rows), objective, *given)

    def _teacher_logits(self, rows: list[Row]):
        """Context of the teacher's logits for the rows' response tokens; zeros where a row has no teacher context."""
        if self.teacher is None:
            return nullcontext()
        blend = self.plan.distillation and self.plan.distillation.blend
        told = self._asked(rows, "teacher_prompt_ids")
        untold = self._asked(rows, "prompt_ids") if blend else None
        if not told.packs and not told.count:
            return nullcontext()
        softened = self.plan.distillation.teacher_temperature if self.plan.distillation else 1.0
        return self.teacher.logits(self.student, self.run_student, told, self.temperature * softened, untold, blend)

    def _asked(self, rows: list[Row], prompts_of: str) -> Asked:
        """Packs of the responses that the teacher re-scores, behind these prompts of theirs."""
        assert self.teacher is not None
        order = [i for i, row in enumerate(rows) if row.teacher_prompt_ids is not None]
        packs: list[Pack] = []
        if self.teacher.reads_student or not self.teacher.elsewhere:
            prompts, responses = [getattr(rows[i], prompts_of) for i in order], [rows[i].response_ids for i in order]
            filled = passes(prompts, responses, self.recipe.learner.pass_tokens)
            packs = [self._pack([rows[order[j]] for j in members], prompts_of) for members in filled]
            order = [order[j] for members in filled for j in members]
            if self.recipe.learner.zero_stage == 3:  # the other ranks may need this one in the teacher's collectives
                packs += [self._pack(rows[:1])] * (self._most(len(packs)) - len(packs))
        ends = np.cumsum([len(row.response_ids) for row in rows])
        places, count = np.full(ends[-1], -1), 0
        for i in order:
            length = len(rows[i].response_ids)
            places[ends[i] - length : ends[i]] = np.arange(count, count := count + length)
        states = None
        if self.teacher.elsewhere:
            states = self._states([rows[i] for i in order], "told" if prompts_of == "teacher_prompt_ids" else "untold")
        return Asked(packs, places, states)

    def _states(self, rows: list[Row], name: str) -> torch.Tensor | None:
        """[M, H]: what a teacher of its own has said of these rows.  None: there are none."""
        assert self.teacher is not None and self.teacher.head is not None
        last = self.teacher.head.in_features
        return self._said([getattr(row, name)[: len(row.response_ids), :last] for row in rows]) if rows else None

    def _layer_targets(self, rows: list[Row]) -> LayerTargets | None:
        """What its layers have said, behind that.  None: no layers are compared."""
        if self.student.projections is None:
            return None
        assert self.teacher is not None and self.teacher.head is not None
        last, asked = self.teacher.head.in_features, [row.teacher_prompt_ids is not None for row in rows]
        where = np.flatnonzero(np.repeat(asked, [len(row.response_ids) for row in rows]))
        said = [row.told[: len(row.response_ids), last:] for row, has in zip(rows, asked, strict=True) if has]
        width = len(self.recipe.layer_pairs) * self.student.projections.teacher_width
        none = torch.zeros(0, width, dtype=self.student.model.dtype, device=self.device)
        return LayerTargets(torch.from_numpy(where).to(self.device), self._said(said) if said else none)

    def _said(self, parts: list[np.ndarray]) -> torch.Tensor:
        """Hidden states of rows, one after the other; those of a filler row were of more tokens than it has."""
        return as_tensor(np.concatenate(parts), self.student.model.dtype).to(self.device)

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
            reference_log_probs=None if reference is None else self.score(rows, reference.hidden, reference.policy),
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
            each = (vocabulary_pass(teacher(s), targets.tokens[s], triton=self._triton) for s in slices)
            theirs = torch.cat([found.log_probs for found in each])
        own = self.score(rows, self.run_student)
        if gap:
            gaps = _response_means(own - theirs, lengths, targets.distillation_weight != 0)
            targets = replace(targets, sequence_gap=gaps)
        if ratio:
            old = own if targets.old_log_probs is None else targets.old_log_probs
            ratios = _response_means(own - old, lengths, torch.ones_like(own, dtype=torch.bool))
            targets = replace(targets, sequence_log_ratio=ratios)
        return targets

    @torch.no_grad()
    def score(
        self, rows: list[Row], run, policy: PolicyModel | None = None, temperature: float | None = None
    ) -> torch.Tensor:
        """[N]: log-probs of the response tokens under a policy, at the loss's temperature unless given."""
        policy = policy or self.student
        temperature = temperature or self.temperature
        tokens = torch.from_numpy(np.concatenate([row.response_ids for row in rows])).to(self.device)

        def log_probs(logits: torch.Tensor, s: slice):
            return logits.new_zeros(()), {
                "log_probs": vocabulary_pass(logits, tokens[s], triton=self._triton).log_probs
            }

        hidden = run(self._pack(rows))
        return policy.head(hidden, log_probs, self.recipe.learner.chunk_tokens, temperature)[1]["log_probs"]

    def _pack(self, rows: list[Row], prompts: str = "prompt_ids") -> Pack:
        return pack([getattr(row, prompts) for row in rows], [row.response_ids for row in rows], self.device)

    def run_student(self, pack: Pack) -> torch.Tensor:
        with torch.no_grad():
            return self.engine(pack)

    @torch.no_grad()
    def check_numbers(self) -> None:
        """UserError if the loaded student's log-probs are not plain transformers'.  Collective."""
        model, temperature = self.student.model, self.temperature
        dtype = getattr(torch, self.recipe.model.dtype)
        asked = model_check.sequences(model.config.get_text_config(decoder=True).vocab_size)
        rows = [unweighted_row(p, r) for p, r in zip(*asked, strict=True)]
        self.engine.eval()
        with self.student.head.whole():
            alone = torch.cat([self.score([row], self.run_student) for row in rows])
            packed = self.score(rows, self.run_student) if self.student.packs else alone
        with model_check.own_attention(model):
            plain = model_check.plain_log_probs(model, asked, temperature)
        self.engine.train()
        model_check.check_log_probs(
            model.config.model_type, dtype, self.student.packs, packed, alone, plain, exact=False
        )

    def probe(self, tokens: int) -> tuple[str, list[int], list[int], np.ndarray]:
        """(kind of model, prompt, response, log-probs of the response at temperature 1), random tokens.  Collective."""
        config = self.student.model.config
        prompt, response = model_check.probe(config.get_text_config(decoder=True).vocab_size, tokens)
        self.engine.eval()
        with self.student.head.whole():
            found = self.score([unweighted_row(prompt, response)], self.run_student, temperature=1.0)
        self.engine.train()
        return config.model_type, prompt, response, found.float().cpu().numpy()


def _by_row(values: torch.Tensor, rows: list[Row]) -> list[np.ndarray]:
    return np.split(values.float().cpu().numpy(), np.cumsum([len(row.response_ids) for row in rows])[:-1])


def _response_means(values: torch.Tensor, lengths: list[int], counted: torch.Tensor) -> torch.Tensor:
    """For every token the mean over the counted tokens of its response; 0 where none counts."""
    parts = zip((values * counted).split(lengths), counted.split(lengths), strict=True)
    return torch.cat([(part.sum() / tokens.sum().clamp(min=1)).expand(len(part)) for part, tokens in parts])
