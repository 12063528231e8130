"""The scopes of a program: which names each binds, to what, and where in the text a global is certainly bound."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from typing import NamedTuple

from .allowed import MODULES

_DATA = (
    ast.BinOp, ast.Compare, ast.Constant, ast.Dict, ast.DictComp, ast.JoinedStr, ast.List, ast.ListComp, ast.Tuple,
    ast.UnaryOp,
)  # fmt: skip
_FUNCTIONS = (ast.FunctionDef, ast.Lambda)
_COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)
# Nodes that bind nothing, and have nothing below them that does: most of all nodes.
_OPERATORS = (ast.boolop, ast.cmpop, ast.expr_context, ast.operator, ast.unaryop)
_LEAVES = frozenset((ast.Name, ast.Constant, *(kind for family in _OPERATORS for kind in family.__subclasses__())))
_END = (sys.maxsize, 0)


class Refused(Exception):
    """The program has something that is not on the list."""


class Binding(NamedTuple):
    """`how`: value (of the expression `node`, in `scope`), group, function (`scope`: its own), module, import, or the
    kind itself."""

    how: str
    node: object = None
    scope: Scope | None = None


class Scope:
    """kind: module, function (also comprehensions and lambdas) or class."""

    def __init__(self, kind: str, parent: Scope | None = None, comprehension: bool = False) -> None:
        self.kind, self.parent, self.comprehension = kind, parent, comprehension
        self.is_module = kind == "module"
        self.top: Scope = self if parent is None else parent.top
        self.bound: dict[str, list[Binding]] = {}
        self.globals: set[str] = set()
        self.nonlocals: set[str] = set()
        self.generates = self.tries = self.static = False
        self.stars: list[str] = []  # modules imported by star
        self._last_star = (0, 0)
        self._regions: dict[str, list[tuple]] = {}  # from where to where a name is bound
        self._unbound: set[str] = set()  # names that handlers of exceptions delete

    def home(self, name: str) -> Scope | None:
        """The scope in which a name used here is bound; None: a name of the library."""
        scope: Scope | None = self
        while scope is not None:
            if name in scope.globals:
                scope = scope.top
            if name in scope.bound and (scope is self or scope.kind != "class"):
                return scope
            scope = scope.parent
        return None

    def certainly_bound(self, name: str, node: ast.AST) -> bool:
        """Whether the name is bound wherever this use of it is reached, so that the library's is out of question."""
        here = (node.lineno, node.col_offset)
        return any(
            begin <= here <= end and begin > self._last_star and (handler or name not in self._unbound)
            for begin, end, handler in self._regions.get(name, ())
        )

    def bind(self, name: str, binding: Binding) -> None:
        self.bound.setdefault(name, []).append(binding)

    def star(self, module: str, node: ast.AST) -> None:
        self.stars.append(module)
        self._last_star = (node.lineno, node.col_offset)

    def region(self, name: str, begin: tuple, end: tuple, handler: bool = False) -> None:
        self._regions.setdefault(name, []).append((begin, end, handler))
        if handler:
            self._unbound.add(name)


class Scopes:
    """The scopes of one module.  Raises Refused for a name or an import that is not accepted."""

    def __init__(self, tree: ast.Module, own: frozenset[str] = frozenset()) -> None:
        self.module = Scope("module")
        self.attributes = Scope("attributes")  # of all classes of the program
        self.inner: dict[int, Scope] = {}  # by id of the node
        self.imports = False
        self._own = own
        self._nonlocals: list[tuple[Scope, str, Binding]] = []
        self._block(tree.body, self.module, top=True)
        for scope, name, binding in self._nonlocals:
            home = scope.parent and scope.parent.home(name)
            if home is None or home.kind != "function":
                raise Refused(f"nonlocal {name}")
            home.bind(name, binding)

    def _bind(self, scope: Scope, name: str, binding: Binding) -> None:
        if name.startswith("__"):
            raise Refused(f"the name {name}")
        if name in scope.globals:
            scope = scope.top
        if name in scope.nonlocals:
            self._nonlocals.append((scope, name, binding))
        else:
            scope.bind(name, binding)

    def _block(self, body: list[ast.stmt], scope: Scope, top: bool = False) -> None:
        for node in body:
            self._scan(node, scope)
            if type(node) is ast.ImportFrom and node.names[0].name == "*":
                if not top or node.module not in MODULES or node.module == "sys":
                    raise Refused(f"from {node.module} import *")
                scope.star(node.module, node)
            elif scope.is_module:
                begin = (node.end_lineno, node.end_col_offset)
                if type(node) is ast.FunctionDef:
                    begin = (node.body[0].lineno, node.body[0].col_offset)
                end = _END if top else (body[-1].end_lineno, body[-1].end_col_offset)
                for name in _names_bound(node):
                    scope.region(name, begin, end)

    def _scan(self, node: ast.AST, scope: Scope) -> None:
        kind = type(node)
        if kind in _LEAVES:
            return
        scan = _SCANS.get(kind)
        if scan is not None:
            scan(self, node, scope)
            return
        for field in node._fields:
            value = getattr(node, field, None)
            if isinstance(value, ast.AST):
                self._scan(value, scope)
            elif type(value) is list and value:
                if isinstance(value[0], ast.stmt):
                    self._block(value, scope)
                else:
                    for item in value:
                        if isinstance(item, ast.AST):
                            self._scan(item, scope)

    # -- what makes a scope ------------------------------------------------------------------------------------------

    def _scan_FunctionDef(self, node: ast.FunctionDef, scope: Scope) -> None:
        inner = self._function(node, scope)
        binding = Binding("function", node, inner)
        self._bind(scope, node.name, binding) if scope.kind != "class" else scope.bind(node.name, binding)
        if scope.kind == "class":
            if node.name != "__init__":
                self._attribute(node.name, binding)
            inner.static = any(isinstance(d, ast.Name) and d.id == "staticmethod" for d in node.decorator_list)
            if not inner.static:
                first = (node.args.posonlyargs + node.args.args)[:1]
                if not first:
                    raise Refused(f"the method {node.name} without self")
                inner.bound[first[0].arg] = [Binding("object")]
        for decorator in node.decorator_list:
            self._scan(decorator, scope)
        self._block(node.body, inner)
        if inner.generates and inner.tries:
            raise Refused("a generator with `try`, which runs whenever it is collected")

    def _scan_Lambda(self, node: ast.Lambda, scope: Scope) -> None:
        self._scan(node.body, self._function(node, scope))

    def _function(self, node: ast.FunctionDef | ast.Lambda, scope: Scope) -> Scope:
        inner = self.inner[id(node)] = Scope("function", scope)
        for declaration in _declarations(node.body) if type(node) is ast.FunctionDef else ():
            kind = inner.globals if type(declaration) is ast.Global else inner.nonlocals
            kind.update(declaration.names)
        arguments = node.args
        for default in (*arguments.defaults, *(d for d in arguments.kw_defaults if d is not None)):
            self._scan(default, scope)
        for argument in _arguments(arguments):
            self._bind(inner, argument.arg, Binding("data"))
        return inner

    def _scan_ClassDef(self, node: ast.ClassDef, scope: Scope) -> None:
        if not scope.is_module:
            raise Refused("a class within a function")
        self._bind(scope, node.name, Binding("class"))
        inner = self.inner[id(node)] = Scope("class", scope)
        self._block(node.body, inner)

    def _comprehension(self, node: ast.ListComp, scope: Scope) -> None:
        inner = self.inner[id(node)] = Scope("function", scope, comprehension=True)
        for number, generator in enumerate(node.generators):
            outer = inner if number else scope
            self._scan(generator.iter, outer)
            self._loop_target(generator.target, generator.iter, outer, inner)
            for condition in generator.ifs:
                self._scan(condition, inner)
        for part in ("elt", "key", "value"):
            if hasattr(node, part):
                self._scan(getattr(node, part), inner)

    _scan_ListComp = _scan_SetComp = _scan_DictComp = _scan_GeneratorExp = _comprehension

    # -- what binds --------------------------------------------------------------------------------------------------

    def _target(self, node: ast.expr, binding: Binding, scope: Scope) -> None:
        if isinstance(node, ast.Name):
            self._bind(scope, node.id, binding)
            if scope.kind == "class":
                self._attribute(node.id, binding)
        elif isinstance(node, ast.Attribute):
            self._scan(node.value, scope)
            self._attribute(node.attr, binding)
        elif isinstance(node, (ast.Tuple, ast.List)):
            for part in node.elts:
                self._target(part, Binding("data"), scope)
        elif isinstance(node, ast.Starred):
            self._target(node.value, Binding("data"), scope)
        else:
            self._scan(node, scope)

    def _attribute(self, name: str, binding: Binding) -> None:
        check_attribute(name)
        self.attributes.bind(name, binding)

    def _loop_target(self, target: ast.expr, iterable: ast.expr, outer: Scope, scope: Scope) -> None:
        if is_pair(target):
            self._bind(scope, target.elts[0].id, Binding("data"))
            self._bind(scope, target.elts[1].id, Binding("group", iterable, outer))
        else:
            self._target(target, Binding("data"), scope)

    def _scan_Assign(self, node: ast.Assign, scope: Scope) -> None:
        self._scan(node.value, scope)
        for target in node.targets:
            self._target(target, _binding(node.value, scope), scope)

    def _scan_AnnAssign(self, node: ast.AnnAssign, scope: Scope) -> None:
        if node.value is not None:
            self._scan(node.value, scope)
            self._target(node.target, _binding(node.value, scope), scope)
        elif not isinstance(node.target, ast.Name) or not scope.is_module:
            self._target(node.target, Binding("data"), scope)  # makes the name local

    def _scan_AugAssign(self, node: ast.AugAssign, scope: Scope) -> None:
        self._scan(node.value, scope)
        self._target(node.target, Binding("data"), scope)

    def _scan_NamedExpr(self, node: ast.NamedExpr, scope: Scope) -> None:
        self._scan(node.value, scope)
        while scope.comprehension:
            scope = scope.parent
        self._bind(scope, node.target.id, Binding("data"))

    def _scan_For(self, node: ast.For, scope: Scope) -> None:
        self._scan(node.iter, scope)
        self._loop_target(node.target, node.iter, scope, scope)
        if scope.is_module:
            for name in _names_in(node.target):
                scope.region(name, *_span(node.body))
        self._block(node.body, scope)
        self._block(node.orelse, scope)

    def _scan_ExceptHandler(self, node: ast.ExceptHandler, scope: Scope) -> None:
        if node.type is not None:
            self._scan(node.type, scope)
        if node.name is not None:
            self._bind(scope, node.name, Binding("exception"))
            if scope.is_module:
                scope.region(node.name, *_span(node.body), handler=True)
        self._block(node.body, scope)

    def _scan_Try(self, node: ast.Try, scope: Scope) -> None:
        scope.tries = True
        for handler in node.handlers:
            self._scan(handler, scope)
        for body in (node.body, node.orelse, node.finalbody):
            self._block(body, scope)

    def _scan_Yield(self, node: ast.Yield | ast.YieldFrom, scope: Scope) -> None:
        scope.generates = True
        if node.value is not None:
            self._scan(node.value, scope)

    _scan_YieldFrom = _scan_Yield

    def _scan_Import(self, node: ast.Import, scope: Scope) -> None:
        self.imports = True
        for alias in node.names:
            if alias.name not in MODULES and alias.name not in self._own:
                raise Refused(f"import {alias.name}")
            self._bind(scope, alias.asname or alias.name, Binding("module", alias.name))

    def _scan_ImportFrom(self, node: ast.ImportFrom, scope: Scope) -> None:
        self.imports = True
        if node.level or node.module not in MODULES and node.module not in self._own and node.module != "__future__":
            raise Refused(f"from {node.module} import …")
        for alias in node.names:
            if alias.name != "*":
                how = "future" if node.module == "__future__" else "import"
                self._bind(scope, alias.asname or alias.name, Binding(how, (node.module, alias.name)))

    def _scan_Global(self, node: ast.Global | ast.Nonlocal, scope: Scope) -> None:
        if scope.kind == "class" or any(name.startswith("__") for name in node.names):
            raise Refused("global")

    _scan_Nonlocal = _scan_Global


_SCANS = {
    getattr(ast, name.removeprefix("_scan_")): scan for name, scan in vars(Scopes).items() if name.startswith("_scan_")
}


def check_attribute(name: str) -> None:
    """Names with two underscores are the interpreter's, but for those that it makes private to a class."""
    if name == "mro" or name.endswith("__") or "__" in name.lstrip("_") or name.startswith("___"):
        raise Refused(f"the attribute {name}")


def is_pair(target: ast.expr) -> bool:
    """Whether the target of a loop takes the pairs of `groupby`."""
    return isinstance(target, ast.Tuple) and len(target.elts) == 2 and all(isinstance(n, ast.Name) for n in target.elts)


def _binding(value: ast.expr, scope: Scope) -> Binding:
    return Binding("data") if isinstance(value, _DATA) else Binding("value", value, scope)


def _arguments(arguments: ast.arguments) -> Iterator[ast.arg]:
    yield from (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)
    yield from (argument for argument in (arguments.vararg, arguments.kwarg) if argument is not None)


def _declarations(body: list[ast.stmt]) -> Iterator[ast.Global | ast.Nonlocal]:
    """The function's own `global` and `nonlocal` statements."""
    for node in body:
        if isinstance(node, (ast.Global, ast.Nonlocal)):
            yield node
        elif not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            for part in ("body", "orelse", "finalbody"):
                yield from _declarations(getattr(node, part, []))
            for handler in getattr(node, "handlers", []):
                yield from _declarations(handler.body)


def _names_bound(node: ast.stmt) -> Iterator[str]:
    """Names that a statement, once it has ended, has certainly bound."""
    if isinstance(node, ast.Assign):
        for target in node.targets:
            yield from _names_in(target)
    elif isinstance(node, ast.AnnAssign) and node.value is not None:
        yield from _names_in(node.target)
    elif isinstance(node, (ast.FunctionDef, ast.ClassDef)):
        yield node.name
    elif isinstance(node, (ast.Import, ast.ImportFrom)):
        yield from (alias.asname or alias.name for alias in node.names)


def _names_in(target: ast.expr) -> Iterator[str]:
    if isinstance(target, ast.Name):
        yield target.id
    elif isinstance(target, (ast.Tuple, ast.List)):
        for part in target.elts:
            yield from _names_in(part)
    elif isinstance(target, ast.Starred):
        yield from _names_in(target.value)


def _span(body: list[ast.stmt]) -> tuple[tuple, tuple]:
    return (body[0].lineno, body[0].col_offset), (body[-1].end_lineno, body[-1].end_col_offset)
