"""Can one run of this program influence the next one in the same process?

Every test counts as if it ran in a fresh process.  A fresh process for each costs a fork; a program that provably
touches nothing outside of its own namespace can run its tests one after the other in one process instead.  `isolated`
proves that from the syntax, conservatively: False only costs time.  The argument:

* Objects that outlive a run are modules, their functions and classes, and containers in them.  A program reaches them
  through names (prelude, builtins, imports) and attributes of them.  Only names whose objects are immutable, or Python
  functions and classes of a few modules without state, are accepted; no attribute with two leading underscores, no
  access by a computed name (getattr, vars, exec, format strings, …), no frames.
* What remains mutable are Python functions, classes and modules, and only by storing an attribute.  A program that
  stores attributes anywhere must use them in no other way than calling them, so that no variable ever holds one.
* The library hands such objects to special methods (the bases of a class, the class of an exception, …) and stores
  what some of them return; only those special methods are accepted that get operands.
"""

from __future__ import annotations

import ast
import builtins
import enum
import importlib
import io
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
_OF_IO = {io.BytesIO, io.StringIO, io.UnsupportedOperation}  # the others reach the descriptors
_STREAMS = {"stdin", "stdout", "stderr"}  # made anew for every run
_REFUSED = {
    "ForwardRef", "Formatter", "JSONDecoder", "__import__", "abstractmethod", "attrgetter", "breakpoint",
    "clear_overloads", "clock_gettime", "clock_gettime_ns", "compile", "dataclass_transform", "delattr", "eval", "exec",
    "get_args", "get_origin", "get_overloads", "get_type_hints", "getattr", "globals", "help", "locals", "methodcaller",
    "open", "process_time", "process_time_ns", "setattr", "singledispatch", "singledispatchmethod", "thread_time",
    "thread_time_ns", "update_wrapper", "vars",
}  # fmt: skip
_REFUSED_ATTRIBUTES = {"detach", "format_map", "mro", "obj", "raw", "register"}
_DECORATORS_ONLY = {"final", "no_type_check", "overload", "override", "runtime_checkable", "total_ordering", "wraps"}
_METHODS = {f"__{name}__" for name in (
    "abs add aiter and anext bool bytes call ceil complex contains delitem divmod enter eq float floor floordiv format "
    "ge getattr getitem gt iadd iand ifloordiv ilshift imatmul imod imul index init int invert ior ipow irshift isub "
    "iter itruediv ixor le len length_hint lshift lt matmul missing mod mul ne neg next or pos post_init pow radd rand "
    "rdivmod repr reversed rfloordiv rlshift rmatmul rmod rmul ror round rpow rrshift rshift rsub rtruediv rxor "
    "setitem str sub truediv trunc xor"
).split()}  # fmt: skip
_INTERNALS = ("gi_", "cr_", "ag_", "f_", "tb_", "co_", "func_")  # of generators, frames, tracebacks, code
_BINDING = {
    ast.arg: "arg", ast.keyword: "arg", ast.alias: "asname", ast.ClassDef: "name", ast.ExceptHandler: "name",
    ast.MatchAs: "name", ast.MatchStar: "name", ast.MatchMapping: "rest",
}  # fmt: skip
_FORMATTED_ATTRIBUTE = re.compile(r"\{[^{}:!]*\.")
_PLAIN = (int, float, complex, str, bytes, bool, type(None), tuple, frozenset)
_HEAP_TYPE, _IMMUTABLE_TYPE = 1 << 9, 1 << 8
_MISSING = object()


def isolated(tree: ast.Module, prelude: dict[str, object], own: Mapping[str, str] | None = None) -> bool:
    """Whether runs of this program in one process cannot influence each other.

    own: sources of the program's own modules, loaded afresh for every run.  They are judged as parts of the program, so
    they must not import anything: the program could reach it as an attribute of a module.
    """
    own = own or {}
    try:
        if any(name in sys.stdlib_module_names for name in own):
            return False
        nodes = list(_nodes(tree))
        for module in map(ast.parse, own.values()):
            added = list(_nodes(module))
            if needs_collection(module) or any(isinstance(node, (ast.Import, ast.ImportFrom)) for node in added):
                return False
            nodes += added
        names = _Names(prelude)
        return _imports(nodes, names, own) and _Screen(names).passes(nodes)
    except (RecursionError, SyntaxError, ValueError):
        return False


def needs_collection(tree: ast.Module) -> bool:
    """Whether garbage of a run may still do something visible (a generator's `finally`)."""
    kinds = {type(node) for node in _nodes(tree)}
    return bool(
        kinds & {ast.Yield, ast.YieldFrom, ast.AsyncFunctionDef}
        and kinds & {ast.Try, ast.TryStar, ast.With, ast.AsyncWith}
    )


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
    """What each name may stand for: something imported (in whatever scope), else of the prelude, else a builtin.

    Layers instead of a merged copy: copying would touch, and so duplicate, the memory of every object in them.
    """

    def __init__(self, prelude: dict[str, object]) -> None:
        self.imported: dict[str, list[object]] = {}
        self._layers = (prelude, vars(builtins))

    def bind(self, name: str, target: object) -> None:
        self.imported.setdefault(name, []).append(target)

    def candidates(self, name: str) -> list[object]:
        """Every lasting object that the name could stand for; none for a name of the program's own."""
        found = self.imported.get(name, [])
        if name in _STREAMS:
            return found
        for layer in self._layers:
            if name in layer:
                return [*found, layer[name]]
        return found


def _imports(nodes: list[ast.AST], names: _Names, own: Mapping[str, str]) -> bool:
    """Enter the program's imports into `names`; False for an import that is not accepted."""
    for node in nodes:
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name in own:
                    continue
                if alias.name not in _MODULES:
                    return False
                bound = alias.asname or alias.name.partition(".")[0]
                names.bind(bound, importlib.import_module(alias.name if alias.asname else bound))
        elif isinstance(node, ast.ImportFrom) and node.module in own and not node.level:
            if any(alias.name == "*" for alias in node.names):
                return False
        elif isinstance(node, ast.ImportFrom):
            if node.level or (node.module not in _MODULES and node.module != "__future__"):
                return False
            module = importlib.import_module(node.module)
            for alias in node.names:
                if alias.name == "*":
                    if node.module == "sys":
                        return False
                    for name in getattr(module, "__all__", None) or [n for n in vars(module) if n[0] != "_"]:
                        names.bind(name, getattr(module, name))
                elif alias.name.startswith("_") or (node.module == "sys" and alias.name not in _OF_SYS | _STREAMS):
                    return False
                elif (node.module != "sys" or alias.name not in _STREAMS) and hasattr(module, alias.name):
                    names.bind(alias.asname or alias.name, getattr(module, alias.name))
    return True


class _Screen:
    def __init__(self, names: _Names) -> None:
        self._names = names
        self._accepted: set[int] = set()  # ids of nodes in a position where a changeable object does no harm
        self._decorators: set[int] = set()  # those next to what they decorate
        self._compared: set[int] = set()  # `type` in `type(x) == …`
        self._escaped: list[object] = []  # modules that a variable of the program may hold

    def passes(self, nodes: list[ast.AST]) -> bool:
        self._stores = any(type(node) is ast.Attribute and type(node.ctx) is not ast.Load for node in nodes)
        for node in nodes:
            self._accept_positions(node)
        for node in nodes:
            if type(node) is ast.Name and type(node.ctx) is ast.Load and id(node) not in self._accepted:
                self._escaped += [
                    target for target in self._names.candidates(node.id) if isinstance(target, types.ModuleType)
                ]
        if self._escaped and self._stores:
            return False
        return all(self._harmless(node) for node in nodes)

    def _accept_positions(self, node: ast.AST) -> None:
        if isinstance(node, ast.Call):
            self._accepted.add(id(node.func))
        elif isinstance(node, ast.Attribute):
            self._accepted.add(id(node.value))  # judged together with the attribute
        elif isinstance(node, ast.Compare):
            for side in (node.left, *node.comparators):
                if isinstance(side, ast.Call) and len(side.args) == 1 and not side.keywords:
                    if not isinstance(side.args[0], ast.Starred):
                        self._compared.add(id(side.func))
        elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)) and node.decorator_list:
            self._accepted.update(id(decorator) for decorator in node.decorator_list)
            nearest = node.decorator_list[-1]  # another one could hand on anything in place of the definition
            self._decorators.update((id(nearest), id(getattr(nearest, "func", nearest))))
        annotation = getattr(node, "annotation", None) or getattr(node, "returns", None)
        if annotation is not None:
            self._accepted.update(map(id, _nodes(annotation)))

    def _harmless(self, node: ast.AST) -> bool:
        kind = type(node)
        if kind is ast.Name:
            return self._harmless_name(node)
        if kind is ast.Attribute:
            return self._harmless_attribute(node)
        if kind in (ast.FunctionDef, ast.AsyncFunctionDef):
            return not node.name.startswith("__") or node.name in _METHODS
        if kind is ast.MatchClass:
            return all(_harmless_word(name) and self._harmless_of([], name, node) for name in node.kwd_attrs)
        if kind is ast.ClassDef and node.keywords:
            return False  # a metaclass gets the bases
        return kind not in _BINDING or not (getattr(node, _BINDING[kind]) or "").startswith("__")

    def _harmless_name(self, node: ast.Name) -> bool:
        name = node.id
        if name in _REFUSED:
            return False
        if type(node.ctx) is not ast.Load:
            return not name.startswith("__")
        if name.startswith("__"):
            return name in ("__name__", "__class__")
        return all(
            isinstance(target, types.ModuleType) or self._harmless_object(target, node)
            for target in self._names.candidates(name)
        )

    def _harmless_attribute(self, node: ast.Attribute) -> bool:
        name = node.attr
        if not _harmless_word(name):
            return False
        if name == "format":
            text = getattr(node.value, "value", None)
            if not isinstance(text, str) or _FORMATTED_ATTRIBUTE.search(text):
                return False
        owners = self._resolve(node.value)
        if owners and type(node.ctx) is not ast.Load:
            return False
        return self._harmless_of(owners, name, node)

    def _harmless_of(self, owners: list[object], name: str, node: ast.AST) -> bool:
        """Whether the attribute `name` does no harm, neither of `owners` nor of what a variable may hold."""
        for owner in [*owners, *self._escaped]:
            target = getattr(owner, name, _MISSING)
            if target is _MISSING:
                continue
            if name.startswith("_"):
                return False
            if isinstance(owner, types.ModuleType):
                if owner is sys:
                    if name not in _OF_SYS | _STREAMS:
                        return False
                    continue
                if owner.__name__ not in _MODULES or isinstance(target, types.ModuleType):
                    return False
            elif isinstance(owner, _PLAIN):
                continue
            if not self._harmless_object(target, node):
                return False
        return True

    def _resolve(self, node: ast.expr) -> list[object]:
        """The lasting objects that an expression possibly stands for; none: one of the program's."""
        if isinstance(node, ast.Name):
            return self._names.candidates(node.id)
        if isinstance(node, ast.Attribute):
            found = [
                getattr(owner, node.attr, _MISSING)
                for owner in self._resolve(node.value)
                if owner is not sys or node.attr not in _STREAMS
            ]
            return [target for target in found if target is not _MISSING]
        return []

    def _harmless_object(self, target: object, node: ast.AST) -> bool:
        """Whether `node` may stand for `target`, which is no module."""
        name = getattr(target, "__name__", "")
        if name in _REFUSED and target is not re.compile:  # imported under another name
            return False
        if name in _DECORATORS_ONLY and id(node) not in self._decorators:
            return False
        harmless_here = id(node) in self._accepted or not self._stores
        if isinstance(target, type):
            if issubclass(target, type):  # makes classes without a class statement
                return target is type and id(node) in self._compared
            if target.__module__ in ("io", "_io") and target not in _OF_IO:
                return False
            return not target.__flags__ & _HEAP_TYPE or bool(target.__flags__ & _IMMUTABLE_TYPE) or harmless_here
        if isinstance(target, (types.BuiltinFunctionType, types.MethodDescriptorType)):
            owner = getattr(target, "__self__", None)
            if owner is sys or getattr(target, "__module__", None) in ("io", "_io"):
                return name in _OF_SYS
            return owner is None or isinstance(owner, (types.ModuleType, type))
        if isinstance(target, types.MethodType):
            return id(node) in self._accepted and name == "fromkeys"
        if type(target).__module__ == "typing":  # List[x] is kept in a cache, with x
            return id(node) in self._accepted
        if isinstance(target, (types.FunctionType, enum.Enum)) or type(target).__module__ == "_sitebuiltins":
            return harmless_here
        return isinstance(target, _PLAIN) or callable(target) and type(target).__module__ == "operator"


def _harmless_word(name: str) -> bool:
    """Whether an attribute of this name does no harm, whatever it is of."""
    if name.startswith(("__", *_INTERNALS)) or name in _REFUSED_ATTRIBUTES:
        return False
    return not (name.startswith("_") and name.endswith("_") and len(name) > 1)  # an enumeration's tables
