"""Rows of the data sets whose tests are assertions, as they are published → questions.

HumanEval   task_id, prompt, entry_point, canonical_solution, test       `check(candidate)`, the whole of it one test
MBPP        task_id, text or prompt, code, test_list, test_setup_code or test_imports, challenge_test_list
KodCode     question_id (or none), question, solution, test, test_info   a pytest file; its test functions are the tests
AceCode     id, question, test_cases, inferences                         each assertion is a test

Public tests are those that the question shows: MBPP's `test_list`.  All others are private, MBPP's shown ones are that
too, so that the usual measure is what `evaluation` measures.
"""

from __future__ import annotations

import ast
import builtins
import json
import sys
from collections.abc import Callable, Mapping
from typing import Any

from sandbox import TestCase
from sandbox.assertions import problem_with
from sandbox.client import PACKAGES
from sdpo.envs.code.completion import Stub
from sdpo.envs.code.question import Question
from sdpo.envs.rows.files import BadRow

Row = Mapping[str, Any]

_HUMANEVAL = (
    "Complete the following Python function. Answer with the whole function, its imports and helper functions "
    "included, in one code block.\n\n```python\n{prompt}\n```"
)
# Austin et al. 2021 (arXiv 2108.07732), §3; the last sentence is for models that answer in Markdown.
_MBPP = (
    "You are an expert Python programmer, and here is your task: {text} Your code should pass these tests:\n\n"
    "{tests}\n\nAnswer with the complete code in one code block."
)
# The first sentence after the question is the one that KodCode's own training prompts have.
_KODCODE = (
    "{question}\n\nNote that the function declaration is {declaration}. "
    "Your code should be wrapped in a markdown code block."
)
_PLAIN = "{question}\n\nAnswer with the complete code in one code block."
_AT_HAND = frozenset(sys.stdlib_module_names) | {"pytest", "solution"} | {name.split(".")[0] for name in PACKAGES}


def humaneval(row: Row, number: int) -> Question:
    prompt, name, test = (_text(row, key) for key in ("prompt", "entry_point", "test"))
    stub = Stub(prompt, name)
    if not name.isidentifier() or name not in _defined(_parsed(prompt, "prompt")):
        raise BadRow(f"entry_point {name!r} is not a function that the prompt begins")
    if "check" not in _defined(_parsed(test, "test")):
        raise BadRow("test defines no function check")
    # What the published harness has in one namespace: the prompt's helpers, as the prompt has them, and the tests.
    source = "\n".join([stub.preamble, test, f"check({name})"])
    return Question(
        id=_id(row, "task_id", f"HumanEval/{number}"),
        statement=prompt,
        public_tests=(),
        private_tests=(_case(source, name),),
        solution=prompt + row["canonical_solution"] if isinstance(row.get("canonical_solution"), str) else None,
        columns=_columns(row, "prompt", "test", "entry_point", "canonical_solution", "task_id"),
        wording=_HUMANEVAL.format(prompt=prompt.strip("\n")),
        stub=stub,
    )


def mbpp(row: Row, number: int) -> Question:
    text = _text(row, "text" if "text" in row else "prompt")
    shown, more = _list(row, "test_list"), _list(row, "challenge_test_list", needed=False)
    setup = row.get("test_setup_code") or "\n".join(_list(row, "test_imports", needed=False))
    code = row.get("code")
    defined = _defined(_parsed(code, "code")) if isinstance(code, str) else None
    names = _program_names([*shown, *more], defined)
    return Question(
        id=_id(row, "task_id", str(number), "mbpp"),
        statement=text,
        public_tests=tuple(_case(test, names, setup) for test in shown),
        private_tests=tuple(_case(test, names, setup) for test in dict.fromkeys([*shown, *more])),
        solution=code if isinstance(code, str) else None,
        columns=_columns(row, "text", "prompt", "code", "test_setup_code"),
        setup=setup,
        wording=_MBPP.format(text=text.strip(), tests="\n".join(shown)),
    )


def kodcode(row: Row, number: int) -> Question:
    question, test = _text(row, "question"), _text(row, "test")
    tree = _parsed(test, "test")
    if problem := problem_with(test):
        raise BadRow(problem)
    for module in _imported(tree):
        if module not in _AT_HAND:
            raise BadRow(f"the tests import {module}, which is not installed")
    setup, pieces = _test_functions(test, tree)
    solution = row.get("solution")
    info = row.get("test_info")
    declaration = _declaration(info)
    return Question(
        id=_id(row, "question_id", str(number), "kodcode"),
        statement=question,
        public_tests=(),
        private_tests=tuple(TestCase(piece, "", "assertions") for piece in pieces),
        solution=solution if isinstance(solution, str) else None,
        difficulty=str(row.get("gpt_difficulty") or ""),
        columns=_columns(row, "question", "test", "solution", "question_id"),
        setup=setup,
        wording=(_KODCODE if declaration else _PLAIN).format(question=question.strip(), declaration=declaration),
    )


def acecode(row: Row, number: int) -> Question:
    question, tests = _text(row, "question"), _list(row, "test_cases")
    names = _program_names(tests, None)
    return Question(
        id=_id(row, "id", str(number), "acecode"),
        statement=question,
        public_tests=(),
        private_tests=tuple(_case(test, names) for test in dict.fromkeys(tests)),
        columns=_columns(row, "question", "id"),
        wording=_PLAIN.format(question=question.strip()),
    )


FORMATS: Mapping[str, Callable[[Row, int], Question]] = {
    "humaneval": humaneval,
    "mbpp": mbpp,
    "kodcode": kodcode,
    "acecode": acecode,
}


def _text(row: Row, key: str) -> str:
    value = row.get(key)
    if not isinstance(value, str):
        raise BadRow(f"{key} is missing" if key not in row else f"{key} is not a string")
    if not value.strip():
        raise BadRow(f"{key} is empty")
    return value


def _list(row: Row, key: str, needed: bool = True) -> list[str]:
    """A list of texts; in a table it may be the JSON of one."""
    value = row.get(key)
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError:
            raise BadRow(f"{key} is neither a list nor the JSON of one") from None
    if value is None and not needed:
        return []
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise BadRow(f"{key} is missing" if key not in row else f"{key} is not a list of strings")
    if needed and not value:
        raise BadRow("there are no tests")
    return value


def _id(row: Row, key: str, default: str, source: str = "") -> str:
    value = row.get(key)
    name = str(value) if isinstance(value, int | str) and str(value).strip() else default
    return f"{source}/{name}" if source and not name.startswith(source) else name


def _case(source: str, names: str, setup: str = "") -> TestCase:
    if problem := problem_with(f"{setup}\n{source}" if setup else source):
        raise BadRow(f"{problem}: {source.strip().splitlines()[0][:80]!r}")
    return TestCase(source, "", "assertions", names or None)


def _parsed(source: str, what: str) -> ast.Module:
    try:
        return ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise BadRow(f"{what} is not valid Python ({error})") from None


def _defined(tree: ast.Module) -> list[str]:
    kinds = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
    assigned = [t.id for n in tree.body if isinstance(n, ast.Assign) for t in n.targets if isinstance(t, ast.Name)]
    return [node.name for node in tree.body if isinstance(node, kinds)] + assigned


def _program_names(tests: list[str], defined: list[str] | None) -> str:
    """Names in the tests that are the program's: what its reference defines; without one, what every test calls."""
    read = []
    for test in tests:
        tree = _parsed(test, "a test")
        read.append({node.id for node in ast.walk(tree) if isinstance(node, ast.Name)})
    if defined is not None:
        return " ".join(sorted(set(defined) & set().union(*read)))
    return " ".join(sorted(set.intersection(*read) - set(vars(builtins))))


def _imported(tree: ast.Module) -> list[str]:
    names = [alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names]
    names += [str(node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    return [name.split(".")[0] for name in names]


def _test_functions(source: str, tree: ast.Module) -> tuple[str, list[str]]:
    """What stands around the test functions and classes, and each of them; where there are none, all is one piece."""
    lines, pieces, rest, last = source.split("\n"), [], [], 0
    for node in tree.body:
        kinds = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
        if isinstance(node, kinds) and node.name.lower().startswith("test"):
            first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)]) - 1
            rest += lines[last:first]
            last = node.end_lineno or first
            pieces.append("\n".join(lines[first:last]))
    setup = "\n".join([*rest, *lines[last:]]).strip("\n")
    pieces = [piece for piece in pieces if problem_with(f"{setup}\n{piece}") is None]  # others assert nothing
    return (setup, pieces) if pieces else ("", [source])


def _declaration(info: object) -> str:
    if isinstance(info, str):
        try:
            info = json.loads(info)
        except ValueError:
            return ""
    items = [item for item in info if isinstance(item, dict)] if isinstance(info, list) else []
    found = [text for item in items if isinstance(text := item.get("function_declaration"), str) and text.strip()]
    return ", ".join(f"`{text.strip()}`" for text in found)


def _columns(row: Row, *meant: str) -> dict[str, str]:
    """Texts of the row that have no meaning here."""
    return {key: value for key, value in row.items() if key not in meant and isinstance(value, str)}
