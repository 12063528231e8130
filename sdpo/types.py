"""What flows through the training loop: Problem → Rollout → Group → Sample.

Plain dataclasses without behaviour that needs torch, Ray or vLLM, so that data, credit assignment and context
building can be tested in milliseconds.  `Judgement` belongs to the `sandbox` package.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from sandbox import Judgement, Limits, TestCase


@dataclass(frozen=True)
class Problem:
    """One programming task, whatever its source.

    `training_tests` give the reward and the feedback; `evaluation_tests` measure.  Which test is in which of the two is
    decided by the test split of the recipe (`sdpo.envs.code`), and the name of that split stands in every result.
    """

    id: str
    statement: str
    training_tests: tuple[TestCase, ...]
    evaluation_tests: tuple[TestCase, ...]
    starter_code: str = ""
    title: str = ""
    difficulty: str = ""
    platform: str = ""
    contest_date: str = ""  # ISO 8601
    limits: Limits = field(default_factory=Limits)
    files: Mapping[str, str] = field(default_factory=dict)  # modules that the program may import: name → source
    solution: str | None = None  # a reference program, where the source has one; reaches a teacher only by name
    columns: Mapping[str, str] = field(default_factory=dict)  # further texts of its row; the same holds for them

    @property
    def functional(self) -> bool:
        """Whether a function is called (LeetCode style) rather than a script run on stdin."""
        return any(test.testtype == "functional" for test in (*self.training_tests, *self.evaluation_tests)[:1])


@dataclass(frozen=True)
class Rollout:
    """One response sampled from the policy."""

    prompt_ids: tuple[int, ...]
    response_ids: tuple[int, ...]  # includes the end token when the model produced one
    text: str  # the decoded response, without special tokens
    sampler_log_probs: np.ndarray  # float32 [len(response_ids)], at the sampling temperature; NaN: a dataset's response
    finish_reason: str  # "stop" | "length"
    policy_version: int  # number of weight publications that the sampling engine had seen; 0: a dataset's response

    @property
    def truncated(self) -> bool:
        return self.finish_reason == "length"


@dataclass(frozen=True)
class Group:
    """One problem with its n rollouts and their judgements, index by index; no judgements where none were needed."""

    problem: Problem
    rollouts: tuple[Rollout, ...]
    judgements: tuple[Judgement, ...]

    @property
    def rewards(self) -> np.ndarray:
        """float64 [n]: 1 where every training test passed, else 0; empty where nothing was judged."""
        return np.array([float(j.passed) for j in self.judgements])


@dataclass(frozen=True)
class TeacherContext:
    """The privileged prompt behind which the teacher re-scores a response, and how much each token of it counts."""

    prompt_ids: tuple[int, ...]
    weight: np.ndarray  # float32 [response length]


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


@dataclass(frozen=True)
class Sample:
    """What one response trains on: its tokens, and up to three streams that it feeds.

    A stream that is None gets nothing from this response; its tokens are then not counted in that stream's normaliser.
    """

    prompt_ids: tuple[int, ...]
    response_ids: tuple[int, ...]
    sampler_log_probs: np.ndarray  # float32 [R]
    advantages: np.ndarray | None = None  # float32 [R]: policy-gradient stream
    teacher: TeacherContext | None = None  # distillation stream
    reference_weight: np.ndarray | None = None  # float32 [R]: KL to the reference policy
