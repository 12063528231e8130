"""Which expressions are accepted, and the kind of each."""

from __future__ import annotations

import ast
from collections.abc import Mapping

from .allowed import ENCODINGS, KEY, OWN, Form
from .kinds import CLASS, DATA, EXCEPTION, GROUPS, ITERATOR, OBJECT, SET, STREAM, Kind, Kinds
from .scopes import Refused, Scope, is_pair

TAKEN = {
    "d": (DATA,), "e": (DATA, EXCEPTION), "i": (DATA, ITERATOR, STREAM), "n": (DATA, ITERATOR, SET), "o": (STREAM,)
}  # fmt: skip


class Expressions(Kinds):
    def __init__(self, tree: ast.Module, prelude: Mapping[str, object], own: Mapping[str, str], floats: bool) -> None:
        super().__init__(tree, prelude, own, floats)
        self._known: dict[int, Kind] = {}  # by id of the expression

    # -- expressions: the kind of each, once all its parts are accepted ----------------------------------------------

    def _expression(self, node: ast.AST, scope: Scope) -> Kind:
        found = self._known.get(id(node))
        if found is None:
            method = getattr(self, f"_of_{type(node).__name__}", None)
            if method is None:
                raise Refused(f"the syntax of {type(node).__name__}")
            found = self._known[id(node)] = method(node, scope) or DATA
        return found

    def _data(self, scope: Scope, *nodes: ast.AST | None) -> None:
        for node in nodes:
            if node is not None and self._expression(node, scope) != DATA:
                raise Refused(f"`{ast.unparse(node)[:60]}` as data")

    def _test(self, node: ast.expr, scope: Scope) -> None:
        if self._expression(node, scope) not in (DATA, SET):
            raise Refused(f"`{ast.unparse(node)[:60]}` as a condition")

    def _iterable(self, node: ast.expr, scope: Scope, groups: bool = False) -> None:
        kind = self._expression(node, scope)
        if kind not in TAKEN["i"] and not (groups and kind == GROUPS):
            raise Refused(f"`{ast.unparse(node)[:60]}` to iterate over")

    def _of_Constant(self, node: ast.Constant, scope: Scope) -> None:
        self.saw_floats |= type(node.value) in (float, complex)

    def _of_Name(self, node: ast.Name, scope: Scope) -> Kind:
        return self._name(node, scope)

    def _of_Attribute(self, node: ast.Attribute, scope: Scope) -> Kind:
        return self._attribute(node, scope)

    def _of_BinOp(self, node: ast.BinOp, scope: Scope) -> None:
        self._data(scope, node.left, node.right)
        self._operator(node.op, node.right)

    def _operator(self, operator: ast.operator, right: ast.expr) -> None:
        if isinstance(operator, ast.Pow):
            self.saw_floats |= type(getattr(right, "value", None)) is not int  # a negative exponent
        elif isinstance(operator, ast.Div):
            self.saw_floats = True
        elif isinstance(operator, ast.MatMult):
            raise Refused("the operator @")

    def _of_UnaryOp(self, node: ast.UnaryOp, scope: Scope) -> None:
        if isinstance(node.op, ast.Not):
            self._test(node.operand, scope)
        else:
            self._data(scope, node.operand)

    def _of_BoolOp(self, node: ast.BoolOp, scope: Scope) -> None:
        self._data(scope, *node.values)

    def _of_Compare(self, node: ast.Compare, scope: Scope) -> None:
        self._data(scope, node.left)
        if len(node.ops) == 1 and isinstance(node.ops[0], (ast.In, ast.NotIn)):
            if self._expression(node.comparators[0], scope) not in (DATA, ITERATOR, SET):
                raise Refused("a look into something that is no data")
        else:
            self._data(scope, *node.comparators)

    def _of_IfExp(self, node: ast.IfExp, scope: Scope) -> None:
        self._test(node.test, scope)
        self._data(scope, node.body, node.orelse)

    def _of_Subscript(self, node: ast.Subscript, scope: Scope) -> None:
        self._data(scope, node.value, node.slice)

    def _of_Slice(self, node: ast.Slice, scope: Scope) -> None:
        self._data(scope, node.lower, node.upper, node.step)

    def _of_List(self, node: ast.List | ast.Tuple | ast.Set, scope: Scope) -> None:
        for element in node.elts:
            if isinstance(element, ast.Starred):
                self._iterable(element.value, scope)
            else:
                self._data(scope, element)

    _of_Tuple = _of_List

    def _of_Set(self, node: ast.Set, scope: Scope) -> Kind:
        self._of_List(node, scope)
        return self._set()

    def _set(self) -> Kind:
        self.saw_sets = True
        return SET if self._floats else DATA

    def _of_Dict(self, node: ast.Dict, scope: Scope) -> None:
        self._data(scope, *node.keys, *node.values)

    def _of_JoinedStr(self, node: ast.JoinedStr, scope: Scope) -> None:
        self._data(scope, *node.values)

    def _of_FormattedValue(self, node: ast.FormattedValue, scope: Scope) -> None:
        self._argument("e", node.value, scope)
        self._data(scope, node.format_spec)

    def _of_NamedExpr(self, node: ast.NamedExpr, scope: Scope) -> None:
        self._data(scope, node.value)

    def _of_Yield(self, node: ast.Yield, scope: Scope) -> None:
        self._data(scope, node.value)

    def _of_YieldFrom(self, node: ast.YieldFrom, scope: Scope) -> None:
        self._iterable(node.value, scope)

    def _of_Lambda(self, node: ast.Lambda, scope: Scope) -> Kind:
        self._parameters(node.args, scope)
        inner = self._inner[id(node)]
        if inner.generates:
            raise Refused("yield in a lambda expression")
        self._data(inner, node.body)
        return (OWN,)

    def _comprehension(self, node: ast.ListComp, scope: Scope) -> None:
        inner = self._inner[id(node)]
        for number, generator in enumerate(node.generators):
            if generator.is_async:
                raise Refused("the syntax of async")
            self._iterable(generator.iter, inner if number else scope, is_pair(generator.target))
            self._target(generator.target, inner)
            for condition in generator.ifs:
                self._test(condition, inner)
        self._data(inner, *(getattr(node, part, None) for part in ("elt", "key", "value")))

    _of_ListComp = _of_DictComp = _comprehension

    def _of_SetComp(self, node: ast.SetComp, scope: Scope) -> Kind:
        self._comprehension(node, scope)
        return self._set()

    def _of_GeneratorExp(self, node: ast.GeneratorExp, scope: Scope) -> Kind:
        self._comprehension(node, scope)
        return ITERATOR

    # -- calls -------------------------------------------------------------------------------------------------------

    def _of_Call(self, node: ast.Call, scope: Scope) -> Kind:
        function = self._expression(node.func, scope)
        if function == CLASS:
            self._arguments(node, OWN, scope)
            return OBJECT
        if not isinstance(function, tuple) or KEY in function:
            raise Refused(f"a call of `{ast.unparse(node.func)[:60]}`")
        results = [self._result(node, form, scope) for form in function]
        if any(kind != results[0] for kind in results):
            raise Refused("a call that may give values of different kinds")
        return results[0]

    def _result(self, node: ast.Call, form: Form, scope: Scope) -> Kind:
        self._arguments(node, form, scope)
        self.saw_floats |= form.result == "r" or form.result == "p" and len(node.args) != 3
        if form.result == "s":
            return self._set()
        return {"i": ITERATOR, "f": (OWN,), "k": (KEY,), "g": GROUPS}.get(form.result, DATA)

    def _arguments(self, node: ast.Call, form: Form, scope: Scope) -> None:
        letters = form.positional
        if letters == "m":
            letters = "i" if len(node.args) == 1 and not isinstance(node.args[0], ast.Starred) else "d*"
        repeated = letters.endswith("*")
        letters = letters.removesuffix("*")
        starred = False
        for position, argument in enumerate(node.args):
            if position >= len(letters) and not repeated:
                raise Refused("an argument too many")
            if isinstance(argument, ast.Starred):
                if not repeated or set(letters[position:] or letters[-1]) - set("dein"):
                    raise Refused("an argument with a star")
                self._iterable(argument.value, scope)
                starred = True
            else:
                self._argument("d" if starred else letters[min(position, len(letters) - 1)], argument, scope)
        for keyword in node.keywords:
            if form.keywords is None:
                self._data(scope, keyword.value)
            elif keyword.arg not in form.keywords:
                raise Refused(f"the argument {keyword.arg}")
            else:
                self._argument(form.keywords[keyword.arg], keyword.value, scope)

    def _argument(self, letter: str, node: ast.expr, scope: Scope) -> None:
        if isinstance(node, ast.Constant) and (
            letter in "fk" and node.value is None or letter == "u" and node.value in ENCODINGS
        ):
            return
        if letter == "t" and isinstance(node, ast.Tuple):
            for part in node.elts:
                self._argument("t", part, scope)
            return
        kind = self._expression(node, scope)
        if letter in TAKEN:
            accepted = kind in TAKEN[letter]
        else:
            forms = kind if isinstance(kind, tuple) and letter != "u" else ()
            accepted = bool(forms) and all(_takes(letter, form) for form in forms)
            if letter != "t" and accepted:
                self.saw_floats |= any(form.result in "rp" for form in forms)
                accepted = not any(form.result == "s" and self._set() == SET for form in forms)
        if not accepted:
            raise Refused(f"`{ast.unparse(node)[:60]}` as an argument")


def _takes(letter: str, form: Form) -> bool:
    if form is KEY:
        return letter == "k"
    return form.data_class if letter in "ct" else not form.called_only
