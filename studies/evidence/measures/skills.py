"""The skills of a policy, before and after training: what was learned, and what was lost.

On worlds that no run trained on, both families of problems, four conditions (`studies.pretrain.skills`); and on the
run's own world, training and held-out problems, how many of 8 programs pass and how many are distinct.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from sandbox import Sandbox, extract_code
from sdpo.config.sections import ContextSettings
from sdpo.envs.code.judging import judge_responses
from sdpo.envs.minicode import LISTS, TEXTS, load_minicode
from sdpo.prompts.context import ContextBuilder
from studies.evidence.measures.store import save
from studies.pretrain.sampling import Sampler
from studies.pretrain.skills import Judged, measure_skills

SAMPLES = 8
OTHER_WORLDS = (101, 102, 103)  # those of the policy's card
Say = Callable[[str], None]


def measure(policy: Path, label: dict[str, Any], worlds: Sequence[int], conditions: bool, out: Path, say: Say) -> None:
    """Measure the model folder `policy` and write `out`.

    label       what it is: the run and step that it comes from
    worlds      own worlds: their problems are asked `SAMPLES` times each
    conditions  measure all conditions on the own worlds too: with feedback and with a solution, the policy's ceiling
    """
    started = time.monotonic()
    other = {}
    for family in (LISTS, TEXTS):
        say(f"{label['policy']}: {family.name}, worlds {', '.join(map(str, OTHER_WORLDS))}")
        other[family.name] = by_condition(measure_skills(policy, OTHER_WORLDS, SAMPLES, family=family))
    own = {}
    for world in worlds:
        say(f"{label['policy']}: its own problems, world {world}")
        own[str(world)] = _own(policy, world)
        if conditions:
            own[str(world)]["conditions"] = by_condition(measure_skills(policy, (world,), SAMPLES))
    save(out, time.monotonic() - started, {**label, "samples": SAMPLES, "other": other, "own": own})


def by_condition(outcomes: Sequence[Judged]) -> dict[str, dict[str, list[int]]]:
    """Condition → {"n": samples, "passed": passes}, problem by problem in the order of their first outcomes."""
    counts: dict[str, dict[str, list[int]]] = {}
    for outcome in outcomes:
        row = counts.setdefault(outcome.condition, {}).setdefault(outcome.problem, [0, 0])
        row[0] += 1
        row[1] += outcome.passed
    return {
        condition: {"n": [n for n, _ in rows.values()], "passed": [c for _, c in rows.values()]}
        for condition, rows in counts.items()
    }


def _own(policy: Path, world: int) -> dict[str, Any]:
    """Training and held-out problems of a world, first try: passes and distinct programs of each problem."""
    dataset = load_minicode(world)
    sampler = Sampler(policy)
    builder = ContextBuilder(sampler.tokenizer, ContextSettings(template="compact"))
    result = {}
    with Sandbox() as sandbox:
        for name, problems in (("train", dataset.train), ("held_out", dataset.evaluation)):
            each = [problem for problem in problems for _ in range(SAMPLES)]
            texts = sampler.sample([builder.prompt(problem.task("compact")) for problem in each])
            passed = [j.passed for j in judge_responses(sandbox, each, texts, training=False)]
            groups = range(0, len(each), SAMPLES)
            result[name] = {
                "passed": [sum(passed[i : i + SAMPLES]) for i in groups],
                "distinct": [len({extract_code(text) for text in texts[i : i + SAMPLES]}) for i in groups],
            }
    return result
