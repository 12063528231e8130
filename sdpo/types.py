"""What flows through the training loop: Task → Turn → Rollout → Group → Sample.

Plain dataclasses without behaviour that needs torch, Ray or vLLM, so that environments, credit assignment and context
building can be tested in milliseconds.  Nothing here knows what a task is about.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

Message = Mapping[str, str]  # "role" and "content", as chat templates take them


@dataclass(frozen=True)
class Task:
    """One thing that the policy is asked to do."""

    id: str
    messages: tuple[Message, ...]  # open the conversation; the last one is the user's
    content: Any = None  # what its environment needs for grading; opaque to everything else
    solution: str | None = None  # a reference solution as a response would give it; reaches a teacher only by name
    columns: Mapping[str, str] = field(default_factory=dict)  # further texts of its row; the same holds for them
    difficulty: str = ""  # results are reported by it, too


@dataclass(frozen=True)
class Outcome:
    """What an answer was worth."""

    reward: float | None  # None: it could not be graded, so it trains nothing
    solved: bool = False  # what pass@k counts
    feedback: str | None = None  # words for the teacher; None: there is nothing to say
    label: str = ""  # a short word to count outcomes by
    reply: tuple[Message, ...] = ()  # what the environment says next; empty: the rollout ends here
    details: Mapping[str, Any] = field(default_factory=dict)  # the environment's own, for its exports


@dataclass(frozen=True)
class VersionSpan:
    """Response tokens [start, end) were sampled from the weights of publication `version`."""

    version: int
    start: int
    end: int


@dataclass(frozen=True)
class Turn:
    """One response: what an engine returns, decoded by the driver, then graded by the environment.

    `sampler_log_probs` are those of the distribution that was sampled from: after temperature, top-k and top-p; for
    greedy decoding those of the model at temperature 1.  The weights may change in the middle of a response: `versions`
    says which publication each token came from, and is empty for a dataset's response.
    """

    prompt_ids: tuple[int, ...]
    response_ids: tuple[int, ...]  # includes the end token when the model produced one
    sampler_log_probs: np.ndarray  # float32 [len(response_ids)]; NaN: a dataset's response, which nobody sampled
    finish_reason: str  # "stop" | "length"
    versions: tuple[VersionSpan, ...] = ()
    text: str = ""  # the decoded response, without special tokens but those that mark thoughts
    outcome: Outcome | None = None  # None: nobody asked for it
    answer: str = ""  # of the text, what the environment grades: without thoughts, unless `evaluation.thinking` says so
    engine: int = 0  # that sampled it, and holds the conversation in its prefix cache

    @property
    def truncated(self) -> bool:
        return self.finish_reason == "length"

    @property
    def policy_version(self) -> int:
        """The version that sampled the first token, the oldest one in the response; 0 for a dataset's response."""
        return self.versions[0].version if self.versions else 0

    @property
    def final_version(self) -> int:
        """The version that sampled the last token."""
        return self.versions[-1].version if self.versions else 0

    @property
    def broken(self) -> bool:
        """Whether an engine says that it sampled it from what is no distribution; then it is worth nothing."""
        return bool(self.versions) and not np.isfinite(self.sampler_log_probs).all()

    @property
    def graded(self) -> bool:
        """Whether it has a reward."""
        return self.outcome is not None and self.outcome.reward is not None

    @property
    def ungradable(self) -> bool:
        """Whether its environment was asked and could not say what it is worth; then it trains nothing."""
        return self.outcome is not None and self.outcome.reward is None

    @property
    def solved(self) -> bool:
        return self.outcome is not None and self.outcome.solved


@dataclass(frozen=True)
class Rollout:
    """One attempt at a task, from the first turn to the last.  Its outcome is that of the last."""

    turns: tuple[Turn, ...]
    context_full: bool = False  # the environment had a reply, but the next turn did not fit

    @property
    def last(self) -> Turn:
        return self.turns[-1]

    @property
    def outcome(self) -> Outcome | None:
        """What the attempt was worth in the end."""
        return self.last.outcome

    @property
    def graded(self) -> bool:
        return self.last.graded

    @property
    def solved(self) -> bool:
        return self.last.solved


@dataclass(frozen=True)
class Group:
    """One task with its n rollouts."""

    task: Task
    rollouts: tuple[Rollout, ...]

    @property
    def turns(self) -> tuple[Turn, ...]:
        """Of all rollouts, one after the other: the order of a group's samples."""
        return tuple(turn for rollout in self.rollouts for turn in rollout.turns)

    @property
    def rewards(self) -> np.ndarray:
        """float64 [n]; NaN where there is none."""
        return np.array([r.outcome.reward if r.outcome and r.graded else np.nan for r in self.rollouts], np.float64)

    @property
    def graded(self) -> np.ndarray:
        """bool [n]: which rollouts have a reward."""
        return np.array([rollout.graded for rollout in self.rollouts], bool)


@dataclass(frozen=True)
class Hint:
    """What a teacher is told beyond the question; at least one of the two is there."""

    demonstration: str | None
    feedback: str | None


@dataclass(frozen=True)
class TeacherContext:
    """The privileged prompt behind which the teacher re-scores a response, and how much each token of it counts."""

    prompt_ids: tuple[int, ...]
    weight: np.ndarray  # float32 [response length]
    hint: Hint | None = None  # what the prompt was made from
    contrasts: tuple[tuple[int, ...], ...] = ()  # other prompts, behind which it scores for a hook and teaches nothing


@dataclass(frozen=True)
class ScoredTokens:
    """What a weight hook sees of one response: numbers of the present policy and teacher.  Each is float32 [R].

    The teacher's are None where the response has no teacher context, advantages where it has none.
    """

    weight: np.ndarray | None  # of the distillation stream before the hook; 0: the token carries no loss
    advantages: np.ndarray | None
    entropy: np.ndarray  # nats
    teacher_entropy: np.ndarray | None  # nats
    log_ratio: np.ndarray | None  # log q − log π of the sampled token
    contrasts: np.ndarray | None = None  # float32 [K, R]: the same behind each of the context's other prompts


@dataclass(frozen=True)
class TokenCredit:
    """What the update that a response trained in found of its R tokens, at the sampling temperature.

    float32 [R] and [R, k], natural logarithms.  The k alternatives are the teacher's likeliest tokens, in order; where
    no teacher re-scored the response they are the policy's own, and the teacher's numbers are None.
    """

    log_probs: np.ndarray  # of the sampled tokens: log π
    entropy: np.ndarray
    teacher_log_probs: np.ndarray | None  # log q
    teacher_entropy: np.ndarray | None
    top_ids: np.ndarray  # int32
    top_log_probs: np.ndarray
    top_teacher_log_probs: np.ndarray | None


@dataclass(frozen=True)
class Sample:
    """What one turn trains on: its tokens, and up to three streams that it feeds.

    A stream that is None gets nothing from this response; its tokens are then not counted in that stream's normaliser.
    """

    prompt_ids: tuple[int, ...]
    response_ids: tuple[int, ...]
    sampler_log_probs: np.ndarray  # float32 [R]
    advantages: np.ndarray | None = None  # float32 [R]: policy-gradient stream
    teacher: TeacherContext | None = None  # distillation stream
    reference_weight: np.ndarray | None = None  # float32 [R]: KL to the reference policy
    turn: int = 1  # its number within its rollout
    recorded: bool = False  # whether the learner is to say what it found of every token (`TokenCredit`)
