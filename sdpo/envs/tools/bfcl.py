"""Rows of the Berkeley Function-Calling Leaderboard, version 4, as its package `bfcl-eval` ships them.

Questions, functions and the calls that count stand in files of JSON Lines, one per category.  Prompts are the
leaderboard's own.  The categories that search the web or write to a memory are not here.
"""

from __future__ import annotations

import copy
import importlib.resources
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from sdpo.envs.rows import BadRow, Row
from sdpo.envs.rows.files import read_rows
from sdpo.envs.rows.source import Given, Source
from sdpo.envs.tools.calls import Form, write_calls
from sdpo.envs.tools.leaderboard import TYPES, Language, Wanted, reference_calls, what_is_wrong
from sdpo.envs.tools.services import reference_answer
from sdpo.errors import UserError
from sdpo.types import Message, Task

Category = Literal[
    "simple_python", "simple_java", "simple_javascript", "multiple", "parallel", "parallel_multiple", "irrelevance",
    "live_simple", "live_multiple", "live_parallel", "live_parallel_multiple", "live_irrelevance", "live_relevance",
    "multi_turn_base", "multi_turn_miss_func", "multi_turn_miss_param", "multi_turn_long_context",
]  # fmt: skip
SINGLE_TURN: tuple[Category, ...] = (
    "simple_python", "multiple", "parallel", "parallel_multiple", "irrelevance",
    "live_simple", "live_multiple", "live_parallel", "live_parallel_multiple", "live_irrelevance", "live_relevance",
)  # fmt: skip
INSTALL = "pip install --no-deps bfcl-eval"


@dataclass(frozen=True)
class FunctionCalls:
    """What is asked for in one answer."""

    functions: tuple[Mapping[str, Any], ...]
    wanted: tuple[Wanted, ...]  # none: no call is right
    any_call: bool = False  # whatever is called is right, as long as something is
    language: Language = "python"


@dataclass(frozen=True)
class Conversation:
    """What is asked for in several messages of the user, of simulated services."""

    entry: Mapping[str, Any]  # id, initial_config, involved_classes
    messages: tuple[tuple[Message, ...], ...]  # of the user, one after the other
    wanted: tuple[tuple[str, ...], ...]  # calls for each of them


def is_conversation(category: str) -> bool:
    return category.startswith("multi_turn")


def language_of(category: str) -> Language:
    return "java" if category == "simple_java" else "javascript" if category == "simple_javascript" else "python"


# ------------------------------------------------------------------------------------------------------ rows


def package_source(categories: Sequence[Category]) -> Source:
    """The rows of these categories, each with its category and with what is right (`ground_truth`).

    Raises UserError where the package is not installed.
    """
    folder = _folder()
    files = tuple(f"BFCL_v4_{category}.json" for category in categories)
    return Source("bfcl", files, _package_rows(categories, folder))


def _package_rows(categories: Sequence[Category], folder: Path) -> Iterator[Given]:
    for category in categories:
        file = f"BFCL_v4_{category}.json"
        answers = folder / "possible_answer" / file
        right = [row["ground_truth"] for row in _lines(answers)] if answers.is_file() else None
        for number, row in enumerate(_lines(folder / file)):
            row |= {"category": category} | ({} if right is None else {"ground_truth": right[number]})
            whole = _with_functions(row, folder) if is_conversation(category) else row
            yield Given(file, "line", number + 1, whole)


def _folder() -> Path:
    try:
        folder = Path(str(importlib.resources.files("bfcl_eval"))) / "data"
    except ModuleNotFoundError as error:
        raise UserError(
            f"data.source=bfcl reads the rows that the package bfcl-eval ships, which is not installed. {INSTALL}, "
            "or give data.path."
        ) from error
    return folder


def _lines(path: Path) -> list[Row]:
    return [row for _, _, row in read_rows(path) if isinstance(row, dict)]


def _with_functions(row: Row, folder: Path) -> Row:
    """Conversations name services; their functions are described elsewhere, and some come later than the others."""
    from bfcl_eval.constants.executable_backend_config import MULTI_TURN_FUNC_DOC_FILE_MAPPING as FILES

    functions = [f for name in row["involved_classes"] for f in _lines(folder / "multi_turn_func_doc" / FILES[name])]
    later = row.get("missed_function", {})
    held_back = {name for names in later.values() for name in names}
    return row | {
        "function": [function for function in functions if function["name"] not in held_back],
        "missed_function": {
            turn: [next(f for f in functions if f["name"] == name) for name in names] for turn, names in later.items()
        },
    }


# ----------------------------------------------------------------------------------------------------- tasks


def bfcl_task(row: Row, form: Form) -> Task:
    """A row of the leaderboard as a task.  Raises BadRow for one that lacks something, or that no answer can solve.

    `row` holds what the leaderboard's files hold (id, question, function), `ground_truth` beside it, and `category`;
    without one it counts as a single call in Python, and without ground truth as one that no function fits.
    """
    category = str(row.get("category", ""))
    question = row.get("question")
    functions = _functions(row)
    if not isinstance(question, list) or not question or not isinstance(question[0], list):
        raise BadRow("question is not a list of turns, each a list of messages")
    first = [dict(message) for message in question[0]]
    if not first or not all(isinstance(m.get("content"), str) and m.get("role") for m in first):
        raise BadRow("the first turn of question holds no messages with role and content")
    system = system_prompt(_as_documented(functions, language_of(category)), form)
    if first[0]["role"] == "system":
        messages = ({"role": "system", "content": f"{system}\n\n{first[0]['content']}"}, *first[1:])
    else:
        messages = ({"role": "system", "content": system}, *first)
    if is_conversation(category):
        return _conversation(row, messages, form, category)
    language, wanted = language_of(category), tuple(row.get("ground_truth") or ())
    if not all(isinstance(goal, dict) and len(goal) == 1 for goal in wanted):
        raise BadRow("ground_truth is not a list of objects {name: {argument: [values that count]}}")
    solution = None
    if wanted and language == "python":
        _check_types(functions)
        calls = reference_calls(wanted, functions)
        if problem := what_is_wrong(calls, wanted, functions):
            raise BadRow(f"no answer can be right by its own ground_truth ({problem.words})")
        solution = write_calls(calls, form)
    content = FunctionCalls(tuple(functions), wanted, category == "live_relevance", language)
    return Task(str(row.get("id", "")), messages, content, solution, difficulty=category)


def _functions(row: Row) -> list[dict[str, Any]]:
    functions = row.get("function")
    if not isinstance(functions, list):
        raise BadRow("function is not a list of descriptions")
    for function in functions:
        parameters = function.get("parameters") if isinstance(function, dict) else None
        if not isinstance(parameters, dict) or not isinstance(parameters.get("properties"), dict):
            raise BadRow("a function has no parameters with properties")
        if not isinstance(function.get("name"), str):
            raise BadRow("a function has no name")
    return functions


def _check_types(functions: Sequence[Mapping[str, Any]]) -> None:
    for function in functions:
        for argument, described in function["parameters"]["properties"].items():
            kind = str(described.get("type")) if isinstance(described, dict) else ""
            if kind not in TYPES or (TYPES[kind] is list and described.get("items", {}).get("type") not in TYPES):
                raise BadRow(f"the type of {function['name']}'s {argument} is none of {', '.join(TYPES)}")


def _conversation(row: Row, messages: tuple[Message, ...], form: Form, category: str) -> Task:
    wanted = tuple(tuple(calls) for calls in row.get("ground_truth") or ())
    if len(wanted) != len(row["question"]):
        raise BadRow(f"ground_truth is for {len(wanted)} messages of the user, and there are {len(row['question'])}")
    said = []
    for turn, given in enumerate(row["question"]):
        more = row.get("missed_function", {}).get(str(turn))
        told = f"{more}\nI have updated some more functions you can choose from. What about now?"  # the leaderboard's
        said.append(({"role": "user", "content": told},) if more else tuple(given))
    entry = {key: row.get(key) for key in ("id", "initial_config", "involved_classes")}
    first = reference_answer(wanted[0], row["involved_classes"]) if wanted[0] else []
    solution = write_calls(first, form) if first else None
    return Task(str(row["id"]), messages, Conversation(entry, tuple(said), wanted), solution, difficulty=category)


# ---------------------------------------------------------------------------------------------------- prompts


def system_prompt(functions: Sequence[Mapping[str, Any]], form: Form) -> str:
    """The leaderboard's default, with the functions as JSON; `form` python or json."""
    from bfcl_eval.constants import default_prompts as texts

    style = texts.PROMPT_STYLE_TEMPLATES["classic"]
    asked = style["tool_call_no_tag"].format(output_format=texts.OUTPUT_FORMAT_MAPPING[form], param_types="")
    return str(
        texts.PROMPT_TEMPLATE_MAPPING["plaintext"].format(
            persona=style["persona"],
            task=style["task"],
            tool_call_format=asked,
            multiturn_behavior=style["multiturn_behavior"],
            available_tools=style["available_tools"].format(
                format="json", functions=json.dumps(list(functions), indent=4)
            ),
        )
    )


_LANGUAGES = {"python": "Python 3", "java": "Java 8 SDK", "javascript": "JavaScript"}


def _as_documented(functions: Sequence[Mapping[str, Any]], language: Language) -> list[dict[str, Any]]:
    """Descriptions as the leaderboard shows them: they name the language, in which arguments may be texts."""
    shown = copy.deepcopy([dict(function) for function in functions])
    for function in shown:
        function["description"] = (
            f"{function.get('description', '')} Note that the provided function is in {_LANGUAGES[language]} syntax."
        )
        for described in function["parameters"]["properties"].values() if language != "python" else ():
            _describe_text(described, "Java" if language == "java" else "JavaScript")
    return shown


def _describe_text(described: dict[str, Any], language: str) -> None:
    kind, said = described["type"], described.get("description", "")
    if kind == "any":
        said += f" This parameter can be of any type of {language} object in string representation."
    else:
        said += f" This is {language} {kind} type parameter in string representation."
    if kind in ("ArrayList", "Array", "array"):
        said += (
            f" The list elements are of type {described.pop('items')['type']}; they are not in string representation."
        )
    if kind == "dict" and "properties" in described:
        entries = json.dumps(described.pop("properties"))
        said += f" The dictionary entries have the following schema; they are not in string representation. {entries}"
    described |= {"description": said, "type": "string"}
