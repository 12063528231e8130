"""Rows that ask for tool calls and hold the right ones: ToolAlpaca, in the form in which arXiv 2601.20802 §3 uses it.

    prompt         the request after a description of the tools and of the form of an answer (or `messages`, `question`)
    golden_answer  [{"Action": name, "Action_Input": arguments as JSON, in a text or not}, …]; [] where none is right
    tools          optional: descriptions, as a list of {name, description, parameters} or as {name: text}

Where a row has no `tools`, they are read from its prompt: lines ``name: description`` and ``Parameters: {…}`` beneath.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sdpo.config.sections import ColumnSettings
from sdpo.envs.rows import BadRow, Row, cell, make_task
from sdpo.envs.tools.calls import Call, Form, Problem, write_calls
from sdpo.types import Task

ANSWERS = ("golden_answer", "calls", "ground_truth", "answer")
_DESCRIBED = re.compile(r"^\s*(?:[-*\d.]+\s*)?(\w[\w.-]*):[^\n]*\n\s*Parameters:\s*(?=\{)", re.MULTILINE)
_DECODER = json.JSONDecoder()
_TYPES: Mapping[str, tuple[type, ...]] = {
    "string": (str,), "str": (str,), "integer": (int,), "int": (int,), "number": (int, float), "float": (int, float),
    "boolean": (bool,), "bool": (bool,), "array": (list,), "list": (list,), "object": (dict,), "dict": (dict,),
}  # fmt: skip


@dataclass(frozen=True)
class Argument:
    required: bool
    type: str = ""  # "" where it is not known
    values: tuple[Any, ...] = ()  # the only ones, where they are named


Tools = Mapping[str, Mapping[str, Argument]]


@dataclass(frozen=True)
class GoldenCalls:
    """What is asked for, and what is known of the tools (nothing, where no description was found)."""

    wanted: tuple[Call, ...]
    tools: Tools


def toolalpaca_task(row: Row, columns: ColumnSettings, form: Form) -> Task:
    """A row as a task.  Raises BadRow."""
    given = cell(row, columns, "answer") if columns.answer else next((row[k] for k in ANSWERS if k in row), None)
    wanted = _wanted(given)
    task = make_task({**row, "answer": None}, columns.model_copy(update={"answer": None}))
    described = row.get("tools") or row.get("functions") or row.get("Function_Description")
    prompt = "\n".join(message["content"] for message in task.messages)
    tools = _tools(described) if described else _tools_in(prompt)
    for call in wanted:
        if tools and call.name not in tools:
            raise BadRow(f"the answer calls {call.name}, and the tools are {', '.join(tools)}")
    solution = task.solution or write_calls(wanted, form) or None
    texts = {key: value for key, value in task.columns.items() if key not in ANSWERS}
    return Task(task.id, task.messages, GoldenCalls(wanted, tools), solution, texts, task.difficulty)


def _wanted(given: Any) -> tuple[Call, ...]:
    value = _json(given, "golden_answer")
    if not isinstance(value, list):
        raise BadRow(f"golden_answer is not a list of calls ({type(value).__name__})")
    return tuple(_call(item) for item in value)


def _call(item: Any) -> Call:
    name = (
        next((item[k] for k in ("Action", "name", "function") if k in item), None) if isinstance(item, dict) else None
    )
    if not isinstance(name, str) or not name:
        raise BadRow("a call of golden_answer has no Action")
    arguments: Any = next((item[k] for k in ("Action_Input", "arguments", "parameters") if k in item), {})
    arguments = _json(arguments, f"the Action_Input of {name}") if arguments != "" else {}
    if not isinstance(arguments, dict):
        raise BadRow(f"the Action_Input of {name} is not a JSON object")
    return Call(name, arguments)


def _json(value: Any, what: str) -> Any:
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError) as error:
        raise BadRow(f"{what} is not valid JSON ({error})") from None


# ----------------------------------------------------------------------------------------------- descriptions


def _tools(described: Any) -> Tools:
    described = _json(described, "tools")
    if isinstance(described, dict):  # ToolAlpaca's own: a text for each name
        return {name: _in_text(text) for name, text in described.items() if name != "components"}
    if not isinstance(described, list):
        raise BadRow("tools is neither a list of descriptions nor an object of texts")
    found = {}
    for item in described:
        function = item.get("function", item) if isinstance(item, dict) else {}
        if not isinstance(function.get("name"), str):
            raise BadRow("a description of tools has no name")
        found[function["name"]] = _in_schema(function.get("parameters") or {})
    return found


def _in_schema(parameters: Mapping[str, Any]) -> dict[str, Argument]:
    required = parameters.get("required", [])
    return {
        name: Argument(name in required, _type(str(schema.get("type", ""))), tuple(schema.get("enum", ())))
        for name, schema in parameters.get("properties", {}).items()
        if isinstance(schema, dict)
    }


def _tools_in(prompt: str) -> Tools:
    return {match[1]: _in_text(prompt[match.start() :]) for match in _DESCRIBED.finditer(prompt)}


def _in_text(text: Any) -> dict[str, Argument]:
    """``Parameters: {"q": "Required. string. What to look for."}`` beneath a description."""
    at = str(text).find("Parameters:")
    start = str(text).find("{", at)
    if at < 0 or start < 0:
        return {}
    try:
        parameters, _ = _DECODER.raw_decode(text, start)
    except (ValueError, RecursionError):
        return {}
    return {
        name: Argument(str(said).lower().startswith("required"), _first_type(str(said)))
        for name, said in parameters.items()
    }


def _first_type(said: str) -> str:
    """The type among the first words: "Required. string. …", "Integer. …", "Array[string]. …"."""
    words = re.findall(r"[A-Za-z]+", said)[:2]
    return next((kind for word in words if (kind := _type(word))), "")


def _type(word: str) -> str:
    return word.lower() if word.lower() in _TYPES else ""


# --------------------------------------------------------------------------------------------------- grading


def what_is_wrong(calls: Sequence[Call], content: GoldenCalls) -> Problem | None:
    """None where the calls are the wanted ones, in any order; else words that hold no right value.

    Words are first on what the descriptions of the tools forbid, then on what the request does not ask for.
    """
    missing, over = list(content.wanted), []
    for call in calls:
        match = next((one for one in missing if one.name == call.name and _same(one.arguments, call.arguments)), None)
        missing.remove(match) if match is not None else over.append(call)
    if not missing and not over:
        return None
    for call in over:
        if content.tools and (problem := _against_description(call, content.tools)):
            return problem
    if over and not content.wanted:
        return Problem("a call too many", f"No tool should have been called, but you called {over[0].name:.80}.")
    for call in over:
        goal = next((one for one in missing if one.name == call.name), None)
        if goal is not None:
            return Problem("wrong arguments", _different(call, goal))
    if over:
        wrong = f"{over[0].name:.80} is not the tool that the request needs."
        return Problem(
            "wrong tool" if missing else "a call too many", wrong if missing else f"{wrong} Make fewer calls."
        )
    return Problem("a call is missing", "The request needs another call.")


def _against_description(call: Call, tools: Tools) -> Problem | None:
    if call.name not in tools:
        return Problem("unknown tool", f"There is no tool {call.name:.80}; the tools are {', '.join(tools)}.")
    arguments = tools[call.name]
    for name, argument in arguments.items():
        if argument.required and name not in call.arguments:
            return Problem("schema error", f"{call.name}: the required argument `{name}` is missing.")
    for name, value in call.arguments.items():
        if arguments and name not in arguments:
            known = ", ".join(arguments)
            return Problem("schema error", f"{call.name} has no argument `{name:.80}`; its arguments are {known}.")
        argument = arguments.get(name, Argument(False))
        if argument.type and not _is_of(value, argument.type):
            return Problem("schema error", f"{call.name}: `{name}` has the wrong type; {argument.type} is expected.")
        if argument.values and value not in argument.values:
            listed = ", ".join(map(str, argument.values))
            return Problem("schema error", f"{call.name}: `{name}` must be one of {listed}.")
    return None


def _is_of(value: Any, kind: str) -> bool:
    """A number or a truth value in a text counts: ToolAlpaca's own answers write some so."""
    if isinstance(value, str):
        return kind not in ("array", "list", "object", "dict")
    return isinstance(value, _TYPES[kind]) and (not isinstance(value, bool) or kind in ("boolean", "bool"))


def _different(call: Call, goal: Call) -> str:
    missing = [name for name in goal.arguments if name not in call.arguments]
    if missing:
        return f"{call.name}: the request needs the argument `{missing[0]}` too."
    over = [name for name in call.arguments if name not in goal.arguments]
    if over:
        return f"{call.name}: the request does not ask for `{over[0]:.80}`."
    wrong = [name for name, value in goal.arguments.items() if not _same(value, call.arguments[name])]
    return f"{call.name}: `{wrong[0]}` is not what the request asks for."


def _same(one: Any, other: Any) -> bool:
    """Equal as JSON: the order of an object's names does not count, and 1 is 1.0, but true is not 1."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_same(value, other[key]) for key, value in one.items())
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_same, one, other))
    return bool(one == other) and isinstance(one, bool) == isinstance(other, bool)
