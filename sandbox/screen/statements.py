"""Which statements are accepted."""

from __future__ import annotations

import ast
import functools

from . import allowed
from .allowed import OWN
from .expressions import TAKEN, Expressions
from .kinds import CLASS, DATA, EXCEPTION, EXCEPTION_CLASS, ITERATOR, OBJECT, SET, STREAM, TYPE
from .scopes import Refused, Scope, is_pair


class Statements(Expressions):
    def check(self) -> None:
        for tree, scopes in self._trees:
            self._block(tree.body, scopes.module)

    # -- statements --------------------------------------------------------------------------------------------------

    def _block(self, body: list[ast.stmt], scope: Scope) -> None:
        for node in body:
            method = getattr(self, f"_do_{type(node).__name__}", None)
            if method is None:
                raise Refused(f"the syntax of {type(node).__name__}")
            if scope.kind == "class" and type(node) not in (ast.FunctionDef, ast.Assign, ast.AnnAssign, ast.Pass):
                if not isinstance(getattr(node, "value", None), ast.Constant):
                    raise Refused("a class that does more than to define methods and constants")
            method(node, scope)

    def _nothing(self, node: ast.stmt, scope: Scope) -> None:
        """Break, continue, pass; imports and declarations, which `scopes` has looked at."""

    _do_Pass = _do_Break = _do_Continue = _do_Global = _do_Nonlocal = _do_Import = _do_ImportFrom = _nothing

    def _do_Expr(self, node: ast.Expr, scope: Scope) -> None:
        self._expression(node.value, scope)

    def _do_Return(self, node: ast.Return, scope: Scope) -> None:
        self._data(scope, node.value)

    def _do_Assert(self, node: ast.Assert, scope: Scope) -> None:
        self._test(node.test, scope)
        self._data(scope, node.msg)

    def _do_Delete(self, node: ast.Delete, scope: Scope) -> None:
        for target in node.targets:
            if not isinstance(target, ast.Subscript):
                raise Refused("the deletion of a name or an attribute")
            self._data(scope, target)

    def _do_Assign(self, node: ast.Assign | ast.AnnAssign, scope: Scope) -> None:
        kind = self._expression(node.value, scope)
        for target in node.targets if isinstance(node, ast.Assign) else (node.target,):
            if isinstance(target, ast.Name):
                accepted = kind in (DATA, ITERATOR, SET, STREAM, OBJECT) or isinstance(kind, tuple)
                accepted = kind == DATA if scope.kind == "class" else accepted
            elif isinstance(target, ast.Attribute):
                accepted = kind in (DATA, SET, OBJECT)
            elif isinstance(target, ast.Subscript):
                accepted = kind == DATA
            else:
                accepted = kind in TAKEN["i"]
            if not accepted:
                raise Refused(f"`{ast.unparse(node)[:60]}`")
            self._target(target, scope)

    def _do_AnnAssign(self, node: ast.AnnAssign, scope: Scope) -> None:
        self._annotation(node.annotation, scope)
        if node.value is not None:
            self._do_Assign(node, scope)
        elif not isinstance(node.target, ast.Name):  # would be evaluated
            raise Refused("a declaration of an attribute or an element")

    def _do_AugAssign(self, node: ast.AugAssign, scope: Scope) -> None:
        self._data(scope, node.target, node.value)
        self._operator(node.op, node.value)
        self._target(node.target, scope)

    def _target(self, node: ast.expr, scope: Scope) -> None:
        if isinstance(node, ast.Name):
            self._bound(scope.home(node.id), node.id)  # of one kind, that of all its bindings
        elif isinstance(node, (ast.Tuple, ast.List)):
            for part in node.elts:
                self._target(part, scope)
        elif isinstance(node, ast.Starred):
            self._target(node.value, scope)
        elif isinstance(node, ast.Attribute):
            if self._expression(node.value, scope) not in (OBJECT, CLASS):
                raise Refused(f"an attribute is set in `{ast.unparse(node)[:60]}`")
            self._attribute(node, scope)
        else:
            self._data(scope, node)

    def _do_If(self, node: ast.If | ast.While, scope: Scope) -> None:
        self._test(node.test, scope)
        self._block(node.body, scope)
        self._block(node.orelse, scope)

    _do_While = _do_If

    def _do_For(self, node: ast.For, scope: Scope) -> None:
        self._iterable(node.iter, scope, is_pair(node.target))
        self._target(node.target, scope)
        self._block(node.body, scope)
        self._block(node.orelse, scope)

    def _do_Try(self, node: ast.Try, scope: Scope) -> None:
        if node.finalbody:
            raise Refused("finally")
        for handler in node.handlers:
            caught = handler.type.elts if isinstance(handler.type, ast.Tuple) else [handler.type]
            if not all(self._is_one_of(each, scope, allowed.CAUGHT) for each in caught):
                raise Refused("a handler of more than the exceptions of the list")
            self._block(handler.body, scope)
        self._block(node.body, scope)
        self._block(node.orelse, scope)

    def _do_Raise(self, node: ast.Raise, scope: Scope) -> None:
        if node.cause is not None and not isinstance(node.cause, ast.Constant):
            raise Refused("raise … from …")
        raised = node.exc
        if isinstance(raised, ast.Call):
            self._arguments(raised, OWN, scope)
            raised = raised.func
        if raised is not None and self._expression(raised, scope) not in (EXCEPTION_CLASS, EXCEPTION):
            raise Refused(f"raise {ast.unparse(node.exc)[:60]}")

    # -- definitions -------------------------------------------------------------------------------------------------

    def _do_FunctionDef(self, node: ast.FunctionDef, scope: Scope) -> None:
        if getattr(node, "type_params", None):
            raise Refused("type parameters")
        for number, decorator in enumerate(node.decorator_list):
            # A cache around a static method would hand it the object again.
            self._decorator(decorator, scope, static=scope.kind == "class" and number == 0)
        self._parameters(node.args, scope)
        if node.returns is not None:
            self._annotation(node.returns, scope)
        self._block(node.body, self._inner[id(node)])

    def _parameters(self, arguments: ast.arguments, scope: Scope) -> None:
        self._data(scope, *arguments.defaults, *arguments.kw_defaults)
        every = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs, arguments.vararg, arguments.kwarg]
        for argument in every:
            if argument is not None and argument.annotation is not None:
                self._annotation(argument.annotation, scope)

    def _decorator(self, node: ast.expr, scope: Scope, static: bool) -> None:
        if isinstance(node, ast.Call):
            if any(keyword.arg is None for keyword in node.keywords):
                raise Refused("a decorator")
            self._arguments(node, OWN, scope)
            accepted = self._is_one_of(node.func, scope, {id(functools.lru_cache)})
        elif getattr(node, "id", "") == "staticmethod":
            accepted = static and self._is_one_of(node, scope, {id(staticmethod)})
        else:
            accepted = self._is_one_of(node, scope, {id(functools.cache), id(functools.lru_cache)})
        if not accepted:
            raise Refused(f"the decorator {ast.unparse(node)[:60]}")

    def _do_ClassDef(self, node: ast.ClassDef, scope: Scope) -> None:
        plain = all(self._is_one_of(base, scope, {id(object)}) for base in node.bases)
        if not plain or node.keywords or node.decorator_list or getattr(node, "type_params", None):
            raise Refused("a class with a base or a decorator")
        self._block(node.body, self._inner[id(node)])

    def _annotation(self, node: ast.expr, scope: Scope) -> None:
        """Annotations are evaluated, and some of them are kept in a cache, but never seen."""
        if isinstance(node, ast.Constant):
            accepted = node.value is None or type(node.value) in (str, type(...))
        elif isinstance(node, (ast.Name, ast.Attribute)):
            kind = self._expression(node, scope)
            functions = isinstance(kind, tuple) and all(form.data_class for form in kind)
            unknown = isinstance(node, ast.Name) and scope.home(node.id) is None and kind == DATA
            accepted = functions or unknown or kind in (TYPE, CLASS)
        elif isinstance(node, ast.Subscript):
            accepted = isinstance(node.value, (ast.Name, ast.Attribute))
            self._annotation(node.value, scope)
            self._annotation(node.slice, scope)
        elif isinstance(node, (ast.Tuple, ast.List)):
            accepted = True
            for part in node.elts:
                self._annotation(part, scope)
        elif isinstance(node, ast.BinOp):
            accepted = isinstance(node.op, ast.BitOr)
            self._annotation(node.left, scope)
            self._annotation(node.right, scope)
        else:
            accepted = False
        if not accepted:
            raise Refused(f"the annotation {ast.unparse(node)[:60]}")
