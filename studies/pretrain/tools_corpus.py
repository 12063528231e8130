"""The corpus of minitools: requests with words that are bound anew in every example, and the calls that carry them out.

The policy guesses from what the service lists (mode "plain"), reads the service's words on a failed attempt, copies
another attempt's call, or goes on with a conversation of several turns.
"""

from __future__ import annotations

import json
import random
from dataclasses import replace

from sdpo.envs.minitools.service import Request, Step, converse, errors
from sdpo.envs.minitools.world import Words, vocabulary
from sdpo.envs.words import PRETRAINING
from sdpo.prompts.templates import COMPACT
from studies.pretrain.example import Example
from studies.pretrain.tokenizer import ASSISTANT, END, USER

PHRASES = (
    '{"name": "',
    '", "arguments": {"',
    '": ',
    "}}",
    "Tools `",
    "`; arguments `",
    "`.\n`",
    "` `",
    "` the result.",
    ", then `",
    "` is done by `",
    "` is called `",
    "` must be ",
    "Result: ",
    "\nFeedback:\n",
    "\nSolution:\n",
)
MODES = {"plain": 0.3, "feedback": 0.36, "solution": 0.04, "both": 0.05, "turns": 0.25}
TWO_STEPS = 0.5  # share of the examples with earlier turns
KNOWN = 0.05  # share of words that are the service's own names, beside those of easy requests
DAMAGED = 0.12  # share of attempts that are no call
SLIP = 0.06  # share of attempts with a wrong value, or a wrong name where the right one is told


def random_request(rng: random.Random, steps: int) -> Request:
    words = Words(*vocabulary(rng, PRETRAINING, 7))
    verbs, nouns = rng.sample(list(words.verbs), steps), rng.sample(list(words.nouns), steps)
    easy = rng.random() < 0.4 and rng.choice(("verb", "noun"))

    def hidden(word: str, kind: str) -> str | None:
        return word if easy in (False, kind) and rng.random() >= KNOWN else None

    return words.request(rng, [(hidden(v, "verb"), hidden(n, "noun")) for v, n in zip(verbs, nouns, strict=True)])


def attempt(request: Request, step: Step, before: int | None, rng: random.Random) -> str:
    """A call as a policy may make it that does not know the words; it may happen to be right."""
    guess = replace(
        step,
        tool=step.tool if step.verb == step.tool and rng.random() > SLIP else rng.choice(request.tools),
        argument=step.argument if step.noun == step.argument and rng.random() > SLIP else rng.choice(request.arguments),
    )
    text = guess.call(before if rng.random() > SLIP else rng.randint(1, 50))
    if rng.random() < SLIP:
        text = json.dumps({"name": guess.tool, "arguments": {guess.argument: rng.randint(1, 50)}})
    if rng.random() >= DAMAGED:
        return text
    start = rng.randrange(len(text))
    end = rng.randrange(start, len(text))
    return text[:start] + text[end:] if rng.random() < 0.5 else text[:start] + text[start:end] * 2 + text[end:]


def failed_attempt(request: Request, step: Step, before: int | None, rng: random.Random) -> str:
    """What the service says of an attempt that is wrong."""
    while True:
        _, told = errors(step, before, attempt(request, step, before, rng))
        if told:
            return told


def random_example(rng: random.Random) -> Example:
    mode = rng.choices(list(MODES), MODES.values())[0]
    several = mode == "turns"
    request = random_request(rng, 2 if several and rng.random() < TWO_STEPS else 1)
    conversation, done = _earlier(request, rng.choice((1, 1, 2)), rng) if several else (request.statement, 0)
    step, before = request.steps[done], request.result(done)
    feedback = solution = None
    if mode in ("feedback", "both") or several and rng.random() < 0.3:
        feedback = failed_attempt(request, step, before, rng)
    if mode in ("solution", "both"):
        solution = step.call(before)
    return Example(_reprompt(conversation, solution, feedback), step.call(before), mode)


def _earlier(request: Request, turns: int, rng: random.Random) -> tuple[str, int]:
    """(the conversation up to the present turn's question, steps that are done)."""
    text, answers = request.statement, []
    for _ in range(turns):
        done = _done(request, answers)
        step, before = request.steps[done], request.result(done)
        right = done + 1 < len(request.steps) and rng.random() < 0.5
        answers.append(step.call(before) if right else attempt(request, step, before, rng))
        outcome = converse(request, answers)
        if outcome.solved:
            answers.pop()
            break
        text += f"{ASSISTANT}{answers[-1]}{END}{USER}{outcome.reply[0]['content']}"
    return text, _done(request, answers)


def _done(request: Request, answers: list[str]) -> int:
    return round((converse(request, answers).reward or 0) * len(request.steps)) if answers else 0


def _reprompt(question: str, solution: str | None, feedback: str | None) -> str:
    """What the teacher reads at this turn; without either text, what the student reads."""
    return COMPACT.reprompt.format(
        prompt=question,
        solution=COMPACT.solution.format(successful_previous_attempt=solution) if solution else "",
        feedback=COMPACT.feedback.format(feedback_raw=feedback) if feedback else "",
    )
