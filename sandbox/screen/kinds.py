"""What each name and each attribute of a program stands for, as far as `screen` accepts it."""

from __future__ import annotations

import ast
import builtins
import re
import string
import sys
import types
from collections.abc import Mapping

from . import allowed
from .allowed import OWN, OWN_GENERATOR, Form
from .scopes import Binding, Refused, Scope, Scopes, check_attribute

DATA, ITERATOR, GROUPS, SET, STREAM = "data", "iterator", "groups", "set", "stream"
OBJECT, CLASS, EXCEPTION, EXCEPTION_CLASS, TYPE = "object", "class", "exception", "exception class", "type"
Kind = str | tuple[Form, ...] | types.ModuleType | Scope  # forms: a function; a scope: a module of the program's own
_STREAMS = {"stdin", "stdout", "stderr"}  # made anew for every run
_PLAIN_FIELD = re.compile(r"\w*")
_MISSING = object()


class Kinds:
    """floats: a float may be NaN, whose hash is its address, and the order of a set shows it.  A program that may have
    floats may therefore only put into sets and look into them."""

    def __init__(self, tree: ast.Module, prelude: Mapping[str, object], own: Mapping[str, str], floats: bool) -> None:
        self._layers = (prelude, vars(builtins))
        self._floats = floats
        self.saw_floats, self.saw_sets = floats, False
        self._kinds: dict[tuple[int, str], Kind] = {}
        self._assumed: set[tuple[int, str]] = set()
        self._trees: list[tuple[ast.Module, Scopes]] = []
        self._own: dict[str, Scope] = {}
        for name, source in own.items():
            if name in sys.stdlib_module_names:
                raise Refused(f"the module {name} replaces one of the library")
            module = ast.parse(source)
            scopes = Scopes(module)
            if scopes.imports or any(isinstance(node, ast.ClassDef) for node in module.body):
                raise Refused(f"the module {name} has more than functions and data")
            self._trees.append((module, scopes))
            self._own[name] = scopes.module
        scopes = Scopes(tree, frozenset(own))
        self._trees.append((tree, scopes))
        self._attributes = scopes.attributes
        self._inner = {key: scope for _, each in self._trees for key, scope in each.inner.items()}

    def _expression(self, node: ast.AST, scope: Scope) -> Kind:
        raise NotImplementedError

    # -- names -------------------------------------------------------------------------------------------------------

    def _name(self, node: ast.Name, scope: Scope) -> Kind:
        name = node.id
        if name == "__name__":
            return DATA
        home = scope.home(name)
        if home is None:
            return self._library(name, scope)
        kind = self._bound(home, name)
        if home.kind == "class":
            if kind != DATA:
                raise Refused(f"{name}, which could be given anything as `self`")
            if name in home.top.bound or self._is_library(name, home.top):
                raise Refused(f"{name} may be the class's or a global")
        elif home.is_module and self._is_library(name, home) and not home.certainly_bound(name, node):
            other = self._library(name, scope)
            if isinstance(kind, tuple) and isinstance(other, tuple):
                return kind + other
            if kind != other:
                raise Refused(f"{name} may be the library's or the program's own")
        return kind

    def _bound(self, home: Scope, name: str) -> Kind:
        """The one kind of everything that is bound to the name."""
        key = (id(home), name)
        if key in self._kinds:
            self._assumed.add(key)
            return self._kinds[key]
        self._kinds[key] = DATA  # while it is being found out
        found: Kind | None = None
        for binding in home.bound[name]:
            kind = self._kind_of(binding)
            if found is None or found == kind:
                found = kind
            elif isinstance(found, tuple) and isinstance(kind, tuple):
                found += tuple(form for form in kind if form not in found)
            else:
                raise Refused(f"{name} is bound to values of different kinds")
        if found != DATA and key in self._assumed:
            raise Refused(f"{name} is bound to itself")
        self._kinds[key] = found
        return found

    def _kind_of(self, binding: Binding) -> Kind:
        how, node, scope = binding
        if how == "value":
            return (OWN,) if isinstance(node, ast.Lambda) else self._expression(node, scope)
        if how == "group":  # the second of a pair in a loop
            return ITERATOR if self._expression(node, scope) == GROUPS else DATA
        if how == "function":
            return (OWN_GENERATOR if scope.generates else OWN,)
        if how == "module":
            return self._own.get(node) or allowed.MODULES[node]
        if how == "import":
            module, name = node
            if module in self._own:
                return self._attribute_of_own(self._own[module], name)
            return self._attribute_of_module(allowed.MODULES[module], name)
        return how

    # -- the library -------------------------------------------------------------------------------------------------

    def _is_library(self, name: str, module: Scope) -> bool:
        return bool(self._library_objects(name, module))

    def _library(self, name: str, scope: Scope) -> Kind:
        """What a name of the library stands for: the same kind in every place that it may come from."""
        if name in _STREAMS:
            return STREAM
        if name.startswith("__"):
            raise Refused(f"the name {name}")
        found = self._library_objects(name, scope)
        if not found:
            return DATA  # a NameError
        kinds = [self._kind_of_object(target, name) for target in found]
        if all(isinstance(kind, tuple) for kind in kinds):
            return tuple(form for kind in kinds for form in kind)
        if any(kind != kinds[0] for kind in kinds):
            raise Refused(f"{name} may stand for values of different kinds")
        return kinds[0]

    def _is_one_of(self, node: ast.expr | None, scope: Scope, accepted: set[int]) -> bool:
        """Whether the expression can only be one of these objects of the library (ids)."""
        found: list[object] = []
        if isinstance(node, ast.Name):
            home = scope.home(node.id)
            if home is None or home.is_module and not home.certainly_bound(node.id, node):
                found += self._library_objects(node.id, scope)
            for how, imported, _ in home.bound[node.id] if home is not None else ():
                known = how == "import" and imported[0] in allowed.MODULES
                found.append(vars(allowed.MODULES[imported[0]]).get(imported[1]) if known else None)
        elif isinstance(node, ast.Attribute):
            module = self._expression(node.value, scope)
            found.append(vars(module).get(node.attr) if isinstance(module, types.ModuleType) else None)
        return bool(found) and all(id(target) in accepted for target in found)

    def _library_objects(self, name: str, scope: Scope) -> list[object]:
        stars = [vars(allowed.MODULES[star]) for star in scope.top.stars]
        return [names[name] for names in stars if name in names] + [
            layer[name] for layer in self._layers if name in layer
        ][:1]

    def _kind_of_object(self, target: object, name: str) -> Kind:
        if type(target) in allowed.CONSTANTS:
            self.saw_floats |= type(target) is float
            return DATA
        if isinstance(target, types.ModuleType):
            if allowed.MODULES.get(target.__name__) is target:
                return target
        elif id(target) in allowed.FUNCTIONS:
            return (allowed.FUNCTIONS[id(target)],)
        elif id(target) in allowed.RAISED:
            return EXCEPTION_CLASS
        elif type(target).__module__ == "_sitebuiltins" and name in ("exit", "quit"):
            return (allowed.QUIT,)
        elif type(target).__module__ == "typing" or getattr(target, "__module__", "") == "typing":
            made = getattr(target, "__origin__", None)  # typing.Counter makes a collections.Counter
            return (allowed.FUNCTIONS[id(made)],) if made in allowed.FACTORIES else TYPE
        raise Refused(f"{name} of the library")

    # -- attributes --------------------------------------------------------------------------------------------------

    def _attribute(self, node: ast.Attribute, scope: Scope) -> Kind:
        name = node.attr
        owner = self._expression(node.value, scope)
        if owner in (OBJECT, CLASS):
            return self._attribute_of_object(owner, name)
        if isinstance(owner, types.ModuleType):
            return self._attribute_of_module(owner, name)
        if isinstance(owner, Scope):
            return self._attribute_of_own(owner, name)
        if isinstance(owner, tuple):
            return self._attribute_of_function(owner, name)
        if owner == STREAM and name == "buffer":
            return STREAM
        if owner == DATA and name in allowed.DATA_ATTRIBUTES:
            return DATA
        if owner == DATA and name == "format":
            text = getattr(node.value, "value", None)
            if type(text) is not str or not _fills_in_only(text):
                raise Refused("format with a text that may take attributes")
        forms = {DATA: allowed.METHODS, SET: allowed.SET_METHODS, STREAM: allowed.STREAM_METHODS}.get(owner, {})
        if name not in forms:
            raise Refused(f"the attribute {name}")
        return (forms[name],)

    def _attribute_of_object(self, owner: Kind, name: str) -> Kind:
        check_attribute(name)
        if name not in self._attributes.bound:
            return DATA  # an AttributeError
        kind = self._bound(self._attributes, name)
        if owner == CLASS and isinstance(kind, tuple):
            if not all(how == "function" and scope.static for how, _, scope in self._attributes.bound[name]):
                raise Refused(f"{name} of a class, which could be given anything as `self`")
        return kind

    def _attribute_of_module(self, module: types.ModuleType, name: str) -> Kind:
        if module is sys and name in _STREAMS:
            return STREAM
        target = vars(module).get(name, _MISSING)
        if name.startswith("_") or target is _MISSING or isinstance(target, types.ModuleType):
            raise Refused(f"{module.__name__}.{name}")
        return self._kind_of_object(target, f"{module.__name__}.{name}")

    def _attribute_of_own(self, module: Scope, name: str) -> Kind:
        if name not in module.bound:
            raise Refused(f"{name} of an own module")
        kind = self._bound(module, name)
        if kind != DATA and not isinstance(kind, tuple):
            raise Refused(f"{name} of an own module")
        return kind

    def _attribute_of_function(self, forms: tuple[Form, ...], name: str) -> Kind:
        """`f.cache_clear`, and methods that are taken from a class of data, such as `str.strip`."""
        if name == "cache_clear" and all(form is OWN or form is OWN_GENERATOR for form in forms):
            return (allowed.CLEAR,)
        for form in forms[:1] if len(forms) == 1 else ():
            for (owner, attribute), of_class in allowed.CLASS_FUNCTIONS.items():
                if attribute == name and allowed.FUNCTIONS[owner] is form:
                    return (of_class,)
            if form.data_class and name in allowed.METHODS and name != "format":
                method = allowed.METHODS[name]  # the object comes first
                return (method._replace(positional="d" + method.positional),)
        raise Refused(f"the attribute {name} of a function")


def _fills_in_only(text: str) -> bool:
    """Whether a text for `format` takes neither an attribute nor an element of what it is given."""
    for _, field, specification, _ in string.Formatter().parse(text):
        if field is not None and not (_PLAIN_FIELD.fullmatch(field) and _fills_in_only(specification)):
            return False
    return True
