# ruff: noqa: E501
"""The screen for programs whose tests may share a process: it never accepts one that could carry something over."""

from __future__ import annotations

import ast
import signal

import pytest

from sandbox import Sandbox, TestCase
from sandbox.prelude import PRELUDE
from sandbox.screen import isolated

NAMES: dict[str, object] = {}
exec(PRELUDE, NAMES)
NAMES = {name: value for name, value in NAMES.items() if not name.startswith("__")}

CARRIES = r"""
m = math\nm.zz = 1
math.zz = 1
x = Counter\nx.zz = 1
Counter.zz = 1
modules["math"].zz = 1
path.append("x")
argv.append(1)
f = lambda c=Counter: c\nf().zz = 1
class A:\n  def f(self): self.zz = 1\nA.f(Counter)
class A:\n  def f(self): self.zz = 1\nlist(map(A.f, [Counter]))
type(Counter()).zz = 1
x = Counter.update\nx.zz = 1
x = deepcopy\nx.zz = 1
(0 or deepcopy).zz = 1
for deepcopy.zz in [1]: pass
class A:\n  def __del__(s): print(1)
f = attrgetter("__class__")
operator.attrgetter("x")
from operator import attrgetter as g\ng("x")
from operator import methodcaller as g\ng("x")
seed(5)
random.seed(5)
from random import seed as s\ns(5)
import decimal\ndecimal.getcontext().prec = 3
list(map(total_ordering, [Counter]))
wraps(deepcopy)(Counter)
import collections as c\nx = c\nx.zz = 1
exit.zz = 1
e = exit\ne.zz = 1
sys.modules
sys.path.append(1)
__builtins__.zz = 1
import builtins\nbuiltins.zz = 1
match 1:\n  case int(__class__=c): c.zz = 1
from sys import *\nmodules
string = math\nstring.zz = 1
io.zz = 1
@setattr\ndef f(): pass
try: 1 / 0\nexcept Exception as e: e.__traceback__
g = (i for i in [1])\ng.gi_frame
(x := Counter).zz = 1
def f(): return Counter\nf().zz = 1
for a in (Counter,): a.zz = 1
import numpy
import os\nos.environ["x"] = "1"
I.zz = 1
x = I\nx.zz = 1
x = List\nx.zz = 1
json.JSONEncoder.item_separator = "x"
x = json.JSONEncoder\nx.item_separator = "x"
math.zz += 1
del math.pi
def f():\n  global math\n  math = Counter\nf()\nmath.zz = 1
from collections import *\nx = Counter\nx.zz = 1
copy.dispatch_table[1] = 2
from collections.abc import Iterable\nIterable.register(int)
Hashable.register(list)
def f(k): k.zz = 1\nf(k=Counter)
d = {"a": Counter}\nd["a"].zz = 1
@singledispatch\ndef f(x): pass
getattr(math, "pi")
vars(math)["zz"] = 1
exec("import math; math.zz = 1")
open(0)
globals()
import threading
""".strip().split("\n")

# Each printed something else in a second run in the same process, or did not get its input there.
CARRY_BY_DETOUR = {
    "settrace": "def t(*a):\n  print('T')\nprint(1)\nsettrace(t)\n",
    "setprofile": "def t(*a):\n  stdout.write('T')\nstdout.write('1')\nsetprofile(t)\n",
    "audit": "def t(*a):\n  if 0: pass\n  try: print('A')\n  except Exception: pass\nprint(1)\naddaudithook(t)\n",
    "getalloc": "print(getallocatedblocks())",
    "switch": "f = getswitchinterval()\nprint(f)\nsetswitchinterval(f*2)",
    "fileio": "print(FileIO(0).read())",
    "open_code": "print(open_code('/dev/stdin').read())",
    "hints": "def f(x: Counter): pass\nC = get_type_hints(f)['x']\nC.zz = 1 + (C.zz if hasattr(C,'zz') else 0)\nprint(C.zz)",
    "hints_eval": "def f(x: \"[setattr(Counter,'zz',getattr(Counter,'zz',0)+1), int][1]\"): pass\nget_type_hints(f)\nprint(hasattr(Counter,'zz') and vars and '{.zz}'.format(Counter))",
    "forwardref": "print(ForwardRef(\"[setattr(Counter,'zz',getattr(Counter,'zz',0)+1), Counter.zz][1]\")._evaluate({}, {}, frozenset()))",
    "alias_sys": "s = sys\ns.path.append('x')\nprint(s.path.count('x'))",
    "alias_random2": "r = random\nif input()=='1': r.seed(1)\nprint(r.random())",
    "alias_functools": "print(str(deepcopy)[:14])\nf = functools\ndef zz(): pass\nf.wraps(zz)(deepcopy)",
    "alias_io": "i = io\nprint(i.open(0).read())",
    "mro_entries": "class X:\n  def __mro_entries__(self, bases):\n    for b in bases[1:]:\n      b.zz = 1 + (b.zz if hasattr(b,'zz') else 0)\n      print(b.zz)\n    return ()\nclass A(X(), Counter): pass",
    "metaclass_fn": "def f(n, bases, ns):\n  b = bases[0]\n  b.zz = 1 + (b.zz if hasattr(b,'zz') else 0)\n  print(b.zz)\nclass A(Counter, metaclass=f): pass",
    "attr_obj": "try: Counter.zz\nexcept AttributeError as e:\n  e.obj.zz = 5\n  print('no')\nelse: print('yes')",
    "exit_type": "class A:\n  def __enter__(s): pass\n  def __exit__(s,t,v,b):\n    t.zz = 1 + (t.zz if hasattr(t,'zz') else 0)\n    print(t.zz)\n    return True\nwith A(): json.loads('')",
    "subclasshook": "class A(Hashable):\n  @classmethod\n  def __subclasshook__(c, C):\n    C.zz = 1 + (C.zz if hasattr(C,'zz') else 0)\n    print(C.zz)\n    return True\nisinstance(ChainMap(), A)",
    "enum_map": "x = (re.I|re.M)\nx._member_map_['a%d' % len(x._member_map_)] = 1\nprint(len(x._member_map_))",
    "final_chain": "print(hasattr(Counter,'__final__'))\ndef f(c): return Counter\n@final\n@f\nclass A: pass",
    "wraps_chain": "print(str(deepcopy)[:14])\ndef g(_): return deepcopy\ndef h(): pass\n@wraps(h)\n@g\ndef x(): pass",
    "overloads": "n = input()\ndef f(): pass\ng = f\nif n == '1':\n  @overload\n  def f(): pass\nprint(len(get_overloads(g)))",
    "dataclass_transform": "print(hasattr(Counter,'__dataclass_transform__'))\ndataclass_transform()(Counter)",
    "abstractmethod": "import typing\nprint(hasattr(deepcopy,'__isabstractmethod__'))\ntyping.abstractmethod(deepcopy)",
    "reduce_ex": "def f(): return Counter\nclass A:\n  def __reduce_ex__(s,p): return (f, (), (None, {'zz': 1}))\nprint(hasattr(Counter,'zz'))\ncopy.copy(A())",
    "type3": "def f(): return Counter\ndef r(s,p): return (f, (), (None, {'zz': 1}))\nA = type('A',(),{'__reduce_ex__': r})\nprint(hasattr(Counter,'zz'))\ncopy.copy(A())",
    "get_origin_type": "def f(): return Counter\ndef r(s,p): return (f, (), (None, {'zz': 1}))\nA = get_origin(Type[int])('A',(),{'__reduce_ex__': r})\nprint(hasattr(Counter,'zz'))\ncopy.copy(A())",
    "case_capture": "def f(): return Counter\ndef r(s,p): return (f, (), (None, {'zz': 1}))\nclass A:\n  match r:\n    case __reduce_ex__: pass\nprint(hasattr(Counter,'zz'))\ncopy.copy(A())",
    "process_time": "import time\nx = time.process_time()\nn = sum(range(3*10**6))\nprint(x > .02)",
    "process_time_star": "from time import *\nx = process_time()\nn = sum(range(3*10**6))\nprint(x > .02)",
    "base_function": "class A(Counter): pass\nf = A.update\nf.zz = 1 + (f.zz if hasattr(f,'zz') else 0)\nprint(f.zz)",
    "parse_object": "f = json.JSONDecoder().parse_object\nf.zz = 1 + (f.zz if hasattr(f,'zz') else 0)\nprint(f.zz)",
    "import_in_scope": "def f():\n  from sys import stdin as Counter\nC = Counter\nC.zz = 1 + (C.zz if hasattr(C,'zz') else 0)\nprint(C.zz)",
    "import_in_scope2": "def f():\n  from math import pi as Counter\nC = Counter\nC.zz = 1 + (C.zz if hasattr(C,'zz') else 0)\nprint(C.zz)",
    "format_cache": "re.compile(input())\nprint('{._cache}'.format(re))",
    "format_globals": "re.compile(input())\nprint('{.__globals__[_cache]}'.format(re.sub))",
    "typing_hash2": "n = input()\nclass A:\n  n = n\n  def __hash__(s): return 1\n  def __eq__(s,o): return True\n  def __call__(s): pass\n  def __repr__(s): return s.n\nprint(List[A()])",
    "typing_eq_annotation": "class A:\n  def __hash__(s): return 1\n  def __eq__(s,o):\n    print('eq')\n    return True\n  def __call__(s): pass\nx: List[A()]\nprint(1)",
    "re_flags_hash": "n = input()\nclass F(int):\n  def __hash__(s): return 1\n  def __eq__(s,o): return True\nprint(re.sub('A','b','aA', 0, F(2 if n == '1' else 0)))",
    "stdin_getvalue": "print(hasattr(sys.stdin.buffer.raw, 'getvalue'), hasattr(sys.stdin.buffer.raw,'closefd'))",
    "classhook_prepare": "class M(typing.ABCMeta):\n  def __prepare__(n, b):\n    b[0].zz = 1 + (b[0].zz if hasattr(b[0],'zz') else 0)\n    print(b[0].zz)\n    return {}\nclass A(Counter, metaclass=M): pass",
    "from_typing_sys": "from typing import sys as s\ndef f(): return s\nf().path.append('x')\nprint(f().path.count('x'))",
    "tb_match": "try: 1/0\nexcept Exception as e: x = e\nmatch x:\n  case object(__traceback__=t): pass\nprint(1)",
    "with_traceback_frames": "class A:\n  def __enter__(s): pass\n  def __exit__(s,t,v,b):\n    match b:\n      case object(tb_frame=f):\n        match f:\n          case object(f_back=g):\n            match g:\n              case object(f_globals=d):\n                d['zz'] = d.get('zz',0)+1\n                print(d['zz'])\n    return True\nwith A(): 1/0",
    "total_ordering_call": "import functools as f\ng = [f]\nprint(hasattr(deepcopy,'__wrapped__'))\ndef h(): pass\ng[0].wraps(h)(deepcopy)",
    "copy_alias": "copy = functools\ndef h(): pass\nprint(hasattr(deepcopy,'__wrapped__'))\ncopy.wraps(h)(deepcopy)",
}

# Most of these show the program something that differs from run to run (an address, what memory or stack is left) or
# hand it something that lasts.
BREAKOUTS = {
    "a memo of the program's own": [
        "class M(dict):\n  def get(s, k, d=None): return s\n  def __setitem__(s, k, v): pass\ndeepcopy([1], M())",
        "d = {}\nlist(map(deepcopy, [[1]], [d]))\nprint(d)",
        "print(deepcopy(*[[1], {}]))",
    ],
    "the globals of a library function": [
        "def f(): pass\nwraps(f, assigned=(), updated=('__globals__',))(deepcopy)",
        "import functools as m\nm.update_wrapper(deepcopy, deepcopy, (), ('__globals__',))",
    ],
    "texts with attributes": [
        "print('{0[:].append}'.format({':': []}))",
        "print('{0.append}'.format([]))",
        "print('{:{1.real}}'.format(1, 2))",
        "print(''.join(['{0.append}']).format([]))",
        "print('{a.append}'.format_map({'a': []}))",
        "print(list(map('{0.append}'.format, [[]])))",
        "print(str.format('{0.append}', []))",
    ],
    "addresses in texts": [
        "print(id([]))",
        "print(object())",
        "print([lambda: 0])",
        "print(map)",
        "print(iter([]))",
        "print([].append)",
        "f = [].append\nprint(f'{f}')",
        "print('%s' % max)",
        "print(defaultdict(lambda: 0))",
        "print(cmp_to_key(lambda a, b: 0)(1))",
        "print(list(map(cmp_to_key(lambda a, b: 0), [1])))",
        "print(max(iter([1]), iter([2]), key=lambda x: 1))",
        "print(max([], default=iter([])))",
        "print(next(iter([]), iter([])))",
        "print(sum([], iter([])))",
        "print(reduce(lambda a, b: a, [], iter([])))",
        "for k, g in groupby('aa'): print(g)",
        "print([pair for pair in groupby('aa')])",
        "x = [y for y in map(iter, [[1]])]\nprint(x)",
        "def f(): yield 1\nprint(f())",
        "def f(): yield 1\nprint(list(map(f, [])))",
        "class A:\n  def f(self): print(self)\nA().f()",
        "class A:\n  def f(self): self.a = 1; print(self.append)\n  def g(self): self.append = 1\nA.f([])",
        "class A:\n  def g(self): print(self.append)\n  def h(self): self.append = 1\nlist(map(A.g, [[]]))",
        "class A:\n  def g(self): return [self.append]\n  def h(self): self.append = 1\n  x = g([])\nprint(A.x)",
        "class A:\n  @cache\n  @staticmethod\n  def f(x=0): return [x]\nprint(A().f())",
        "def f():\n  global q\n  q = iter([])\nf()\nprint(q)",
        "def f():\n  x = 0\n  def g():\n    nonlocal x\n    x = iter([])\n  g()\n  print(x)\nf()",
        "x = x\nx = iter([])\nprint(x)",
        "for sum in []: pass\nprint([sum])",
        "if input(): copy = 5\nprint(copy)",
        "def f(): return [copy]\nprint(f())\ncopy = 5",
        "try: pass\nexcept ValueError as copy: pass\nprint(copy)",
    ],
    "addresses in hashes and orders": [
        "print(hash(print))",
        "print({float('nan'), 1, 2})",
        "x = 1e308 * 10\nprint({x - x, 1})",
        "x = 10 ** -1\nprint({x, 1})",
        "n = int(input())\nprint(sorted({2 ** n, 1}))",
        "print(list(map(set, [[float('nan')]])))",
        "d = defaultdict(set)\nd[1].add(math.nan)\nprint(d)",
        "s = set()\ns.add(math.inf - math.inf)\nfor x in s: print(x)",
        "print({max, min})",
        "class A: pass\nprint({A(), 1})",
        "d = {}\nprint({d.values(), 1})",
    ],
    "what memory is left": [
        "try: x = [0] * 10**9\nexcept MemoryError: print(1)",
        "try: x = [0] * 10**9\nexcept Exception: print(1)",
        "try: x = [0] * 10**9\nexcept: print(1)",
        "def f():\n  try: return [0] * 10**9\n  finally: return 1\nprint(f())",
        "try: pass\nexcept (ValueError, MemoryError) as e: e.zz = 1",
    ],
    "what stack is left": [
        "def f(): f()\ntry: f()\nexcept RecursionError: print(1)",
        "def f(): f()\ntry: f()\nexcept RuntimeError: print(1)",
    ],
    "what is loaded": ["print('a'.encode('cp437'))", "s = input()\nprint(b'a'.decode(s))", "import colorsys"],
    "what the clock says": ["import time", "print(datetime.datetime.now())", "print(date.today())"],
    "what a cache holds": ["print(re.findall('a', 'A', 2.0))", "print(sys.intern(input()) is input())", "re.purge()"],
    "when garbage is collected": [
        "def f():\n  try: yield 1\n  except GeneratorExit: print(2)\nx = f()\nnext(x)",
        "class A:\n  def __del__(self): print(1)\nA()",
    ],
    "code that the library calls": [
        "class A:\n  def __lt__(self, other): return 1",
        "class A:\n  def __set_name__(self, owner, name): pass",
        "class A:\n  def __init_subclass__(cls): pass",
        "class A:\n  def __class_getitem__(cls, x): pass",
        "class A:\n  def __getattr__(self, name): pass",
        "class A(list): pass",
        "class A(Counter): pass",
        "class A(metaclass=type): pass",
        "x = type('A', (), {})",
        "print(property(max))",
        "re.sub('a', lambda m: m, 'a')",
        "json.loads('1', object_hook=print)",
    ],
    "places where code hides": [
        "x = [1]\nx[open(0)]: int",
        "open(0).x: int",
        "def f(x: open(0)): pass",
        "def f(x: List[open(0)]): pass",
        "def f(x=open(0)): pass",
        "@open\ndef f(): pass",
        "@lru_cache(maxsize=open(0))\ndef f(): pass",
        "del open(0)[1]",
        "[0 for open(0).x in [1]]",
        "print(f'{1:{open(0)}}')",
        "assert 1, open(0)",
        "raise ValueError(open(0))",
        "raise ValueError from open(0)",
        "try: pass\nexcept open(0): pass",
        "match 1:\n  case int(real=x): pass",
        "with open(0) as f: pass",
        "async def f(): pass",
        "lambda x=open(0): 1",
        "print(*open(0))",
        "print(1, file=open(0))",
        "(x := open(0))",
    ],
    "streams": [
        "sys.stdin = 5",
        "sys.stdout.zz = 5",
        "print(sys.stdin.buffer.raw)",
        "sys.stdout.detach()",
        "x = [sys.stdout]",
        "sys.stdin.seek(0)",
    ],
    "a star import after the name": [
        "pi = 3\nfrom math import *\npi = iter([])",
        "inf = iter([])\nfrom math import *\nprint(inf)",
    ],
}
BREAKOUTS = [code for codes in BREAKOUTS.values() for code in codes]

CLEAN = {
    "fast_input": "import sys\ninput = sys.stdin.readline\np = list(range(5))\n"
    "print(math.gcd(4, 2), functools.reduce(operator.mul, [1, 2]))\nsys.stdout.write('x')",
    "leetcode": "class Solution:\n  def f(self, a: List[int]) -> int:\n    self.m = 1\n"
    "    @cache\n    def g(i): return 0\n"
    "    return sorted(a, key=cmp_to_key(lambda x, y: x - y))[0] + bisect.bisect_left(a, 1) + comb(4, 2)",
    "imports": "from itertools import accumulate, product\nfrom collections import deque, Counter\nprint(Counter('a'))",
    "names_of_modules": "string = input()\ncopy = list(string)\ncopy.append(string.lower())\nprint('{:.2f}'.format(1.5))",
    "graph": "import sys\nfrom collections import defaultdict, deque\ndef main():\n  n, m = map(int, input().split())\n"
    "  g = defaultdict(list)\n  for _ in range(m):\n    u, v = map(int, sys.stdin.readline().split())\n"
    "    g[u].append(v)\n  dist = [float('inf')] * (n + 1)\n  seen = {1}\n  queue = deque([(1, 0)])\n"
    "  while queue:\n    u, d = queue.popleft()\n    dist[u] = d\n    for v in g[u]:\n      if v not in seen:\n"
    "        seen.add(v)\n        queue.append((v, d + 1))\n  print(*dist[1:])\nif __name__ == '__main__':\n  main()",
    "heap": "import heapq\nn = int(input())\nh = []\nfor i, x in enumerate(input().split()):\n"
    "  heapq.heappush(h, (int(x), i))\nwhile h:\n  x, i = heapq.heappop(h)\n  print(f'{x:>3} {i}')",
    "union_find": "class UnionFind:\n  def __init__(self, n):\n    self.parent = list(range(n))\n    self.size = [1] * n\n"
    "  def find(self, x):\n    while self.parent[x] != x:\n      self.parent[x] = self.parent[self.parent[x]]\n"
    "      x = self.parent[x]\n    return x\n  def union(self, a, b):\n    a, b = self.find(a), self.find(b)\n"
    "    if a != b:\n      self.parent[a] = b\nuf = UnionFind(5)\nuf.union(1, 2)\nprint(uf.find(1), len(set(uf.parent)))",
    "dynamic": "import sys\nfrom functools import lru_cache\nsys.setrecursionlimit(10**6)\nMOD = 10**9 + 7\n"
    "@lru_cache(maxsize=None)\ndef f(n: int) -> int:\n  return 1 if n < 2 else (f(n - 1) + f(n - 2)) % MOD\n"
    "for T in range(int(input())):\n  print(f(T))",
    "shadowing": "n = int(input())\nsum = 0\nmax = -1\nA = list(map(int, input().split()))\nfor e in A:\n  sum += e\n"
    "  if e > max:\n    max = e\nprint(sum, max)",
    "exceptions": "import sys\ndef read():\n  try:\n    return int(input())\n  except (EOFError, ValueError) as e:\n"
    "    print(e)\n    sys.exit()\nwhile True:\n  print(read())",
    "texts": "s, t = input(), input()\nprint('%d %s' % (len(s), t[::-1]), ''.join(sorted(set(s + t))), s.split(','))\n"
    "for c, g in groupby(s):\n  print(c, len(list(g)))\nprint(*map(ord, string.ascii_lowercase), sep='\\n')",
}


@pytest.mark.parametrize("code", CARRIES)
def test_refuses_what_could_carry_something_over(code):
    assert not isolated(ast.parse(code.replace("\\n", "\n")), NAMES)


@pytest.mark.parametrize("name", CARRY_BY_DETOUR)
def test_refuses_what_carries_something_over_by_a_detour(name):
    assert not isolated(ast.parse(CARRY_BY_DETOUR[name]), NAMES)


@pytest.mark.parametrize("code", BREAKOUTS)
def test_refuses_what_has_broken_out(code):
    assert not isolated(ast.parse(code), NAMES)


@pytest.mark.parametrize("name", CLEAN)
def test_accepts_ordinary_programs(name):
    assert isolated(ast.parse(CLEAN[name]), NAMES)


@pytest.mark.parametrize(
    ("kit", "code", "accepted"),
    [
        (
            "def f(x):\n  return (4 * sum(x) + 5) % 19",
            "import kit\nx = list(map(int, input().split()))\nprint(kit.f(x))",
            True,
        ),
        ("n = 0", "import kit as k\nk.n += 1\nprint(k.n)", False),
        ("n = 1\ndef f(x): return [n, x]", "import kit as k\nfrom kit import f\nprint(k.n, k.f(2), f(3))", True),
        ("def f(x): return x", "import kit\nprint(kit.f)", False),
        ("def f(x): return x", "import kit\nkit.f.zz = 1", False),
        ("def f(x): return x", "import kit\nkit.f(print)", False),
        ("import sys", "import kit\nkit.sys.path.append('x')", False),
        ("s = sys", "import kit\nkit.s.path.append('x')", False),
        ("def f():\n  return random", "import kit\nkit.f().seed(1)", False),
        ("C = Counter", "from kit import C\nC.zz = 1", False),
        ("def f(x):\n  x.zz = 1", "from kit import f\nC = Counter\nf(C)", False),
        ("n = 0", "from kit import *\nprint(n)", False),
        ("def f():\n  try:\n    yield 1\n  finally:\n    print(2)", "import kit\nnext(kit.f())", False),
        ("def f(", "import kit", False),
    ],
)
def test_own_modules_count_as_parts_of_the_program(kit, code, accepted):
    assert isolated(ast.parse(code), NAMES, {"kit": kit}) == accepted
    assert not isolated(ast.parse(code.replace("kit", "math")), NAMES, {"math": kit})


COUNTERS = {
    "in_a_module": "import math\nmath.zz = getattr(math, 'zz', 0) + 1\nprint(math.zz)",
    "in_an_alias": "m = math\nm.zz = 1 + (m.zz if hasattr(m, 'zz') else 0)\nprint(m.zz)",
    "in_a_class": "C = Counter\nC.zz = 1 + (C.zz if hasattr(C, 'zz') else 0)\nprint(C.zz)",
    "in_builtins": "import builtins\nbuiltins.zz = getattr(builtins, 'zz', 0) + 1\nprint(builtins.zz)",
    "in_the_environment": "import os\nos.environ['Z'] = str(int(os.environ.get('Z', 0)) + 1)\nprint(os.environ['Z'])",
    "in_a_decimal_context": "import decimal\nc = decimal.getcontext()\nc.prec += 1\nprint(c.prec - 28)",
    "in_a_list_of_sys": "import sys\nsys.path.append('x')\nprint(sys.path.count('x'))",
    "in_what_deepcopy_hands_out": "class M(dict):\n  def get(s, k, d=None):\n    n = len(d) + 1 if type(d) is list else 1\n"
    "    if type(d) is list: d.append(1)\n    print(n)\n    raise SystemExit\ndeepcopy([1], M())",
    "in_the_globals_of_a_library_function": "print(1 + len(functools.__dict__.get('zz', '')))\n"
    "class F: __globals__ = {'zz': functools.__dict__.get('zz', '') + 'x'}\n"
    "functools.wraps(F, assigned=(), updated=('__globals__',))(functools.wraps)",
    "in_an_own_module": "import kit\nkit.n += 1\nprint(kit.n)",
}


@pytest.fixture(scope="module")
def sandbox():
    with Sandbox(workers=2) as one:
        yield one


@pytest.mark.parametrize("name", COUNTERS)
def test_no_counter_survives_a_test(name, sandbox):
    files = {"kit": "n = 0"}
    counting = [TestCase("", "1"), TestCase("", "2"), TestCase("", "3")]
    fresh = [TestCase("", "1")] * 3
    assert not sandbox.judge(COUNTERS[name], counting, files=files).passed
    judgement = sandbox.judge(COUNTERS[name], fresh, files=files)
    assert judgement.passed, judgement


def test_clean_programs_are_fresh_too(sandbox):
    code = "seen = []\n@cache\ndef f(n):\n  seen.append(n)\n  return n\nf(int(input()))\nprint(len(seen))"
    assert sandbox.judge(code, [TestCase("1", "1")] * 5).passed


def test_a_failure_late_in_the_series_keeps_its_place(sandbox):
    tests = [TestCase(str(n), str(n if n != 3 else -1)) for n in range(6)]
    judgement = sandbox.judge("print(input())", tests)
    assert [t.verdict.value for t in judgement.tests] == ["accepted"] * 3 + ["wrong answer"]
    judgement = sandbox.judge("print(input())", tests, stop="all")
    assert [t.passed for t in judgement.tests] == [True, True, True, False, True, True]
    assert [t.index for t in judgement.tests] == list(range(6))


def test_a_crash_late_in_the_series_keeps_its_place(sandbox):
    code = "setrecursionlimit(10**9)\ndef f(n):\n  return n and sum(map(f, [n - 1]))\nprint(f(int(input())))"
    tests = [TestCase(str(n), "0") for n in (3, 4, 10**6, 5)]
    judgement = sandbox.judge(code, tests, stop="all")
    assert [t.verdict.value for t in judgement.tests] == ["accepted", "accepted", "runtime error", "accepted"]
    assert judgement.tests[2].signal == signal.SIGSEGV
