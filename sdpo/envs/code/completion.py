"""From what a response holds to the program that is judged, where a question shows the beginning of a program."""

from __future__ import annotations

import ast
import textwrap
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from sandbox import Frame, Judgement

PROGRAM_FILE = "solution.py"


@dataclass(frozen=True)
class Program:
    """A program, and how many lines of it the response did not write."""

    source: str | None
    lines_before: int = 0

    def in_its_own_lines(self, judgement: Judgement) -> Judgement:
        """The judgement with tracebacks that count the response's own lines from 1, and show no others."""
        if not self.lines_before:
            return judgement
        tests = tuple(replace(test, frames=tuple(self._frames(test.frames))) for test in judgement.tests)
        return replace(judgement, tests=tests)

    def _frames(self, frames: Iterable[Frame]) -> Iterator[Frame]:
        for frame in frames:
            if frame.file != PROGRAM_FILE:
                yield frame
            elif frame.line > self.lines_before:
                yield replace(frame, line=frame.line - self.lines_before)


@dataclass(frozen=True)
class Stub:
    """Imports, helpers and the head of a function `name`, to be completed (HumanEval's `prompt`).

    A response may give the whole function or its body.  A whole function stands behind the stub's imports and helpers,
    which the published harness puts before every completion, too; a body stands behind the whole stub, indented where
    it is not.  What is neither is judged as it is, behind the imports and helpers.
    """

    source: str
    name: str

    @property
    def preamble(self) -> str:
        """The stub without its function."""
        tree = ast.parse(self.source)
        first = min(line for node in tree.body if self._is_it(node) for line in _lines(node))
        return "\n".join(self.source.split("\n")[: first - 1]).strip("\n")

    def completed(self, code: str) -> Program:
        """The program that a response with `code` makes."""
        preamble = self.preamble
        before = f"{preamble}\n" if preamble else ""
        whole = Program(before + code, before.count("\n"))
        tree = _parsed(code)
        if tree is not None and any(self._is_it(node) for node in ast.walk(tree)):
            return whole
        head = self.source if self.source.endswith("\n") else self.source + "\n"
        for body in (code, textwrap.indent(textwrap.dedent(code), "    ")):
            if body.strip() and _parsed(head + body) is not None and body[:1].isspace():
                return Program(head + body, head.count("\n"))
        return whole

    def _is_it(self, node: ast.AST) -> bool:
        if isinstance(node, ast.Assign):
            return any(isinstance(target, ast.Name) and target.id == self.name for target in node.targets)
        return isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) and node.name == self.name


def _lines(node: ast.AST) -> list[int]:
    return [node.lineno, *(decorator.lineno for decorator in getattr(node, "decorator_list", []))]  # type: ignore[attr-defined]


def _parsed(code: str) -> ast.Module | None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about what a response holds
            return ast.parse(code)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
