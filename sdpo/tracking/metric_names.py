"""The names under which metrics are logged, and how they are shown; the one list for console and report.

A name is a path: `train/pass_rate`, `time/<phase>` (s), `verdict/<verdict>` (responses), `eval/<dataset>/pass@<k>` with
its interval in `…/low` and `…/high`.  Anything else may be logged beside these; it reaches metrics.jsonl and W&B.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from sdpo.tracking.known import is_known


@dataclass(frozen=True)
class Shown:
    """A metric that the console and the report show by itself."""

    key: str
    title: str
    unit: str = ""


PASS_RATE = Shown("train/pass_rate", "pass rate", "share of responses")
DIVERGENCE = Shown("distillation/loss", "divergence", "nats per token")
STUDENT_ENTROPY = Shown("policy/entropy", "entropy, student", "nats per token")
TEACHER_ENTROPY = Shown("distillation/teacher_entropy", "entropy, teacher", "nats per token")
LENGTH = Shown("response/length_mean", "response length", "tokens")
RESPONSE_TOKENS = Shown("response/tokens", "tokens sampled", "tokens")
THROUGHPUT = Shown("throughput/tokens_per_s", "throughput", "tokens/s")
GRAD_NORM = Shown("learner/grad_norm", "gradient norm")
LEARNING_RATE = Shown("learner/lr", "learning rate")
SAMPLER_KL = Shown("policy/kl_sampler", "KL to the sampler", "nats per token")

_PASS_AT_K = re.compile(r"eval/(?P<dataset>.+)/pass@(?P<k>\d+)")
_ORDER = ("train", "held_out", "test", "first_turn", "easy", "medium", "hard")


@dataclass(frozen=True)
class PassAtK:
    """The metric `eval/<dataset>/pass@<k>`.  A part of a data set, such as its easy problems, is `<dataset>/<part>`."""

    dataset: str
    k: int

    @property
    def key(self) -> str:
        return f"eval/{self.dataset}/pass@{self.k}"

    @property
    def low_key(self) -> str:
        """Lower end of the interval over problems."""
        return self.key + "/low"

    @property
    def high_key(self) -> str:
        """Upper end of the interval over problems."""
        return self.key + "/high"

    @property
    def title(self) -> str:
        return f"pass@{self.k}"

    @property
    def _place(self) -> tuple[list[tuple[int, str]], int]:
        parts = self.dataset.split("/")
        return [(_ORDER.index(part) if part in _ORDER else len(_ORDER), part) for part in parts], self.k


def pass_at_k_metrics(names: Iterable[str], parts: bool = False) -> list[PassAtK]:
    """The pass@k metrics among `names` in the order in which they are shown: of whole data sets, or of their parts."""
    found = {match for name in names if (match := _PASS_AT_K.fullmatch(name))}
    metrics = {PassAtK(match["dataset"], int(match["k"])) for match in found}
    return sorted((m for m in metrics if ("/" in m.dataset) == parts), key=lambda m: m._place)


def dataset_title(dataset: str) -> str:
    """train → "training problems"; held_out/easy → "held-out problems, easy"."""
    known = {"train": "training problems", "held_out": "held-out problems", "test": "test problems"}
    return ", ".join(known.get(part, part.replace("_", " ")) for part in dataset.split("/"))


def part(metrics: Mapping[str, Any], prefix: str) -> dict[str, float]:
    """The numbers under `prefix/`, without it: part({"time/judge": 1.0}, "time") → {"judge": 1.0}."""
    start = prefix + "/"
    found = {key[len(start) :]: value for key, value in metrics.items() if key.startswith(start)}
    return {key: value for key, value in found.items() if is_known(value)}
