"""Whether calls are those that a row of the Berkeley Function-Calling Leaderboard asks for, by the leaderboard's rules.

A row names for each wanted call and argument the values that count; "" among them makes the argument optional.  The
verdicts are those of the package's `ast_checker` (version 4), which itself can only be imported beside the clients of
every vendor; a test compares them on all its rows.  What is said here of a wrong call never holds a right value.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

from sdpo.envs.tools.calls import Call, Problem

Wanted = Mapping[str, Mapping[str, list[Any]]]  # {name: {argument: the values that count}}, one entry
Function = Mapping[str, Any]  # name, description, parameters: {properties, required}

TYPES: Mapping[str, type] = {
    "string": str, "integer": int, "float": float, "boolean": bool, "array": list, "tuple": list, "dict": dict,
    "any": str,
}  # fmt: skip
_NESTED = ("array", "tuple", "Array", "ArrayList")
Language = Literal["python", "java", "javascript"]


def what_is_wrong(
    calls: Sequence[Call], wanted: Sequence[Wanted], functions: Sequence[Function], language: Language = "python"
) -> Problem | None:
    """None where the calls are the wanted ones, in any order; else words on the first thing that is wrong.

    Arguments in Java and JavaScript are texts in that language.
    """
    if len(calls) != len(wanted):
        needs = "more" if len(calls) < len(wanted) else "fewer"
        return Problem("wrong number of calls", f"You made {_count(calls)}; the request needs {needs}.")
    free = list(calls)
    for goal in wanted:
        name = next(iter(goal))
        function = next((f for f in functions if f["name"] == name), None)
        problems = [wrong_call(call, function, goal, language) for call in free]
        if None not in problems:
            named = [p for call, p in zip(free, problems, strict=True) if p is not None and call.name == name]
            return named[0] if named else _wrong_tool(free, functions)
        free.pop(problems.index(None))
    return None


def _count(calls: Sequence[Call]) -> str:
    return "one call" if len(calls) == 1 else f"{len(calls) or 'no'} calls"


def _wrong_tool(calls: Sequence[Call], functions: Sequence[Function]) -> Problem:
    known = {function["name"] for function in functions}
    unknown = [call.name for call in calls if call.name not in known]
    if unknown:
        words = f"There is no function {unknown[0]:.80}; the functions are {', '.join(sorted(known))}."
        return Problem("unknown tool", words)
    return Problem("wrong tool", f"{calls[0].name} is not the function that the request needs.")


def wrong_call(call: Call, function: Function | None, goal: Wanted, language: Language = "python") -> Problem | None:
    """None where one call is the wanted one."""
    [(name, values)] = goal.items()
    if function is None or call.name != name:
        return Problem("wrong tool", f"{call.name:.80} is not the function that the request needs.")
    properties, required = function["parameters"]["properties"], function["parameters"].get("required", [])
    for argument in required:
        if argument not in call.arguments:
            unread = " Arguments without a name are not read." if call.unnamed else ""
            return Problem("schema error", f"{name}: the required argument `{argument}` is missing.{unread}")
    for argument, value in call.arguments.items():
        if argument not in properties:
            return Problem("schema error", f"{name} has no argument `{argument:.80}`.")
        if argument not in values:
            return Problem("wrong arguments", f"{name}: the request does not ask for `{argument}`.")
        if problem := _wrong_value(value, properties[argument], values[argument], language):
            return Problem(problem.label, f"{name}: `{argument}` {problem.words}")
    for argument, allowed in values.items():
        if argument not in call.arguments and "" not in allowed:
            return Problem("wrong arguments", f"{name}: the request needs the argument `{argument}` too.")
    return None


def _wrong_value(value: Any, described: Mapping[str, Any], allowed: list[Any], language: Language) -> Problem | None:
    types, convert = _language(language)
    kind = types[described["type"]]
    item = described["items"]["type"] if described["type"] in _NESTED else None
    inner = types[item] if item else None
    if convert is not None:
        if not isinstance(value, str):
            return Problem("schema error", "must be a text that holds the value as it is written in the language.")
        try:
            value = convert(value, described["type"], item) if item else convert(value, described["type"])
        except Exception:  # a reader by regular expressions, which raises what it meets
            return Problem("schema error", "cannot be read.")
    if described["type"] == "tuple" and isinstance(value, tuple):
        value = list(value)
    if convert is None and described["type"] == "float" and type(value) is int:
        value = float(value)
    fits, variable = _fits(value, allowed, kind, inner)
    if not fits:
        within = f" of {described['items']['type']}" if inner else ""
        return Problem("schema error", f"has the wrong type: {described['type']}{within} is expected.")
    if variable:
        right = value in allowed
    elif kind is dict:
        right = any(_same_object(value, one) for one in allowed if one != "")
    elif kind is list and inner is dict:
        right = any(_same_objects(value, one) for one in allowed)
    elif kind is str:
        right = _plain(value) in [_plain(one) for one in allowed if isinstance(one, str)]
    elif kind is list:
        right = [_plain(item) for item in value] in [
            [_plain(item) for item in one] for one in allowed if isinstance(one, list)
        ]
    else:
        right = value in allowed
    return None if right else Problem("wrong arguments", "is not what the request asks for.")


def _language(language: Language) -> tuple[Mapping[str, type], Callable[..., Any] | None]:
    """Types by name, and the leaderboard's own reader of texts in the language."""
    if language == "python":
        return TYPES, None
    from bfcl_eval.constants import type_mappings

    if language == "java":
        from bfcl_eval.eval_checker.ast_eval.type_convertor.java_type_converter import java_type_converter

        return type_mappings.JAVA_TYPE_CONVERSION, java_type_converter
    from bfcl_eval.eval_checker.ast_eval.type_convertor.js_type_converter import js_type_converter

    return type_mappings.JS_TYPE_CONVERSION, js_type_converter


def _fits(value: Any, allowed: list[Any], kind: type, inner: type | None) -> tuple[bool, bool]:
    """Whether the type is right, and whether the value is the name of a variable, which the values that count tell."""
    first = next((type(one) for one in allowed if one != ""), None)
    variable = first is not None and first is not kind
    if type(value) is not kind:
        return (first is not None and type(value) is first), True
    if inner is None:
        return True, variable
    items: Any = value
    for one in allowed:
        if not isinstance(one, list) or all(_fits(item, one, inner, None)[0] for item in items):
            return True, variable
    return False, variable


def _plain(value: Any) -> Any:
    """Texts are compared without case, blanks and most punctuation."""
    return re.sub(r"[ ,./\-_*^]", "", value).lower().replace("'", '"') if isinstance(value, str) else value


def _same_object(value: Any, allowed: Any) -> bool:
    if not isinstance(value, Mapping) or not isinstance(allowed, Mapping):
        return False
    return all(
        key in allowed and _plain(item) in [_plain(one) for one in allowed[key]] for key, item in value.items()
    ) and all(key in value or "" in values for key, values in allowed.items())


def _same_objects(value: Sequence[Any], allowed: Any) -> bool:
    return len(value) == len(allowed) and all(map(_same_object, value, allowed))


# ------------------------------------------------------------------------------------------------- references


def reference_calls(wanted: Sequence[Wanted], functions: Sequence[Function]) -> list[Call]:
    """One answer that is right: of each argument the first value that counts, of optional ones where there is one."""
    return [_reference(goal, functions) for goal in wanted]


def _reference(goal: Wanted, functions: Sequence[Function]) -> Call:
    [(name, values)] = goal.items()
    function = next((f for f in functions if f["name"] == name), None)
    parameters: Mapping[str, Any] = function["parameters"] if function else {}
    arguments = {}
    for argument, allowed in values.items():
        given = [_first(one) for one in allowed if one != ""]
        if given and (argument in parameters.get("properties", {}) or "" not in allowed):
            arguments[argument] = given[0]
        elif argument in parameters.get("required", []) and allowed:
            arguments[argument] = allowed[0]
    return Call(name, arguments)


def _first(value: Any) -> Any:
    """Objects hold for each of their keys the values that count."""
    if isinstance(value, list) and value and all(isinstance(item, dict) for item in value):
        return [_first(item) for item in value]
    if not isinstance(value, dict):
        return value
    chosen = {key: [one for one in allowed if one != ""] for key, allowed in value.items()}
    return {key: given[0] for key, given in chosen.items() if given}
