"""What a discovery has found so far; each search is written as it ends, so that the same command goes on from there.

<folder>/
  recipe-<algorithm>.yaml  the resolved recipes
  questions.json           the candidates' hardness
  searches.jsonl           a line for each search, and for the independent samples of each question
  index.html, data.json    the page, and its numbers
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from sdpo.config.files import dump
from sdpo.config.schema import Recipe
from sdpo.errors import UserError
from sdpo.tracking.disk import atomic_write, disk_errors


@dataclass(frozen=True)
class Solution:
    """The response that solved a question."""

    text: str
    token_ids: tuple[int, ...]
    confirmed: bool  # by the tests that measure, which gave no feedback


@dataclass(frozen=True)
class Search:
    """One method on one question; what it found first, if it found anything."""

    method: str
    question: str
    seed: int
    attempts: int  # until the success; without one, until the budget.  A batch counts whole.
    solved: int  # how many of the attempts were right: more than one where they are independent samples
    seconds: float
    response_tokens: int
    solution: Solution | None = None

    @property
    def unit(self) -> tuple[str, str, int]:
        return (self.method, self.question, self.seed)


@dataclass(frozen=True)
class Hardness:
    """How many of independent samples of the policy that a search begins with are right."""

    samples: int
    solved: int
    chosen: bool = False


class DiscoveryFolder:
    """Reads and writes a discovery; who writes holds the lock of its folder (`sdpo.tracking.lock`)."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._searches, self._questions = path / "searches.jsonl", path / "questions.json"

    def begin(self, recipes: Mapping[str, Recipe]) -> None:
        """Note the recipes.  Raises UserError where the folder holds a discovery with others."""
        for algorithm, recipe in recipes.items():
            file, text = self.path / f"recipe-{algorithm}.yaml", dump(recipe)
            if file.exists() and file.read_text() != text:
                raise UserError(
                    f"{self.path} holds a discovery with other settings ({file.name} differs). Give this one another "
                    "name (name=…), or remove that folder."
                )
            if not file.exists():
                atomic_write(file, text.encode())

    @property
    def hardness(self) -> dict[str, Hardness] | None:
        """By question; None: not measured yet."""
        if not self._questions.exists():
            return None
        return _read(TypeAdapter(dict[str, Hardness]), self._questions.read_bytes(), self._questions)

    def write_hardness(self, found: Mapping[str, Hardness]) -> None:
        content = {question: asdict(each) for question, each in found.items()}
        atomic_write(self._questions, json.dumps(content, indent=1, ensure_ascii=False).encode())

    @property
    def searches(self) -> list[Search]:
        """A last line that was cut off by a kill is left out."""
        if not self._searches.exists():
            return []
        *lines, rest = self._searches.read_bytes().split(b"\n")
        del rest
        return [_read(TypeAdapter(Search), line, self._searches) for line in lines]

    def append(self, search: Search) -> None:
        line = json.dumps(asdict(search), ensure_ascii=False).encode() + b"\n"
        with disk_errors(self.path, len(line)), open(self._searches, "ab") as file:
            file.write(line)
            file.flush()
            os.fsync(file.fileno())

    def repair(self) -> None:
        """Cut off what a killed process left of a line."""
        if self._searches.exists():
            data = self._searches.read_bytes()
            if (end := data.rfind(b"\n") + 1) < len(data):
                with open(self._searches, "r+b") as file:
                    file.truncate(end)


def _read(kind: TypeAdapter, data: bytes, path: Path):
    try:
        return kind.validate_json(data)
    except ValidationError as error:
        first = str(error).splitlines()
        raise UserError(f"{path} cannot be read ({'; '.join(first[1:3]) or first[0]}).") from None
