"""Tool calls in an answer, in the three forms in which data sets ask for them, and back into text.

action   pairs of lines ``Action: name`` and ``Action Input: {JSON}`` (ToolAlpaca, as arXiv 2601.20802 §3 uses it)
json     ``[{"function": …, "parameters": {…}}]``, or one such object; `name` and `arguments` are read too
python   ``[name(argument=value, …), …]``, the Berkeley Function-Calling Leaderboard's default; nothing is executed
"""

from __future__ import annotations

import ast
import json
import operator
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

Form = Literal["action", "json", "python"]

_ACTION = re.compile(r"^[ \t]*Action:[ \t]*(.*?)[ \t]*$", re.MULTILINE)
_ACTION_INPUT = re.compile(r"^[ \t]*Action Input:\s*", re.MULTILINE)
_NAMES, _ARGUMENTS = ("name", "function", "tool"), ("arguments", "parameters", "args")
_ARITHMETIC = {ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv}
_DECODER = json.JSONDecoder()
MAX_TEXT = 100_000  # characters of an answer that are read; calls take a few hundred
MAX_STARTS = 100  # brackets that are tried as the beginning of JSON: each failure may read all that follows


class Unreadable(ValueError):
    """There are no calls that can be read; the message says why, to the policy."""


@dataclass(frozen=True)
class Call:
    name: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    unnamed: int = 0  # arguments without a name, which are not read


@dataclass(frozen=True)
class Problem:
    """What is wrong with calls, in a short word to count by and in words for the policy."""

    label: str
    words: str


def read_calls(text: str, form: Form) -> list[Call]:
    """The calls of an answer in order.  Raises Unreadable where there is none, or one of them cannot be read."""
    return {"action": _actions, "json": _json, "python": _python}[form](text[:MAX_TEXT])


def write_calls(calls: Sequence[Call], form: Form) -> str:
    """An answer that makes these calls; `read_calls` reads it back."""
    if form == "action":
        return "\n".join(f"Action: {c.name}\nAction Input: {json.dumps(dict(c.arguments))}" for c in calls)
    if form == "json":
        return json.dumps([{"function": call.name, "parameters": dict(call.arguments)} for call in calls])
    written = (f"{c.name}({', '.join(f'{k}={v!r}' for k, v in c.arguments.items())})" for c in calls)
    return f"[{', '.join(written)}]"


# ------------------------------------------------------------------------------------------------------ action


def _actions(text: str) -> list[Call]:
    found = list(_ACTION.finditer(text))
    if not found:
        raise Unreadable(
            "There is no tool call in your answer. It takes a line `Action: name of the tool` and after it a line "
            "`Action Input: arguments as a JSON object`."
        )
    ends = [match.start() for match in found[1:]] + [len(text)]
    return [_action(match[1], text[match.end() : end]) for match, end in zip(found, ends, strict=True)]


def _action(name: str, rest: str) -> Call:
    given = _ACTION_INPUT.search(rest)
    if given is None:
        raise Unreadable(f"After `Action: {name}` there is no line `Action Input:` with a JSON object.")
    try:
        arguments, _ = _DECODER.raw_decode(rest, given.end())
    except (ValueError, RecursionError) as error:
        raise Unreadable(f"The `Action Input` of {name} is not valid JSON ({_why(error)}).") from None
    if not isinstance(arguments, dict):
        raise Unreadable(f"The `Action Input` of {name} must be a JSON object, not {_json_type(arguments)}.")
    return Call(name, arguments)


# -------------------------------------------------------------------------------------------------------- json


def _json(text: str) -> list[Call]:
    """The first list or object that stands in the text; several objects one after the other are several calls."""
    values: list[Any] = []
    problem: Exception | None = None
    position = starts = 0
    while (start := _next_bracket(text, position)) >= 0 and (starts := starts + 1) <= MAX_STARTS:
        try:
            value, position = _DECODER.raw_decode(text, start)
        except (ValueError, RecursionError) as error:
            problem, position = problem or error, start + 1
            if values:
                break
            continue
        if isinstance(value, list) and values:
            break
        if isinstance(value, list):
            return [_call(item) for item in value]
        if any(key in value for key in _NAMES):
            values.append(value)
    if not values:
        why = f" What looks like one is not valid JSON ({_why(problem)})." if problem else ""
        raise Unreadable(
            'There is no tool call in your answer. It takes a JSON list: [{"function": name, "parameters": {…}}].' + why
        )
    return [_call(value) for value in values]


def _next_bracket(text: str, position: int) -> int:
    return min((at for at in (text.find("[", position), text.find("{", position)) if at >= 0), default=-1)


def _call(value: Any) -> Call:
    if not isinstance(value, dict):
        raise Unreadable(f"Each call must be a JSON object with a name and its parameters, not {_json_type(value)}.")
    name = next((value[key] for key in _NAMES if key in value), None)
    if isinstance(name, dict):  # {"function": {"name": …, "arguments": …}}, as chat interfaces write it
        return _call(name)
    if not isinstance(name, str):
        raise Unreadable("A call does not name its function.")
    arguments: Any = next((value[key] for key in _ARGUMENTS if key in value), {})
    if isinstance(arguments, str):  # JSON in a string, as chat interfaces write it
        try:
            arguments = json.loads(arguments)
        except (ValueError, RecursionError) as error:
            raise Unreadable(f"The arguments of {name} are not valid JSON ({_why(error)}).") from None
    if not isinstance(arguments, dict):
        raise Unreadable(f"The arguments of {name} must be a JSON object, not {_json_type(arguments)}.")
    return Call(name, arguments)


def _json_type(value: Any) -> str:
    names = {dict: "an object", list: "a list", str: "a string", bool: "a truth value", type(None): "null"}
    return names.get(type(value), "a number")


def _why(error: Exception | None) -> str:
    return f"{error.msg} at character {error.pos + 1}" if isinstance(error, json.JSONDecodeError) else "nested too deep"


# ------------------------------------------------------------------------------------------------------ python


def _python(text: str) -> list[Call]:
    """As the leaderboard reads it: quotes and brackets around the calls may be missing, positions are not read."""
    text = text.strip("`\n ")
    text = text if text.startswith("[") else f"[{text}"
    text = text if text.endswith("]") else f"{text}]"
    try:
        body = ast.parse(text.strip().strip("'"), mode="eval").body
        nodes = [body] if isinstance(body, ast.Call) else getattr(body, "elts", None)
        if nodes is None or not all(isinstance(node, ast.Call) for node in nodes):
            raise Unreadable("Your answer must be a list of calls, [name(argument=value, …), …], and nothing else.")
        return [_python_call(node) for node in nodes]
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        if isinstance(error, Unreadable):
            raise
        what = getattr(error, "msg", None) or str(error)
        raise Unreadable(
            f"Your answer must be a list of calls, [name(argument=value, …), …], and nothing else ({what})."
        ) from None


def _python_call(node: ast.Call) -> Call:
    parts, function = [], node.func
    while isinstance(function, ast.Attribute):
        parts.append(function.attr)
        function = function.value
    if isinstance(function, ast.Name):
        parts.append(function.id)
    arguments = {word.arg: _value(word.value) for word in node.keywords if word.arg is not None}
    return Call(".".join(reversed(parts)), arguments, unnamed=len(node.args))


def _value(node: ast.expr) -> Any:
    """The value of a literal; a name stands for itself, and an expression that is none of these for its text."""
    match node:
        case ast.Constant(value=value):
            return "..." if value is Ellipsis else value
        case ast.UnaryOp(operand=ast.Constant(value=int() | float() as value)):
            return -value
        case ast.List(elts=items):
            return [_value(item) for item in items]
        case ast.Tuple(elts=items):
            return tuple(_value(item) for item in items)
        case ast.Dict(keys=keys, values=values) if None not in keys:
            return {_value(key): _value(value) for key, value in zip(keys, values, strict=True) if key is not None}
        case ast.Name(id=name):
            return name
        case ast.BinOp():
            return _number(node)
        case ast.Call(keywords=[]) | ast.Subscript():
            return ast.unparse(node)
        case ast.Call():
            call = _python_call(node)
            return {call.name: call.arguments}
    raise Unreadable(f"An argument is neither a literal nor a name: {ast.unparse(node)[:80]}")


def _number(node: ast.expr) -> float:
    """Arithmetic on numbers, which some answers leave to the reader."""
    match node:
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _ARITHMETIC:
            try:
                return _ARITHMETIC[type(op)](_number(left), _number(right))
            except (ZeroDivisionError, OverflowError):
                pass
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -_number(operand)
        case ast.Constant(value=int() | float() as value):
            return value
    raise Unreadable(f"An argument is neither a literal nor a name: {ast.unparse(node)[:80]}")
