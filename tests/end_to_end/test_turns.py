"""Several turns on real engines and ranks: the bundled problems, attempt, error message, repair."""

from __future__ import annotations

import numpy as np
import pytest

from sdpo.prompts.context import continues
from sdpo.tracking.rollouts import read_rollouts
from tests.helpers.training import SAME_TOKENS, TURNS, make_recipe, run

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(600), pytest.mark.slow]

OPTIONS = (*TURNS, "run.steps=2", "evaluation.at_start=true")
FIRST: dict[str, list[str]] = {}  # algorithm → what was said in the first step


@pytest.mark.parametrize(
    ("algorithm", "options"),
    [("sdpo", ("context.feedback=always",)), ("grpo", ("policy_gradient.returns=turn",))],
    ids=["sdpo", "grpo"],
)
async def test_two_steps_of_three_turns(algorithm, options, workers, learner_for, tmp_path):
    recipe = make_recipe(algorithm, *OPTIONS, *options)
    trainer, folder = await run(recipe, tmp_path / "run", workers, learner_for)
    assert trainer.checked == 2
    rows = [row for row in folder.metrics if "learner/loss" in row]
    tokens = 0
    for row in rows:
        assert np.isfinite(row["learner/loss"]) and row["learner/skipped_updates"] == 0
        # What an engine sampled behind its prefix cache, turn after turn, the learner computes as one sequence.
        assert row["policy/sampler_gap_max"] < SAME_TOKENS
        assert 1 < row["turns/per_rollout"] <= 3 and row["turns/history_rewritten"] == row["turns/context_full"] == 0
        assert row["train/pass_rate/turn_1"] <= row["train/pass_rate/turn_3"] == row["train/pass_rate"]
        tokens += row["response/tokens"]
        assert row["generated_tokens"] == tokens
        if algorithm == "sdpo":
            assert all(row[f"distillation/loss/turn_{turn}"] > 0 for turn in (1, 2, 3))
    assert any(row["learner/grad_norm"] > 0 for row in rows)
    evaluations = [row for row in folder.metrics if "eval/held_out/pass@1" in row]
    assert [row["step"] for row in evaluations] == [0, 2]
    for row in evaluations:
        assert row["eval/held_out/first_turn/pass@1"] <= row["eval/held_out/pass@1"]
        assert 1 < row["eval/held_out/turns"] <= 3
    for rollout in (r for group in trainer.seen for r in group.rollouts):
        assert all(continues(*pair) for pair in zip(rollout.turns, rollout.turns[1:], strict=False))
        assert all(not turn.solved for turn in rollout.turns[:-1])
    table = read_rollouts(folder.path / "rollouts", 1)
    assert {row["turn"] for row in table} == {1, 2, 3}
    assert all("\nFeedback:\n" in row["prompt"] for row in table if row["turn"] > 1)
    FIRST[algorithm] = [row["response"] for row in table]


async def test_the_first_step_is_a_function_of_the_seed():
    """Both algorithms began with the same weights: each turn of each rollout said the same."""
    assert len(FIRST) == 2 and FIRST["sdpo"] == FIRST["grpo"]
