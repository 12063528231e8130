"""Test code as people write it, made to say which assertion failed and with what values.

Every `assert`, every `with pytest.raises(…)` and every `self.assert…(…)` of a unittest is a *place*.  `prepare` wraps
each one in a context manager, and the two sides of a comparison in calls that note their values.  Nothing here runs.
"""

from __future__ import annotations

import ast
import builtins
import functools
from typing import NamedTuple

EXAMINER = "__examiner__"  # what the prepared code calls
MAX_SOURCE = 1000
_OPEN = ast.Try | ast.With | ast.AsyncWith | ast.Lambda | ast.AsyncFunctionDef
_FIXTURES = frozenset(("capsys", "request"))


class Place(NamedTuple):
    line: int
    source: str


class Prepared(NamedTuple):
    """A test file, ready to be compiled."""

    tree: ast.Module
    places: list[Place]
    free_names: list[str]  # that the tests use and nobody but the program can define
    tests: list[str]  # functions and classes at the top level that pytest would collect


def prepare(source: str, program_names: tuple[str, ...] = ()) -> Prepared:
    """program_names: names that are the program's although Python has them, too.  Raises SyntaxError, ValueError."""
    tree = ast.parse(source)
    free = [name for name in _free_names(tree) if name in program_names or name not in vars(builtins)]
    tests, places = collected(tree), list[Place]()
    _Rewriter(source, places).visit(tree)
    tree.body = [node for node in tree.body if not _star_import_of_the_program(node)]
    return Prepared(ast.fix_missing_locations(tree), places, free, tests)


@functools.lru_cache(1 << 12)
def problem_with(source: str) -> str | None:
    """Why no program can be judged by this test code; None: it can."""
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        return f"the test code is not valid Python ({error})"
    places: list[Place] = []
    unknown = unknown_fixtures(tree)
    _Rewriter(source, places).visit(tree)
    if not places:
        return "the test code asserts nothing"
    return f"the test code needs the fixture {unknown[0]!r}, which is not there" if unknown else None


def collected(tree: ast.Module) -> list[str]:
    """Names at the top level that pytest would collect, in order."""
    names = []
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test"):
            names.append(node.name)
        elif isinstance(node, ast.ClassDef) and (node.name.startswith("Test") or _is_unittest(node)):
            names.append(node.name)
    return list(dict.fromkeys(names))


def unknown_fixtures(tree: ast.Module) -> list[str]:
    """Arguments of test functions for which there is neither a fixture, a parameter nor a default."""
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    marked = [(node.name, " ".join(map(ast.unparse, node.decorator_list))) for node in functions]
    known = _FIXTURES | {name for name, decorators in marked if "fixture" in decorators}
    unknown = []
    for node in functions:
        if not node.name.startswith("test"):
            continue
        decorators = " ".join(ast.unparse(decorator) for decorator in node.decorator_list)
        optional = len(node.args.defaults)
        names = [argument.arg for argument in node.args.args]
        needed = names[: len(names) - optional] if optional else names
        if "patch" in decorators:
            unknown.append("mock.patch")
        unknown += [n for n in needed if n not in known and n not in ("self", "cls") and n not in decorators]
    return unknown


def _is_unittest(node: ast.ClassDef) -> bool:
    return any(ast.unparse(base).endswith("TestCase") for base in node.bases)


def _free_names(tree: ast.Module) -> list[str]:
    """Names that are read, are bound nowhere at the top level, and not in every function that reads them."""
    top: set[str] = set()
    for node in _top_level(tree):
        if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load):
            top.add(node.id)
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            top.add(node.name)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            top.update((alias.asname or alias.name).split(".")[0] for alias in node.names)
    read = [node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)]
    return [name for name in dict.fromkeys(read) if name not in top and name != EXAMINER]


def _top_level(tree: ast.AST):  # noqa: ANN202
    for node in ast.iter_child_nodes(tree):
        yield node
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Lambda):
            yield from _top_level(node)


def _star_import_of_the_program(node: ast.AST) -> bool:
    """What such an import would bring is among the free names; it must not replace `abs` or `isinstance`."""
    return isinstance(node, ast.ImportFrom) and node.module == "solution" and node.names[0].name == "*"


class _Rewriter(ast.NodeTransformer):
    def __init__(self, source: str, places: list[Place]) -> None:
        self._source, self._places = source, places
        self._open = 0  # inside of something that may want to see an AssertionError

    def visit(self, node: ast.AST) -> ast.AST:
        self._open += isinstance(node, _OPEN)
        try:
            return super().visit(node)
        finally:
            self._open -= isinstance(node, _OPEN)

    def visit_Assert(self, node: ast.Assert) -> ast.AST:
        place = self._place(node)
        test = node.test
        if isinstance(test, ast.Compare) and len(test.ops) == 1:
            test.left = self._noted("left", self.visit(test.left))
            test.comparators = [self._noted("right", self.visit(test.comparators[0]))]
            test = _identity(test)
        else:
            test = self.visit(test)
        message = [] if node.msg is None else [node.msg]
        error = ast.Raise(ast.Call(ast.Name("AssertionError", ast.Load()), message, []), None)
        check = ast.If(ast.UnaryOp(ast.Not(), test), [error], [])
        return self._wrapped(node, place, [check])

    def visit_Compare(self, node: ast.Compare) -> ast.AST:
        self.generic_visit(node)
        return _identity(node)

    def visit_Attribute(self, node: ast.Attribute) -> ast.AST:
        self.generic_visit(node)
        if node.attr == "__class__" and isinstance(node.ctx, ast.Load):
            type_of = ast.Attribute(ast.Name(EXAMINER, ast.Load()), "class_of", ast.Load())
            return ast.copy_location(ast.Call(type_of, [node.value], []), node)
        return node

    def visit_Call(self, node: ast.Call) -> ast.AST:
        self.generic_visit(node)
        if isinstance(node.func, ast.Name) and node.func.id == "type" and len(node.args) == 1:
            node.func = ast.Attribute(ast.Name(EXAMINER, ast.Load()), "type_of", ast.Load())
        return node

    def visit_With(self, node: ast.With) -> ast.AST:
        raises = any(_calls(item.context_expr, "raises", "assertRaises") for item in node.items)
        if not raises:
            return self.generic_visit(node)
        place = self._place(node)
        return self._wrapped(node, place, [self.generic_visit(node)], also_open=1)

    def visit_Expr(self, node: ast.Expr) -> ast.AST:
        checks = isinstance(node.value, ast.Call) and isinstance(node.value.func, ast.Attribute)
        if not (checks and node.value.func.attr.startswith(("assert", "fail")) and _calls_self(node.value)):
            return self.generic_visit(node)
        place = self._place(node)
        return self._wrapped(node, place, [self.generic_visit(node)])

    def _place(self, node: ast.stmt) -> int:
        source = ast.get_source_segment(self._source, node) or ""
        self._places.append(Place(node.lineno, source[:MAX_SOURCE]))
        return len(self._places) - 1

    def _wrapped(self, node: ast.stmt, place: int, body: list, also_open: int = 0) -> ast.With:
        """free to go on: nothing around the place may want to see its failure."""
        free = self._open - also_open <= 0
        call = self._call("place", [ast.Constant(place), ast.Constant(free)])
        return ast.copy_location(ast.With([ast.withitem(call, None)], body), node)

    def _noted(self, side: str, value: ast.expr) -> ast.expr:
        return ast.copy_location(self._call(side, [value]), value)

    @staticmethod
    def _call(name: str, arguments: list[ast.expr]) -> ast.Call:
        return ast.Call(ast.Attribute(ast.Name(EXAMINER, ast.Load()), name, ast.Load()), arguments, [])


def _identity(node: ast.Compare) -> ast.expr:
    """`a is b` as a call that sees through stand-ins."""
    if len(node.ops) != 1 or not isinstance(node.ops[0], ast.Is | ast.IsNot):
        return node
    same = ast.Attribute(ast.Name(EXAMINER, ast.Load()), "same", ast.Load())
    call = ast.Call(same, [node.left, node.comparators[0]], [])
    return ast.copy_location(call if isinstance(node.ops[0], ast.Is) else ast.UnaryOp(ast.Not(), call), node)


def _calls(node: ast.expr, *names: str) -> bool:
    function = node.func if isinstance(node, ast.Call) else None
    return getattr(function, "attr", getattr(function, "id", None)) in names


def _calls_self(node: ast.Call) -> bool:
    return isinstance(node.func.value, ast.Name) and node.func.value.id == "self"
