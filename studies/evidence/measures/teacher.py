"""What the teacher of a run knows at each checkpoint, and what it says about which tokens.

For every training problem the student answers as often as in training, the sandbox judges on the training tests, and
the run's own context builder tells the teacher.  Then: the teacher's own answers behind these contexts, judged on the
tests that measure; the divergence of both on the student's tokens, by class; and whether the tokens that the teacher
finds less likely than the student does are the ones that a diff against a correct program changes.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sandbox import Sandbox
from sdpo.config.schema import Recipe
from sdpo.envs import build_environment
from sdpo.envs.code.environment import RENDERERS, CodeEnvironment, outcome_of
from sdpo.envs.code.judging import judge_responses
from sdpo.envs.code.problem import Problem, fenced
from sdpo.losses.divergence import divergence
from sdpo.losses.logits import sampled_log_probs
from sdpo.prompts.context import ContextBuilder
from sdpo.types import Group, Rollout, Turn
from studies.evidence.measures.agreement import agreement, wrong_tokens
from studies.evidence.measures.store import save
from studies.evidence.measures.teacher_model import Pair, load_pair, logits
from studies.evidence.measures.token_classes import CLASSES, token_classes

# Of the teacher's ranking, by chance, and of the student's own one: the tokens that it found least likely itself.
_AGREEMENT = ("precision", "chance", "auc", "own_precision", "own_auc")
EXAMPLES = 4  # responses that are kept token by token, of each checkpoint
Say = Callable[[str], None]


def measure(recipe: Recipe, folder: Path, label: dict[str, Any], out: Path, say: Say) -> None:
    """Measure every checkpoint of the run folder, and the initial policy, and write `out`."""
    started, environment = time.monotonic(), build_environment(recipe)
    checkpoints = [(0, None), *((int(path.name[5:]), path) for path in sorted(folder.glob("checkpoints/step-??????")))]
    rows = []
    with Sandbox() as sandbox:
        for step, checkpoint in checkpoints:
            say(f"{label['run']}: step {step}")
            pair = load_pair(recipe, checkpoint, seed=recipe.seed)
            rows.append({"step": step, **_Checkpoint(recipe, environment, pair, sandbox).measure()})
    save(out, time.monotonic() - started, {**label, "alpha": recipe.distillation.alpha, "checkpoints": rows})


@dataclass
class _Taught:
    """A response with a teacher's prompt."""

    problem: Problem
    ids: list[int]
    passed: bool  # on the evaluation tests
    prompt: tuple[int, ...]
    told: str  # "feedback", "solution" or "both"
    teacher_prompt: tuple[int, ...]
    correct: list[list[int]] = field(default_factory=list)  # correct programs as responses


@dataclass
class _Checkpoint:
    recipe: Recipe
    environment: CodeEnvironment
    pair: Pair
    sandbox: Sandbox

    def __post_init__(self) -> None:
        self.tokenizer = self.pair.student.tokenizer
        self.builder = ContextBuilder(self.tokenizer, self.recipe.context, self.recipe.model.thinking)

    def measure(self) -> dict[str, Any]:
        student_rate, taught = self._answers()
        texts = self.pair.teacher.sample([t.teacher_prompt for t in taught])
        verdicts = judge_responses(self.sandbox, [t.problem for t in taught], texts, training=False)
        passed = [[t.passed for t in taught], [verdict.passed for verdict in verdicts]]  # the student's, the teacher's
        rates = {}
        for told in ("all", "failed", *sorted({t.told for t in taught})):
            some = [i for i, t in enumerate(taught) if told in ("all", t.told) or (told == "failed" and not t.passed)]
            rates[told] = [len(some), *(sum(p[i] for i in some) / len(some) if some else None for p in passed)]
        return {"student": student_rate, "with_context": rates, **self._tokens(taught)}

    def _answers(self) -> tuple[float, list[_Taught]]:
        """(the student's pass rate over all its responses, those that have a teacher)."""
        n, problems = self.recipe.rollout.responses, self.environment.problems().train
        tasks = [problem.task(self.environment.style) for problem in problems]
        each = [problem for problem in problems for _ in range(n)]
        prompts = [self.builder.prompt(task) for task in tasks for _ in range(n)]
        ids = self.pair.student.sample_ids(prompts)
        texts = self.tokenizer.batch_decode(ids, skip_special_tokens=True)
        rewards = judge_responses(self.sandbox, each, texts, training=True)
        outcomes = [outcome_of(judgement, RENDERERS[self.environment.style]) for judgement in rewards]
        measured = [j.passed for j in judge_responses(self.sandbox, each, texts, training=False)]
        rng, taught = np.random.default_rng(self.recipe.seed), []
        for g, problem in enumerate(problems):
            rows = range(g * n, (g + 1) * n)
            turns = (
                Turn(prompts[i], tuple(ids[i]), np.zeros(len(ids[i])), "stop", text=texts[i], outcome=outcomes[i])
                for i in rows
            )
            group = Group(tasks[g], tuple(Rollout((turn,)) for turn in turns))
            correct = [ids[i] for i in rows if rewards[i].passed] + self._reference(problem)
            for i in rows:
                hint = self.builder.hint(group, i - g * n, rng)
                if hint is not None:
                    told = "both" if hint.demonstration and hint.feedback else None
                    told = told or ("solution" if hint.demonstration else "feedback")
                    reprompt = self.builder.reprompt(tasks[g], hint)
                    taught.append(_Taught(problem, ids[i], measured[i], prompts[i], told, reprompt, correct))
        return sum(measured) / len(measured), taught

    def _reference(self, problem: Problem) -> list[list[int]]:
        if problem.solution is None:
            return []
        response = fenced(problem.solution)
        return [[*self.tokenizer.encode(response, add_special_tokens=False), *self.builder.chat.turn_end]]

    def _tokens(self, taught: list[_Taught]) -> dict[str, Any]:
        """Divergence by token class, agreement with the diff, and examples."""
        ids = [t.ids for t in taught]
        own = logits(self.pair.student.model, [t.prompt for t in taught], ids)
        theirs = logits(self.pair.teacher.model, [t.teacher_prompt for t in taught], ids)
        # tokens, divergence, tokens of failed answers, of these wrong
        classes = {kind: [0, 0.0, 0, 0] for kind in CLASSES}
        found, examples = [], []
        for t, student, teacher in zip(taught, own, theirs, strict=True):
            tokens = np.array(t.ids)
            texts = [self.tokenizer.decode([i]) for i in t.ids]
            each = divergence(student, teacher, self.recipe.distillation.alpha).numpy()
            index = torch.from_numpy(tokens)
            surprise = -sampled_log_probs(student, index).numpy()
            gap = -surprise - sampled_log_probs(teacher, index).numpy()
            wrong = np.zeros(len(tokens), bool) if t.passed else wrong_tokens(t.ids, t.correct)
            for kind, value, is_wrong in zip(token_classes(texts), each.tolist(), wrong.tolist(), strict=True):
                added = (1, value, int(not t.passed), int(is_wrong))
                classes[kind] = [a + b for a, b in zip(classes[kind], added, strict=True)]
            if not t.passed and (row := agreement(gap, wrong)) is not None:
                found.append((t.problem.id, *row, *agreement(surprise, wrong)[::2]))
                if len(examples) < EXAMPLES and t.problem.id not in {e["problem"] for e in examples}:
                    examples.append(_example(t, texts, gap, wrong))
        return {
            "classes": {kind: [n, round(total, 4), *rest] for kind, (n, total, *rest) in classes.items()},
            "agreement": {
                "problem": [row[0] for row in found],
                **{key: [round(row[i], 4) for row in found] for i, key in enumerate(_AGREEMENT, 1)},
            },
            "examples": examples,
        }


def _example(t: _Taught, texts: list[str], gap: np.ndarray, wrong: np.ndarray) -> dict[str, Any]:
    return {
        "problem": t.problem.id,
        "statement": t.problem.statement,
        "told": t.told,
        "tokens": texts,
        "gap": [round(float(g), 3) for g in gap],
        "wrong": [int(w) for w in wrong],
    }
