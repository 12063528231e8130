"""Pieces of the page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from sdpo.evaluation.bootstrap import Estimate, bootstrap_mean
from studies.evidence.pictures import Picture
from studies.evidence.reaching import Passes
from studies.evidence.record import Record
from studies.evidence.token_picture import TokenPicture


@dataclass(frozen=True)
class Origin:
    """Where numbers come from that are in no record of a run."""

    hardware: str
    commits: list[str]


@dataclass(frozen=True)
class Section:
    """One part of the page; `runs` is where its numbers come from."""

    title: str
    text: str
    pictures: list[Picture | TokenPicture] = field(default_factory=list)
    runs: Sequence[Record | Origin] = ()

    @property
    def figures(self) -> list[Picture | TokenPicture]:
        """The pictures that show something: of a part that has only been begun some are still empty."""
        return [picture for picture in self.pictures if isinstance(picture, TokenPicture) or picture.panels]


def number(value: float, digits: int = 2) -> str:
    """.56, 1.00, −.03: rates without the leading zero, as the field writes them."""
    text = f"{value:.{digits}f}"
    return text.replace("0.", ".", 1) if text.lstrip("-").startswith("0.") else text


def interval(estimate: Estimate) -> str:
    """ ".56 [.51, .60]"."""
    if estimate.low is None or estimate.high is None:
        return number(estimate.value)
    return f"{number(estimate.value)} [{number(estimate.low)}, {number(estimate.high)}]"


def last(record: Record, dataset: str, k: int = 1, difficulty: str | None = None) -> Estimate:
    """pass@k at the last evaluation, with its bootstrap interval over problems."""
    return bootstrap_mean(Passes.of(record, dataset, k, difficulty).values[-1])


def code(text: str) -> str:
    return f"```\n{text}\n```"
