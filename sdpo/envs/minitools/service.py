"""The simulated service: a conversation of tool calls, replayed from the answers alone.

A request has steps.  Each answer is one call in JSON: `{"name": "kelo", "arguments": {"zin": 3}}`.  A right one carries
out the next step and gives a result, which a later step may have to pass on.  A wrong one changes nothing, and the
service says everything that is wrong with it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sdpo.types import Outcome

EXPECTED = 'Expected {"name": …, "arguments": {…}}.'
_FENCE = re.compile(r"```(?:json)?\s*(.*?)```", re.DOTALL)


@dataclass(frozen=True)
class Step:
    """One call that is asked for: in the user's words, and in the service's."""

    verb: str
    noun: str
    tool: str
    argument: str
    value: int | None  # None: the result of the step before

    def call(self, before: int | None) -> str:
        """The right call, as the bundled policy writes it.  before: the result of the step before."""
        value = before if self.value is None else self.value
        return json.dumps({"name": self.tool, "arguments": {self.argument: value}})

    @property
    def result(self) -> int:
        """What the service gives back; nothing that one would guess."""
        return sum(map(ord, self.verb + self.noun)) * 7 % 50


@dataclass(frozen=True)
class Request:
    """What is asked for.  `tools` and `arguments` are what the service says that it has."""

    steps: tuple[Step, ...]
    tools: tuple[str, ...]
    arguments: tuple[str, ...]

    @property
    def statement(self) -> str:
        values = ["the result" if step.value is None else step.value for step in self.steps]
        asked = ", then ".join(f"`{s.verb}` `{s.noun}` {v}" for s, v in zip(self.steps, values, strict=True))
        tools, arguments = (" ".join(f"`{name}`" for name in names) for names in (self.tools, self.arguments))
        return f"Tools {tools}; arguments {arguments}.\n{asked}."

    @property
    def unknown(self) -> int:
        """How many names have to be found out."""
        hidden = [{s.verb: s.tool, s.noun: s.argument} for s in self.steps]
        return sum(word != name for names in hidden for word, name in names.items())

    @property
    def solution(self) -> str:
        """The call that carries out the first step."""
        return self.steps[0].call(None)

    def result(self, done: int) -> int | None:
        """What the last of `done` steps gave."""
        return self.steps[done - 1].result if done else None


def errors(step: Step, before: int | None, answer: str) -> tuple[str, str]:
    """(a word to count by, everything that is wrong with a call); two empty texts for the right one."""
    call = _parsed(answer)
    if call is None:
        return "no call", EXPECTED
    name, arguments = call
    value = before if step.value is None else step.value
    told = []
    if name != step.tool:
        told.append(("wrong tool", f"`{step.verb}` is done by `{step.tool}`."))
    if list(arguments) != [step.argument]:
        told.append(("wrong argument", f"`{step.noun}` is called `{step.argument}`."))
    elif type(arguments[step.argument]) is not int or arguments[step.argument] != value:
        told.append(("wrong value", f"`{step.argument}` must be {value}."))
    return (told[0][0], "\n".join(text for _, text in told)) if told else ("", "")


def _parsed(answer: str) -> tuple[str, dict[str, Any]] | None:
    """Name and arguments of the one call in an answer; None: there is none."""
    fenced = _FENCE.search(answer)
    try:
        call = json.loads(fenced[1] if fenced else answer)
    except (ValueError, RecursionError):
        return None
    if not isinstance(call, dict) or call.keys() != {"name", "arguments"} or not isinstance(call["arguments"], dict):
        return None
    return str(call["name"]), call["arguments"]


def converse(request: Request, answers: Sequence[str]) -> Outcome:
    """What the last of the answers was worth: its reward is the share of the steps that are done by now."""
    done, label, told = 0, "", ""
    for answer in answers:
        label, told = errors(request.steps[done], request.result(done), answer)
        done += not told
        if done == len(request.steps):
            return Outcome(1.0, solved=True, label="solved")
    reply = told or f"Result: {request.result(done)}."
    return Outcome(
        done / len(request.steps),
        feedback=told or None,
        label=label or "one step done",
        reply=({"role": "user", "content": reply},),
    )
