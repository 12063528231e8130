"""Can one run of this program influence the next one in the same process?

Every test counts as if it ran in a fresh process.  A fresh process for each costs a fork; a program that provably
touches nothing outside of its own namespace can run its tests one after the other in one process instead.  `isolated`
proves that from the syntax, conservatively: False only costs time.  The argument:

* Objects that outlive a run are modules, their functions and classes, and containers in them.  A program reaches them
  through names (prelude, builtins, imports) and attributes of them.  Only names whose objects are immutable, or Python
  functions and classes of a few modules without state, are accepted; no attribute with two leading underscores, no
  access by a computed name (getattr, vars, exec, …), no frames.
* What remains mutable are Python functions, classes and modules, and only by storing an attribute.  A program that
  stores attributes anywhere must use them in no other way than calling them, so that no variable ever holds one.
"""

from __future__ import annotations

import ast
import builtins
import enum
import importlib
import re
import sys
import types
from collections.abc import Iterator, Mapping

_MODULES = {
    "bisect", "cmath", "collections", "collections.abc", "copy", "datetime", "functools", "heapq", "itertools", "json",
    "math", "operator", "re", "string", "sys", "time", "typing",
}  # fmt: skip
_OF_SYS = {
    "exit", "float_info", "getrecursionlimit", "getsizeof", "intern", "maxsize", "set_int_max_str_digits",
    "setrecursionlimit", "version_info",
}  # fmt: skip
_STREAMS = {"stdin", "stdout", "stderr"}  # made anew for every run
_REFUSED = {
    "__import__", "attrgetter", "breakpoint", "compile", "delattr", "eval", "exec", "getattr", "globals", "help",
    "locals", "methodcaller", "open", "setattr", "singledispatch", "singledispatchmethod", "update_wrapper", "vars",
}  # fmt: skip
_REFUSED_ATTRIBUTES = {"attrgetter", "methodcaller", "mro", "register", "singledispatch", "update_wrapper"}
_DECORATORS_ONLY = {"final", "no_type_check", "overload", "runtime_checkable", "total_ordering", "wraps"}
_ALLOWED_DUNDER_NAMES = {"__name__", "__class__"}
_INTERNALS = ("gi_", "cr_", "ag_", "f_", "tb_", "co_", "func_")  # of generators, frames, tracebacks, code
_PLAIN = (int, float, complex, str, bytes, bool, type(None), tuple, frozenset)
_HEAP_TYPE, _IMMUTABLE_TYPE = 1 << 9, 1 << 8


def isolated(tree: ast.Module, prelude: dict[str, object], own: Mapping[str, str] | None = None) -> bool:
    """Whether runs of this program in one process cannot influence each other.

    own: sources of the program's own modules, loaded afresh for every run.
    """
    own = own or {}
    try:
        for part in (tree, *(ast.parse(source) for source in own.values())):
            nodes = list(_nodes(part))
            names = _Names(prelude)
            if not (_imports(nodes, names, own) and _Screen(names).passes(nodes)):
                return False
    except (RecursionError, SyntaxError, ValueError):
        return False
    return True


def needs_collection(tree: ast.Module) -> bool:
    """Whether garbage of a run may still do something visible (a generator's `finally`)."""
    kinds = {type(node) for node in _nodes(tree)}
    return bool(kinds & {ast.Yield, ast.YieldFrom, ast.AsyncFunctionDef} and kinds & {ast.Try, ast.With})


def _nodes(tree: ast.AST) -> Iterator[ast.AST]:
    """Every node but the contexts (Load, Store, Del), parents first: `ast.walk` at a third of its time."""
    level: list[ast.AST] = [tree]
    while level:
        yield from level
        below = []
        for node in level:
            for field in node._fields:
                if field == "ctx":
                    continue
                value = getattr(node, field, None)
                if type(value) is list:
                    below += [item for item in value if isinstance(item, ast.AST)]
                elif isinstance(value, ast.AST):
                    below.append(value)
        level = below


class _Names:
    """What each name may stand for: the program's imports, the prelude, the builtins.

    Layers instead of a merged copy: copying would touch, and so duplicate, the memory of every object in them.
    """

    def __init__(self, prelude: dict[str, object]) -> None:
        self.own: dict[str, object] = dict.fromkeys(_STREAMS, _UNKNOWN)
        self._layers = (self.own, prelude, vars(builtins))

    def get(self, name: str) -> object:
        for layer in self._layers:
            if name in layer:
                return layer[name]
        return _UNKNOWN


def _imports(nodes: list[ast.AST], names: _Names, own: Mapping[str, str]) -> bool:
    """Enter the program's imports into `names`; False for an import that is not accepted."""
    for node in nodes:
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name in own:
                    names.own[alias.asname or alias.name] = _UNKNOWN
                    continue
                if alias.name not in _MODULES:
                    return False
                bound = alias.asname or alias.name.partition(".")[0]
                names.own[bound] = importlib.import_module(alias.name if alias.asname else bound)
        elif isinstance(node, ast.ImportFrom) and node.module in own and not node.level:
            for alias in node.names:
                if alias.name == "*":
                    return False
                names.own[alias.asname or alias.name] = _UNKNOWN
        elif isinstance(node, ast.ImportFrom):
            if node.level or (node.module not in _MODULES and node.module != "__future__"):
                return False
            module = importlib.import_module(node.module)
            for alias in node.names:
                if alias.name == "*":
                    if node.module == "sys":
                        return False
                    names.own.update({name: getattr(module, name) for name in getattr(module, "__all__", ())})
                elif node.module == "sys" and alias.name in _STREAMS:
                    names.own[alias.asname or alias.name] = _UNKNOWN
                elif node.module == "sys" and alias.name not in _OF_SYS:
                    return False
                else:
                    names.own[alias.asname or alias.name] = getattr(module, alias.name, _UNKNOWN)
    return True


class _Unknown:
    """What is not known is treated as if it could be changed."""


_UNKNOWN = _Unknown()


class _Screen:
    def __init__(self, names: _Names) -> None:
        self._names = names
        self._accepted: set[int] = set()  # ids of nodes in a position where a changeable object does no harm
        self._decorators: set[int] = set()

    def passes(self, nodes: list[ast.AST]) -> bool:
        self._stores = any(type(node) is ast.Attribute and type(node.ctx) is not ast.Load for node in nodes)
        for node in nodes:
            self._accept_positions(node)
        return all(self._harmless(node) for node in nodes)

    def _accept_positions(self, node: ast.AST) -> None:
        if isinstance(node, ast.Call):
            self._accepted.add(id(node.func))
        elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            self._accepted.update(id(decorator) for decorator in node.decorator_list)
            for decorator in node.decorator_list:
                if isinstance(decorator, ast.Call):
                    self._decorators.add(id(decorator.func))
                self._decorators.add(id(decorator))
            if isinstance(node, ast.ClassDef):
                self._accepted.update(id(base) for base in node.bases)
        annotation = getattr(node, "annotation", None) or getattr(node, "returns", None)
        if annotation is not None:
            self._accepted.update(map(id, _nodes(annotation)))

    def _harmless(self, node: ast.AST) -> bool:
        if isinstance(node, ast.Name):
            return self._harmless_name(node)
        if isinstance(node, ast.Attribute):
            return self._harmless_attribute(node)
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            return node.name != "__del__"
        if isinstance(node, ast.MatchClass):
            return not any(name.startswith("__") for name in node.kwd_attrs)
        return True

    def _harmless_name(self, node: ast.Name) -> bool:
        name = node.id
        if name in _REFUSED or (name.startswith("__") and name not in _ALLOWED_DUNDER_NAMES):
            return False
        target = self._names.get(name)
        if target is _UNKNOWN:
            return True
        if name in _DECORATORS_ONLY and id(node) not in self._decorators:
            return False
        if getattr(target, "__name__", name) in _REFUSED | _REFUSED_ATTRIBUTES and not isinstance(
            target, types.ModuleType
        ):  # imported under another name
            return target is re.compile
        if isinstance(target, types.ModuleType):  # `sys.stdin` is judged as an attribute; alone it must stay put
            return not self._stores or id(node) in self._accepted
        if target is type and self._stores:
            return False
        return self._harmless_object(target, id(node) in self._accepted)

    def _harmless_attribute(self, node: ast.Attribute) -> bool:
        name = node.attr
        if name.startswith(("__", *_INTERNALS)) or name in _REFUSED_ATTRIBUTES:
            return False
        owner = self._resolve(node.value)
        if owner is _UNKNOWN:
            return name not in _DECORATORS_ONLY or not self._stores
        if not isinstance(node.ctx, ast.Load) or name.startswith("_"):
            return False
        self._accepted.add(id(node.value))  # parents come before their children in ast.walk
        target = getattr(owner, name, _UNKNOWN)
        if isinstance(owner, types.ModuleType):
            if owner.__name__ == "sys":
                return name in _OF_SYS or name in _STREAMS
            if owner.__name__ not in _MODULES or isinstance(target, types.ModuleType):
                return False
            if name in _DECORATORS_ONLY:
                return id(node) in self._decorators
        elif target is _UNKNOWN or isinstance(owner, _PLAIN):
            return True  # a variable of the program that has a prelude name, or a method of a constant
        return self._harmless_object(target, id(node) in self._accepted)

    def _resolve(self, node: ast.expr) -> object:
        """The lasting object that an expression certainly or possibly stands for; _UNKNOWN: one of the program's."""
        if isinstance(node, ast.Name):
            return self._names.get(node.id)
        if isinstance(node, ast.Attribute):
            owner = self._resolve(node.value)
            if owner is _UNKNOWN or (owner is sys and node.attr in _STREAMS):
                return _UNKNOWN
            return getattr(owner, node.attr, _UNKNOWN)
        return _UNKNOWN

    def _harmless_object(self, target: object, in_accepted_position: bool) -> bool:
        if isinstance(target, type):
            immutable = not target.__flags__ & _HEAP_TYPE or bool(target.__flags__ & _IMMUTABLE_TYPE)
            return immutable or in_accepted_position or not self._stores
        if isinstance(target, (types.BuiltinFunctionType, types.MethodDescriptorType)):
            owner = getattr(target, "__self__", None)
            return owner is None or isinstance(owner, (types.ModuleType, type))
        if isinstance(target, types.MethodType):
            return in_accepted_position and target.__name__ == "fromkeys"
        if isinstance(target, types.FunctionType) or type(target).__module__ in ("_sitebuiltins", "typing"):
            return in_accepted_position or not self._stores
        if isinstance(target, enum.Enum):
            return in_accepted_position or not self._stores
        return isinstance(target, _PLAIN) or callable(target) and type(target).__module__ == "operator"
