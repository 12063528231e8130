"""What an evaluation found, in numbers that can be stored, compared and plotted."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from sdpo.errors import UserError
from sdpo.evaluation.bootstrap import Estimate, bootstrap_mean
from sdpo.evaluation.passk import pass_at_k

FORMAT = 1


@dataclass(frozen=True)
class ProblemResult:
    """One problem: n samples, of which c passed every evaluation test, with several turns in the end."""

    id: str
    n: int
    c: int
    difficulty: str = ""
    verdicts: Mapping[str, int] = field(default_factory=dict)  # verdict → how many samples
    truncated: int = 0  # samples that hit the token limit
    response_tokens: float = 0.0  # mean length, of all turns together
    first_c: int | None = None  # of the samples, how many passed at the first turn; None: of a result that did not say
    turns: float = 1.0  # mean


@dataclass(frozen=True)
class EvaluationResult:
    """Results per problem, and what is needed to know what they are results of.

    `sampling` says how the responses were drawn (temperature, top_p, …; temperature 0 is greedy).  pass@k and its
    interval over problems are computed from the counts, so a stored file cannot contradict itself.
    """

    problems: tuple[ProblemResult, ...]
    ks: tuple[int, ...]
    dataset: str = ""
    test_split: str = ""
    problem_split: str = ""
    sampling: Mapping[str, Any] = field(default_factory=dict)
    thinking: str = "official"  # the rule by which programs were found in responses, `evaluation.thinking` of a recipe
    policy_version: int | None = None  # the only one that answered; None if it changed during the evaluation
    seed: int = 0  # of the bootstrap
    most_turns: int = 1  # that a sample might have; pass@k is what was reached in the end
    unjudged: int = 0  # samples left out because the sandbox itself failed

    @cached_property
    def pass_at_k(self) -> dict[int, Estimate]:
        """k → mean over all problems of pass@k."""
        return _estimates(self.problems, self.ks, self.seed)

    @cached_property
    def first_turn(self) -> dict[int, Estimate]:
        """k → the same of first turns alone; empty where there was one turn anyway."""
        if self.most_turns == 1:
            return {}
        return _estimates([replace(p, c=p.first_c or 0) for p in self.problems], self.ks, self.seed)

    @cached_property
    def by_difficulty(self) -> dict[str, dict[int, Estimate]]:
        """Difficulty → k → estimate; difficulties in the order easy, medium, hard, then others by name."""
        known = {"easy": 0, "medium": 1, "hard": 2}
        names = sorted({p.difficulty for p in self.problems if p.difficulty}, key=lambda d: (known.get(d, 3), d))
        return {
            name: _estimates([p for p in self.problems if p.difficulty == name], self.ks, self.seed) for name in names
        }

    @property
    def samples(self) -> int:
        return sum(p.n for p in self.problems)

    @property
    def warning(self) -> str | None:
        """What whoever reads the numbers should know; None where everything was judged."""
        if not self.unjudged:
            return None
        total = self.samples + self.unjudged
        return f"warning: the sandbox failed on {self.unjudged} of {total} samples, which the evaluation leaves out"

    @cached_property
    def verdicts(self) -> dict[str, int]:
        """Verdict → samples, over all problems, the most frequent first."""
        total: dict[str, int] = {}
        for problem in self.problems:
            for verdict, count in problem.verdicts.items():
                total[verdict] = total.get(verdict, 0) + count
        return dict(sorted(total.items(), key=lambda item: (-item[1], item[0])))

    def metrics(self) -> dict[str, float]:
        """Flat numbers for a tracker: `pass@1`, `pass@1/low`, `pass@1/high`, `easy/pass@1`, `verdict/…` (share), …

        With several turns also `first_turn/pass@1`, …, and `turns`.
        """
        flat: dict[str, float] = {}
        parts = {"first_turn": self.first_turn, **self.by_difficulty}
        for prefix, estimates in (("", self.pass_at_k), *((f"{d}/", e) for d, e in parts.items())):
            for k, estimate in estimates.items():
                flat[f"{prefix}pass@{k}"] = estimate.value
                if estimate.low is not None:
                    flat[f"{prefix}pass@{k}/low"], flat[f"{prefix}pass@{k}/high"] = estimate.low, estimate.high
        flat.update({f"verdict/{verdict}": count / self.samples for verdict, count in self.verdicts.items()})
        flat["truncated"] = sum(p.truncated for p in self.problems) / self.samples
        flat["response_tokens"] = float(np.average([p.response_tokens for p in self.problems], weights=self._n))
        if self.most_turns > 1:
            flat["turns"] = float(np.average([p.turns for p in self.problems], weights=self._n))
        flat["problems"], flat["samples"] = float(len(self.problems)), float(self.samples)
        if self.unjudged:
            flat["unjudged"] = float(self.unjudged)
        return flat

    @property
    def _n(self) -> list[int]:
        return [p.n for p in self.problems]

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values: the counts, and for the reader the estimates that follow from them."""
        stored = asdict(self)
        stored["problems"] = [asdict(problem) for problem in self.problems]
        stored["ks"] = list(self.ks)
        first = {"first_turn": self.first_turn} if self.first_turn else {}
        named = {"": self.pass_at_k, **first, **self.by_difficulty}
        return {
            "format": FORMAT,
            **stored,
            "estimates": {d or "all": {f"pass@{k}": asdict(e) for k, e in est.items()} for d, est in named.items()},
        }

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> EvaluationResult:
        """The inverse of `to_json`.  UserError if it is something else."""
        try:
            if stored["format"] != FORMAT:
                raise UserError(
                    f"An evaluation result of format {stored['format']} cannot be read; this version reads {FORMAT}."
                )
            fields = {key: value for key, value in stored.items() if key not in ("format", "estimates")}
            fields["problems"] = tuple(ProblemResult(**problem) for problem in fields["problems"])
            fields["ks"] = tuple(fields["ks"])
            return cls(**fields)
        except (KeyError, TypeError) as error:
            raise UserError(f"This is not an evaluation result: {error!r}.") from error

    def save(self, path: str | Path) -> None:
        """Write `to_json` to a file."""
        Path(path).write_text(json.dumps(self.to_json(), ensure_ascii=False, indent=1) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: str | Path) -> EvaluationResult:
        """Read what `save` wrote.  UserError if the file is not there or is something else."""
        try:
            stored = json.loads(Path(path).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise UserError(f"The evaluation result {path} cannot be read: {error}") from error
        return cls.from_json(stored)


def _estimates(problems: Sequence[ProblemResult], ks: Iterable[int], seed: int) -> dict[int, Estimate]:
    n, c = np.array([p.n for p in problems]), np.array([p.c for p in problems])
    return {k: bootstrap_mean(pass_at_k(n, c, k), seed=seed) for k in ks}
