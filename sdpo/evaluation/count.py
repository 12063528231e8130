"""From graded groups to the numbers of an evaluation."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from sdpo.errors import UserError
from sdpo.evaluation.results import EvaluationResult, ProblemResult
from sdpo.types import Group


def count(
    groups: Sequence[Group],
    *,
    ks: Sequence[int] = (1,),
    sampling: Mapping[str, Any] | None = None,
    dataset: str = "",
    test_split: str = "",
    problem_split: str = "",
    thinking: str = "official",
    most_turns: int = 1,
) -> EvaluationResult:
    """pass@k for each of `ks` from n rollouts per task (for greedy decoding n is 1).

    What could not be graded is left out, as `EvaluationResult.unjudged` says, and so is a task with too few rollouts
    left.  Raises UserError for a k that the number of rollouts does not allow, and where there is no task.
    """
    if not groups:
        raise UserError("There is no problem to evaluate on.")
    n = min(len(group.rollouts) for group in groups)
    if n < 1 or not ks or min(ks) < 1 or max(ks) > n:
        raise UserError(f"pass@k for k in {list(ks)} cannot be estimated from {n} samples per problem: take 1 ≤ k ≤ n.")
    versions = {turn.policy_version for group in groups for rollout in group.rollouts for turn in rollout.turns}
    counted = [_count(group) for group in groups]
    enough = tuple(problem for problem in counted if problem.n >= max(ks))
    if not enough:
        outcomes = (rollout.outcome for group in groups for rollout in group.rollouts if rollout.outcome is not None)
        reasons = (str(outcome.details.get("message", outcome.label)) for outcome in outcomes if outcome.reward is None)
        raise UserError(
            f"No response of the evaluation could be graded ({next(reasons, 'no reason given')}); see `sdpo doctor`."
        )
    return EvaluationResult(
        problems=enough,
        unjudged=sum(len(group.rollouts) for group in groups) - sum(problem.n for problem in enough),
        ks=tuple(ks),
        dataset=dataset,
        test_split=test_split,
        problem_split=problem_split,
        sampling=dict(sampling or {}),
        thinking=thinking,
        most_turns=most_turns,
        policy_version=versions.pop() if len(versions) == 1 else None,
    )


def _count(group: Group) -> ProblemResult:
    """Of the rollouts that were graded: an environment that failed says nothing about a policy."""
    rollouts = [rollout for rollout in group.rollouts if rollout.graded]
    labels = Counter(rollout.outcome.label for rollout in rollouts if rollout.outcome is not None)
    return ProblemResult(
        id=group.task.id,
        n=len(rollouts),
        c=sum(rollout.solved for rollout in rollouts),
        first_c=sum(rollout.turns[0].solved for rollout in rollouts),
        turns=sum(len(rollout.turns) for rollout in rollouts) / max(len(rollouts), 1),
        difficulty=group.task.difficulty,
        verdicts=dict(sorted(labels.items())),
        truncated=sum(rollout.last.truncated for rollout in rollouts),
        response_tokens=sum(len(turn.response_ids) for r in rollouts for turn in r.turns) / max(len(rollouts), 1),
    )
