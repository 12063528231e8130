"""Run folders whose rollout tables hold tokens: written by the real tracker, with generated numbers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from sdpo.tracking import RunFolder, RunInfo, rollout_rows
from sdpo.types import Group, Hint, Outcome, Rollout, Sample, TeacherContext, TokenCredit
from tests.helpers.tasks import problem, turn

WORDS = ["def", " f", "(", "a", ")", ":", "\n", "    ", "return", " a", " + ", "1", "é", "</script>", "<b>", "<end>"]
ATTACK = "</script><img src=x onerror=\"document.title='broken'\"><b>bold</b>"


def decode(ids) -> str:
    return "".join(WORDS[i % len(WORDS)] for i in ids)


def credit(rng: np.random.Generator, length: int, taught: bool, k: int = 5) -> TokenCredit:
    def below_zero(*shape: int) -> np.ndarray:
        return -rng.gamma(0.6, 1.5, shape).astype(np.float32)

    return TokenCredit(
        log_probs=below_zero(length),
        entropy=-below_zero(length),
        teacher_log_probs=below_zero(length) if taught else None,
        teacher_entropy=-below_zero(length) if taught else None,
        top_ids=rng.integers(0, len(WORDS), (length, k)).astype(np.int32),
        top_log_probs=below_zero(length, k),
        top_teacher_log_probs=below_zero(length, k) if taught else None,
    )


def group_of(rng: np.random.Generator, task: str, responses: int, length: int = 30):
    """A group with its samples and credit: solved, failed and ungraded responses, some without a teacher."""
    rollouts, samples, found = [], [], []
    for i in range(responses):
        n = int(rng.integers(length // 2, length))
        ids = tuple(rng.integers(0, len(WORDS), n).tolist())
        solved = bool(rng.random() < 0.4)
        outcome = Outcome(
            float(solved), solved, None if solved else f"Wrong: {ATTACK}", "accepted" if solved else "wrong"
        )
        if i == 3:
            outcome = Outcome(None, False, None, "sandbox error")
        made = turn(decode(ids), outcome, prompt_ids=(1, 2, 3), response_ids=ids, version=1)
        made = replace(made, sampler_log_probs=-rng.gamma(0.6, 1.5, n).astype(np.float32))
        taught = i != 1
        teacher = (
            TeacherContext((1, 2, 3, 8, 9), np.ones(n, np.float32), Hint(None, outcome.feedback)) if taught else None
        )
        rollouts.append(Rollout((made,)))
        samples.append(Sample(made.prompt_ids, ids, made.sampler_log_probs, teacher=teacher))
        found.append(credit(rng, n, taught))
    return Group(problem(name=task), tuple(rollouts)), samples, found


def make_run(
    path: Path, steps: int = 3, groups: int = 3, responses: int = 4, kept: int = 2, tasks: int = 5, length: int = 30
) -> Path:
    """`kept` groups of each step have tokens; tasks are drawn one after the other."""
    rng = np.random.default_rng(0)
    with RunFolder(path) as folder:
        info = RunInfo(recipe="livecodebench", algorithm="sdpo", seed=0, profile="cpu", command="sdpo train …")
        folder.create(info, {"name": path.name, "algorithm": {"name": "sdpo"}})
        for step in range(1, steps + 1):
            drawn = [f"task/{(step * groups + g) % tasks}" for g in range(groups)]
            made = [group_of(rng, task, responses, length) for task in drawn]
            credits = [found if g < kept else [None] * responses for g, (_, _, found) in enumerate(made)]
            rows = rollout_rows([g for g, _, _ in made], [s for _, s, _ in made], decode, credits)
            folder.write_rollouts(step, rows)
            folder.append_metrics({"step": step, "generations": step * groups * responses, "wall_clock_s": step})
        folder.set_status("finished")
    return path
