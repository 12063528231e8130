"""Generated puzzles: any family of the library `reasoning-gym`, as many tasks as a run draws, no download.

A task is a function of the family, its options, a seed and a number, so that a run can be repeated.  The tasks to
evaluate on come from a seed of their own, the same for every run; a question among them is never trained on.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from pydantic import Field

from sdpo.envs.base import Dataset, Inert, Progress, Purpose
from sdpo.envs.judged import JudgedEnvironment, JudgedSettings
from sdpo.envs.sanitize import sanitize_inline
from sdpo.errors import UserError
from sdpo.types import Outcome, Task, Turn

FORM = "Give it between <answer> and </answer>, and nothing else there."
PATIENCE = 20  # questions that are looked at for each one that is new
INSTALL = "pip install 'sdpo[gym]'"


class GymSettings(JudgedSettings):
    family: str = Field("spell_backward", description="a data set of reasoning-gym, by its name")
    options: dict[str, Any] = Field({}, description="options of the family, as the library has them")
    prompt: str = Field("default", description="the system message: one of the library's, by its name")
    tasks: int | None = Field(
        None, ge=1, description="different tasks to train on; null: as many as the run draws, each is new"
    )
    held_out: int = Field(128, ge=1, description="tasks to evaluate on, the same whatever the run's seed is")
    solved_from: float = Field(1.0, gt=0, le=1, description="score from which a task counts as solved")


@dataclass(frozen=True)
class Puzzle:
    """What the library needs to score an answer."""

    entry: Mapping[str, Any]


class GymEnvironment(JudgedEnvironment):
    """The score is the library's, between 0 and 1, for what stands between the last <answer> tags."""

    Settings = GymSettings
    judge = "sdpo.envs.puzzles:judge"
    inert: ClassVar[Inert] = ()
    draws_by_seed = True

    def load(self, progress: Progress | None = None) -> Dataset:
        settings, run = self.settings, self.recipe.run
        if importlib.util.find_spec("reasoning_gym") is None:
            raise UserError(f"environment.kind=gym needs the library reasoning-gym, which is not installed. {INSTALL}.")
        from sdpo.envs import puzzles  # takes seconds

        puzzles.check_family(settings.family, settings.options)
        system = puzzles.system_prompt(settings.prompt)
        wanted = settings.tasks or run.steps * run.questions

        def task(name: str, entry: Mapping[str, Any]) -> Task:
            return puzzle_task(f"{settings.family}-{name}", system, entry)

        held_out: dict[str, Task] = {}
        for number, entry in self._entries("held out", PATIENCE * settings.held_out):
            held_out.setdefault(entry["question"], task(f"heldout-{number}", entry))
            if len(held_out) == settings.held_out:
                break
        train = []
        for number, entry in self._entries(f"training {self.recipe.seed}", PATIENCE * wanted):
            if entry["question"] not in held_out:
                train.append(task(f"{self.recipe.seed}-{number}", entry))
                if progress:
                    progress(settings.family, len(train), wanted)
            if len(train) == wanted:
                break
        if len(held_out) < settings.held_out or len(train) < wanted:
            raise UserError(
                f"environment.family={settings.family} gives {len(held_out)} different questions to evaluate on and "
                f"{len(train)} others to train on with these options; {settings.held_out} and {wanted} are wanted. "
                "Lower environment.held_out or environment.tasks, or set environment.options to what varies more."
            )
        return Dataset(train, list(held_out.values()), f"reasoning-gym {settings.family}", problem_split="generated")

    def _entries(self, purpose: str, most: int) -> Iterator[tuple[int, Mapping[str, Any]]]:
        """Numbered puzzles of a stream; one that the library fails to make is left out."""
        from sdpo.envs.puzzles import CHUNK, puzzles

        for number in range(most):
            chunk, place = divmod(number, CHUNK)
            data = puzzles(self.settings.family, _frozen(self.settings.options), seed_of(purpose, chunk))
            try:
                yield number, data[place]
            except (ValueError, RuntimeError, AssertionError, IndexError, RecursionError):
                continue

    async def grade(self, task: Task, turn: Turn, purpose: Purpose) -> Outcome:
        from sdpo.envs.puzzles import extracted

        answer = extracted(turn.answer)
        if answer is None:
            cut = "Your response was cut off before it came to an answer; be shorter." if turn.truncated else ""
            return Outcome(0.0, feedback=cut or f"There is no answer in your response. {FORM}", label="no answer")
        settings = self.settings
        reply = await self.ask(settings.family, _frozen(settings.options), answer, task.content.entry)
        if reply.kind == "value":
            return outcome_of(reply.value, answer, settings.solved_from)
        label = "too slow" if reply.kind == "timeout" else "unreadable"
        return Outcome(0.0, feedback=_said(answer, "cannot be read."), label=label, details={"error": reply.message})


# ------------------------------------------------------------------------------------------------------ tasks


def puzzle_task(name: str, system: str, entry: Mapping[str, Any]) -> Task:
    right = entry["answer"]
    messages = ({"role": "system", "content": system}, {"role": "user", "content": str(entry["question"])})
    solution = f"<answer>{right}</answer>" if isinstance(right, str) and right else None
    source = str(entry.get("metadata", {}).get("source_dataset", ""))
    return Task(name, messages, Puzzle(entry), solution, difficulty=source)


def seed_of(purpose: str, chunk: int) -> int:
    """Seeds far apart: many families make question k of seed s from s + k."""
    return int.from_bytes(hashlib.sha256(f"{purpose}\0{chunk}".encode()).digest()[:4], "big") >> 1


def _frozen(options: Mapping[str, Any]) -> str:
    return json.dumps(options, sort_keys=True)


# ---------------------------------------------------------------------------------------------------- grading


def outcome_of(score: float | None, answer: str, solved_from: float = 1.0) -> Outcome:
    """Reward and words; a score that is no number counts as none."""
    if score is None or score != score:
        return Outcome(0.0, feedback=_said(answer, f"cannot be read. {FORM}"), label="unreadable")
    reward = min(max(score, 0.0), 1.0)
    if reward >= solved_from:
        return Outcome(reward, True, label="right")
    if reward > 0:
        return Outcome(reward, feedback=_said(answer, f"is not right; its score is {reward:.2f} of 1."), label="partly")
    return Outcome(reward, feedback=_said(answer, "is wrong."), label="wrong")


def _said(answer: str, what: str) -> str:
    return f"Your answer {what} You gave: {sanitize_inline(answer, 500)}"
