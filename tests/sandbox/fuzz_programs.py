"""Random programs for the screen: its grammar, every public name of the prelude's modules with all sorts of arguments,
every method of every kind of data, and much that it must refuse."""

from __future__ import annotations

import ast
import builtins
import collections
import importlib
import inspect
import random

from sandbox.prelude import PRELUDE
from sandbox.screen import why_not

MODULES = (
    "string re datetime collections heapq bisect copy math random statistics itertools functools operator io sys json "
    "builtins typing"
).split()
NAMES: dict[str, object] = {}
exec(PRELUDE, NAMES)
NAMES = {name: value for name, value in NAMES.items() if not name.startswith("__")}

_SAMPLES = [1, True, 1.5, 1j, "a", b"a", bytearray(b"a"), [1], (1,), {1: 2}, {1}, frozenset({1}), range(3), None]
_SAMPLES += [collections.deque([1]), collections.Counter("a"), collections.OrderedDict(), collections.defaultdict(int)]
METHODS = sorted({name for sample in _SAMPLES for name in dir(sample)})
LIBRARY = sorted(
    (module, name)
    for module in MODULES
    for name in dir(importlib.import_module(module))
    if callable(getattr(importlib.import_module(module), name)) and not name.startswith("__")
)
SPECIAL = sorted({name for kind in (object, int, list, dict, type, type(len)) for name in dir(kind)}) + [
    "__set_name__", "__getattr__", "__reduce__", "__del__", "__missing__", "__enter__", "__exit__", "__deepcopy__"
]  # fmt: skip
EXCEPTIONS = sorted(n for n, v in vars(builtins).items() if isinstance(v, type) and issubclass(v, BaseException))
_CAUGHT = "(TypeError, ValueError, LookupError, AttributeError, ArithmeticError, StopIteration, NameError, EOFError)"

BEGINNINGS = [
    "n = int(input())\na = [3, 1, 2, n]\nb = {1: 'x', 'k': [n]}\nc = 'abc'\nd = deque([1, n], 3)\n"
    "k = Counter(c + 'a')\nq = defaultdict(list)\nt = (1, 'z', [n])\ns = {5, 2, 40, n}\n",
    "import sys, math as m\nfrom collections import *\nfrom functools import *\nn = int(sys.stdin.readline())\n"
    "a = list(range(n + 3))\nb = dict(zip('abc', a))\nc = f'{n}-{a}'\nd = deque(a)\nk = Counter(a)\n"
    "q = defaultdict(int)\nt = tuple(a)\ns = 1.5 * n\n",
]
DEFINITIONS = [
    "def f(x, y=2, *z):\n    return [x, y, z]\n",
    "def f(*x):\n    global n\n    n += 1\n    return n\n",
    "@lru_cache(None)\ndef f(*x):\n    a.append(len(x))\n    return len(a)\n",
    "f = lambda *x: x[-1:]\n",
    "def f(x=0, *y):\n    w = [x]\n    def inner(v):\n        w.append(v)\n        return w\n"
    "    return [inner(v) for v in y]\n",
]
CLASSES = [
    "class P:\n    size = 3\n    def __init__(self, x=1):\n        self.x = x\n        self.xs = [x]\n"
    "    def grow(self, y=1):\n        self.x += y\n        self.xs.append(y)\n        return self.x\n"
    "    @staticmethod\n    def twice(v=2):\n        return v + v\no = P(n)\n",
    "class P:\n    def __init__(self, x=1):\n        self.x, self.xs, self.size = x, {}, 0\n"
    "    def grow(self, y=1):\n        self.xs[y] = P.twice()\n        return self.xs\n"
    "    @staticmethod\n    def twice(v=2):\n        P.size = 5\n        return [v]\no = P()\n",
]  # fmt: skip


class Programs:
    """`make` gives one program; most of its statements pass the screen on their own."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self._pick = self._random.choice

    def make(self, statements: int = 6) -> str:
        beginning = self._pick(BEGINNINGS) + self._pick(DEFINITIONS) + self._pick(CLASSES)
        lines = []
        for _ in range(statements):
            for _ in range(3):
                line = self._statement()
                try:
                    refused = why_not(ast.parse(beginning + line), NAMES)
                except SyntaxError:
                    continue
                if refused is None or self._random.random() < 0.005:
                    lines.append(line)
                    break
        return beginning + "".join(lines)

    def _statement(self) -> str:
        kind = self._random.random()
        if kind < 0.7:
            body = self._use(self._expression())
        elif kind < 0.8:
            body = self._pick(
                [
                    f"a[{self._data()}] = {self._data()}",
                    f"b[{self._data()}] = {self._expression()}",
                    f"{self._pick('abcdkqtso')} += {self._expression()}",
                    f"del {self._pick('abdkq')}[{self._data()}]",
                    f"o.{self._pick(['x', 'xs', 'size', 'zz', 'grow'])} = {self._expression()}",
                    f"P.{self._pick(['size', 'zz', 'mro'])} = {self._data()}",
                    f"{self._lasting()}.zz = {self._data()}",
                    f"for u in {self._expression()}:\n    a.append(u)\n    break",
                    f"for u, v in {self._expression()}:\n    print(u, v)\n    break",
                    f"u = {self._expression()}\nprint(u)",
                    f"u, *v = {self._expression()}\nprint(u, v)",
                    f"print([w for w in islice({self._expression()}, 5)])",
                ]
            )
        else:
            return self._wild()
        caught = _CAUGHT if self._random.random() < 0.95 else self._pick(EXCEPTIONS)
        return f"try:\n    {body.replace(chr(10), chr(10) + '    ')}\nexcept {caught} as error:\n    print(error)\n"

    def _use(self, expression: str) -> str:
        return self._pick(
            [
                f"print({expression})",
                f"print({expression})",
                f"print(list(islice({expression}, 5)))",
                f"print(next({expression}))",
                f"print(f'{{{expression!s}}}')" if "'" not in expression else f"print({expression})",
                f"print('%s' % ({expression},), len({expression}))",
                f"print('{{}}'.format({expression}))",
                f"a.append({expression})\nprint(a[-1])",
                f"print(sorted({expression}, key={self._function()}))",
                f"print(repr(deepcopy({expression})))",
            ]
        )

    def _expression(self) -> str:
        kind = self._random.random()
        if kind < 0.4:
            return self._call_of_library()
        if kind < 0.65:
            owner = self._data() if self._random.random() < 0.8 else self._pick(["o", "P", "f", "str", "dict", "set"])
            return f"{owner}.{self._pick([*METHODS, 'grow', 'twice', 'xs', 'cache_clear'])}({self._arguments()})"
        if kind < 0.75:
            return f"map({self._function()}, {self._data()}, {self._data()})"
        if kind < 0.8:
            return f"f({self._arguments()})"
        return self._data(3)

    def _call_of_library(self) -> str:
        module, name = self._pick(LIBRARY)
        target = getattr(importlib.import_module(module), name)
        if name in ("count", "cycle", "repeat", "input", "breakpoint") or "wait" in name or "sleep" in name:
            return f"islice({name}({self._data()}), 4)"
        written = name if self._random.random() < 0.5 else f"{module}.{name}"
        keywords = []
        if self._random.random() < 0.3:
            try:
                keywords = [p.name for p in inspect.signature(target).parameters.values() if p.default is not p.empty]
            except (TypeError, ValueError):
                keywords = ["key", "default", "start", "reverse", "memo", "file", "updated", "sep"]
        keyword = f", {self._pick(keywords)}={self._argument()}" if keywords else ""
        return f"{written}({(self._arguments() + keyword).removeprefix(', ')})"

    def _arguments(self) -> str:
        count = self._pick([0, 1, 1, 1, 2, 2, 3])
        return ", ".join(f"*{self._data()}" if self._random.random() < 0.05 else self._argument() for _ in range(count))

    def _argument(self) -> str:
        kind = self._random.random()
        if kind < 0.7:
            return self._data()
        return self._function() if kind < 0.9 else self._pick([f"iter({self._data()})", "int", "(int, str)", "o", "P"])

    def _function(self) -> str:
        return self._pick(
            [
                "f", "lambda *x: x[0]", "lambda x: -x", "len", "str", "int", "sum", "max", "print", "a.append", "k.get",
                "c.join", "o.grow", "P.twice", "itemgetter(0)", "cmp_to_key(lambda x, y: 0)", "str.upper", "dict.get",
                "list", "sorted", "sys.stdout.write", "d.extend", "None", self._pick(LIBRARY)[1],
            ]
        )  # fmt: skip

    def _lasting(self) -> str:
        names = ["math", "Counter", "deepcopy", "f", "o", "a", "I", "sys", "exit", "str"]
        return self._pick([*names, ".".join(self._pick(LIBRARY))])

    def _data(self, depth: int = 1) -> str:
        leaf = self._pick(
            [
                "n", "a", "b", "c", "d", "k", "t", "s", "q", "0", "1", "-2", "3", "'a'", "'k b'", "b'xy'", "None",
                "True", "[]", "()", "{}", "''", "2.5", "[[2, 1], [1]]", "'%s {}'", "range(4)", "a[0]", "b[1]", "o.x",
                "o.xs", "t[1:]",
            ]
        )  # fmt: skip
        if depth == 0 or self._random.random() < 0.5:
            return leaf
        one, two = self._data(depth - 1), self._data(depth - 1)
        operator = self._pick("+ - * // % & | ^ == < in is and or not_in / **".split()).replace("_", " ")
        return self._pick(
            [
                f"({one} {operator} {two})", f"[{one}, *{two}]", f"{{{one}: {two}}}", f"({one}, {two})",
                f"{one}[{two}]", f"[{two} for v in {one}]", f"{{v for v in {one}}}", f"({one} if {two} else 1)",
                f"(n := {two})", f"'{{0.real}} {{}}'.format({two})", f"list(map({self._function()}, {two}))",
                f"sorted({one})", f"(v for v in {two})", f"lambda: {two}", f"set({two})", f"frozenset({one})",
                f"-{one}",
            ]
        )  # fmt: skip

    def _wild(self) -> str:
        """Forms of which none, or few, may pass."""
        module, name = self._pick(LIBRARY)
        special = self._pick(SPECIAL)
        return self._pick(
            [
                f"@{name}\ndef g(*x): return x\nprint(g(1))\n",
                f"@{module}.{name}({self._arguments()})\ndef g(*x): return x\nprint(g(1))\n",
                f"class C:\n    def {special}(self, *x):\n        return self.zz, {self._data()}\nprint(C())\n",
                f"class C({name}): pass\nprint(C())\n",
                f"class C(metaclass={name}): pass\n",
                f"print({self._data()}.{special})\n",
                f"def g():\n    yield {self._expression()}\nprint(list(g()))\nprint(g())\n",
                f"def g():\n    return {self._expression()}\nprint(g())\n",
                f"{name} = {self._expression()}\nprint({name})\n",
                f"from {module} import {name} as w\nprint(w({self._arguments()}))\n",
                f"from {module} import *\nprint({name}({self._arguments()}))\n",
                f"import {module} as w\nprint(w.{name})\n",
                f"for w, v in groupby({self._data()}):\n    print(w, list(v))\n    print(v)\n",
                f"def g(x: {self._pick(['List[int]', 'Optional[P]', name, f'List[{name}]', 'int | None'])}): pass\n",
                f"with {self._expression()} as w: print(w)\n",
                "def g():\n    try:\n        yield 1\n    finally:\n        print(2)\nnext(g())\n",
                f"match {self._data()}:\n    case {self._pick(['int', 'object'])}({special}=w): print(w)\n",
                f"setattr({name}, 'zz', 1)\n",
                f"w = {self._function()}\nprint(w({self._arguments()}))\nprint(w)\n",
            ]
        )
