"""The corpus of minicode: prompts as training will build them, and the programs that answer them.

Every example binds its nonsense words anew, so that a meaning cannot be memorised: the policy guesses it from its prior
(mode "plain"), reads it from feedback on a failed attempt, or copies it from another attempt's solution.
"""

from __future__ import annotations

import random
from dataclasses import replace

from sandbox import TestCase
from sdpo.envs.code.compact import compact_feedback
from sdpo.envs.code.problem import QUESTIONS, fenced
from sdpo.envs.minicode.examples import make_test
from sdpo.envs.minicode.exercise import Exercise, Slot
from sdpo.envs.minicode.family import LISTS, TEXTS, Family
from sdpo.envs.minicode.operations import AGGREGATE, KIT_ENDINGS, MAP, KitFunction
from sdpo.envs.minicode.world import library_slot
from sdpo.envs.words import PRETRAINING, nonsense
from sdpo.prompts.templates import COMPACT
from studies.pretrain.corrupt import corrupted
from studies.pretrain.example import Example
from studies.pretrain.shortcut import judge

PHRASES = (
    "```python\n",
    "\n```",
    "x = list(map(int, input().split()))\n",
    " for v in x",
    "\nprint(",
    "print(",
    "import kit\n",
    "x = [v for v in x if v ",
    "x = ",
    "\nprint(*x)",
    "SyntaxError: ",
    "NameError: name '",
    "' is not defined",
    "class Solution:\n    def solve(self, x):",
    "\n        return ",
    "\nFeedback:\n",
    "\nSolution:\n",
    "Input:",
    "\nExpected:",
    "\nOutput:",
    "AttributeError: module 'kit' has no attribute '",
    "'. Did you mean: '",
    "Keep values ",
    ". Print the `",
    ". Read integers. ",
    ". Show the `",
    "Print the `",
    "Read integers. Output the `",
    "Read integers. Output their `",
    "Show the `",
    "Return the `",
    "` of the values.",
    "` values of x.\n",
    "` of x.\n",
    "` values, then their `",
    "` values.",
    "` ones and their `",
    "` ones.",
    "` list and the `",
    "` list.",
    "` of these.",
    "kit.",
    "` text, then its `",
    "` text.",
    "` of the text.",
    "s = input()\n",
    "s = ",
    "\nprint(s)",
    "`.",
)
# Copying a solution and known words are learned long before inference from feedback, which gets what they can spare.
MODES = {"plain": 0.18, "feedback": 0.68, "solution": 0.06, "both": 0.08}
SHAPES = {"aggregate": 0.24, "map": 0.13, "kit": 0.08, "map+aggregate": 0.36, "map+kit": 0.07, "functional": 0.12}
TEXT_SHAPES = {"aggregate": 0.25, "map": 0.25, "map+aggregate": 0.5}
TEXT_SHARE = 0.12  # share of tasks of the second family
KNOWN = 0.3  # share of word slots that hold an English word
CONDITION = 0.12  # share of stdin tasks with a condition
CORRUPTED = 0.2  # share of failed attempts that are damaged programs


def question(task: Exercise) -> str:
    script, function = QUESTIONS["compact"]
    return (function if task.functional else script).format(statement=task.statement, starter_code=task.starter_code)


def reprompt(task: Exercise, solution: str | None, feedback: str | None) -> str:
    """The teacher's content: the question, and what it is given beside it."""
    return COMPACT.reprompt.format(
        prompt=question(task),
        solution=COMPACT.solution.format(successful_previous_attempt=solution) if solution else "",
        feedback=COMPACT.feedback.format(feedback_raw=feedback) if feedback else "",
    )


def _slot(family: Family, kind: str, rng: random.Random, taken: set[str], known: float) -> Slot:
    meaning = rng.choice(family.operations[kind])
    if rng.random() < known:
        return Slot(rng.choice(meaning.words), meaning, True)
    word = nonsense(rng, PRETRAINING, taken)
    taken.add(word)
    return Slot(word, meaning, False)


def random_task(rng: random.Random) -> Exercise:
    """A task of a random shape and family.

    Words of `kit` never stand beside a second unknown: a failed attempt's feedback names the library's function only
    when that was what failed, and would leave the other half open.
    """
    family = TEXTS if rng.random() < TEXT_SHARE else LISTS
    shapes = TEXT_SHAPES if family is TEXTS else SHAPES
    shape = rng.choices(list(shapes), shapes.values())[0]
    taken: set[str] = set()
    sentence = rng.randrange(3)
    if shape == "functional":
        kind = rng.choice((AGGREGATE, MAP))
        return Exercise(**{kind: _slot(family, kind, rng, taken, KNOWN)}, functional=True)
    condition = the_map = aggregate = None
    if family is LISTS and rng.random() < CONDITION:
        condition = (rng.choice(("above", "below")), rng.randint(-3, 3))
    if "map" in shape:
        the_map = _slot(family, MAP, rng, taken, 1.0 if shape == "map+kit" else KNOWN)
    if "kit" in shape:
        aggregate = library_slot(nonsense(rng, PRETRAINING, taken), rng)
    elif "aggregate" in shape:
        aggregate = _slot(family, AGGREGATE, rng, taken, KNOWN)
    return Exercise(the_map, aggregate, condition, sentence, family=family)


def _another(family: Family, slot: Slot | None, rng: random.Random, slip: float) -> Slot | None:
    """The slot as a policy reads it that does not know its word: a draw from the prior."""
    if slot is None or (slot.known and rng.random() > slip):
        return slot
    if isinstance(slot.meaning, KitFunction):
        ending = rng.choice(KIT_ENDINGS + ("",))
        return replace(slot, meaning=replace(slot.meaning, ending=ending))
    return replace(slot, meaning=rng.choice(family.operations[slot.meaning.slot]))


def attempt(task: Exercise, rng: random.Random) -> str | None:
    """A program that a policy might have written for the task; it may happen to be right."""
    slip = 0.05 if task.unknown else 1.0
    the_map = _another(task.family, task.map, rng, slip)
    aggregate = _another(task.family, task.aggregate, rng, slip)
    guess = replace(task, map=the_map, aggregate=aggregate)
    if rng.random() < CORRUPTED:
        return corrupted(guess.program, [s.word for s in task.slots], rng)
    return guess.program


def failed_attempt(task: Exercise, test: TestCase, rng: random.Random) -> tuple[str | None, str]:
    """(program, feedback) of an attempt that does not pass the test."""
    while True:
        program = attempt(task, rng)
        judgement = judge(program, test, task.files)
        feedback = compact_feedback(judgement)
        if not judgement.passed and " at 0x" not in feedback:  # an address would differ from run to run
            return program, feedback


def random_example(rng: random.Random) -> Example:
    task = random_task(rng)
    mode = rng.choices(list(MODES), MODES.values())[0]
    feedback = solution = None
    if mode in ("feedback", "both"):
        _, feedback = failed_attempt(task, make_test(task, rng), rng)
    if mode in ("solution", "both"):
        solution = fenced(task.program)
    return Example(reprompt(task, solution, feedback), fenced(task.program), mode)
