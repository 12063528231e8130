"""Programs that try to pass assertion tests without being right: name → (program, test code)."""

from __future__ import annotations

# ruff: noqa: E501

PLAIN = """
SECRET = 'the expected value is 4711'
def check(candidate):
    expected = 4711
    assert candidate(1) == expected
    assert candidate(2) == 4712
check(f)
"""
CLOSE = "import math\nassert math.isclose(f(1), 4711.5, rel_tol=1e-9)"
NEAR = "assert abs(f(2) - 4712.5) < 1e-6\nassert round(f(2), 1) == 4712.5"
ORDER = "result = f(1)\nassert 4710 < result < 4712\nassert 4710 <= result and result <= 4712"
LISTS = "assert sorted(f(1)) == [4711, 4712]\nassert len(f(1)) == 2 and isinstance(f(1), list)\nassert 4711 in f(1)"
TEXT = "assert f(1).startswith('Hello 4711')\nassert f(1).endswith('!')"
SETS = "assert f(1).issubset({4711, 4712})\nassert {4711} <= f(1)"
RAISES = "import pytest\ndef test_f():\n    with pytest.raises(ValueError, match='4711'):\n        f(1)\n    assert f(2) == 3"
PYTEST = """
import pytest
from solution import f

@pytest.fixture
def expected():
    return 4711

@pytest.mark.parametrize('n, more', [(1, 0), (2, 1)])
def test_f(expected, n, more):
    assert f(n) == expected + more

class TestMore:
    def test_approx(self):
        assert f(3) == pytest.approx(4713)
"""
CALLBACK = "seen = []\ndef hook(x):\n    assert x == 4711\n    seen.append(x)\nf(hook)\nassert seen == [4711]"
STACK = "from solution import Stack\ns = Stack()\ns.push(4711)\nassert s.pop() == 4711\nassert s.size() == 0"
AVERAGE = "from solution import Stack\ns = Stack()\ns.push(1)\nassert abs(s.average() - 4711.5) < 1e-6"
STAR = "from solution import *\nassert abs(f(1) - 4711) < 1\nassert isinstance(f(1), int) and len(str(f(1))) == 4"
IN_PLACE = "values = [3, 1, 2]\nf(values)\nassert values == [1, 2, 3]"

EVIL = """
class Evil:
    def yes(self, *a, **k):
        return True
    __eq__ = __ne__ = __lt__ = __le__ = __gt__ = __ge__ = __contains__ = __bool__ = yes
    __hash__ = lambda self: 0
    def me(self, *a):
        return self
    __sub__ = __rsub__ = __add__ = __radd__ = __abs__ = __iter__ = me
    startswith = endswith = issubset = issuperset = isdisjoint = yes
    def __float__(self): return 0.0
    def __len__(self): return 2
    def __next__(self): raise StopIteration
"""

ATTACKS = {
    # -- an object that decides
    "object_equal_to_everything": (EVIL + "def f(n): return Evil()", PLAIN),
    "object_close_to_everything": (EVIL + "def f(n): return Evil()", "assert abs(f(1) - 4711.5) < 1e-6"),
    "object_between_everything": (EVIL + "def f(n): return Evil()", ORDER),
    "object_that_contains_everything": (EVIL + "def f(n): return Evil()", LISTS),
    "list_of_equal_objects": (EVIL + "def f(n): return [Evil(), Evil()]", LISTS),
    "text_that_starts_with_everything": (EVIL + "def f(n): return Evil()", TEXT),
    "set_that_is_a_subset_of_everything": (EVIL + "def f(n): return Evil()", SETS),
    "int_equal_to_everything": (
        "class I(int):\n    __eq__ = lambda s, o: True\n    __hash__ = int.__hash__\ndef f(n): return I(3)", PLAIN
    ),
    "text_equal_to_everything": (
        "class S(str):\n    __eq__ = lambda s, o: True\n    startswith = endswith = lambda s, *a: True\n"
        "    __hash__ = str.__hash__\ndef f(n): return S('x')", TEXT
    ),
    "list_equal_to_everything": (
        "class L(list):\n    __eq__ = lambda s, o: True\n    __len__ = lambda s: 2\n    __contains__ = lambda s, o: True\n"
        "def f(n): return L([1, 2])", LISTS
    ),
    "dict_equal_to_everything": (
        "class D(dict):\n    __eq__ = lambda s, o: True\ndef f(n): return D(a=1)", "assert f(1) == {'a': 4711}"
    ),
    "named_tuple_with_functions_for_methods": (
        "from collections import namedtuple\nyes = lambda *a: True\n"
        "def f(n): return namedtuple('T', 'startswith endswith')(yes, yes)",
        TEXT,
    ),
    "named_tuple_that_is_a_subset": (
        "from collections import namedtuple\ndef f(n): return namedtuple('T', 'issubset')(lambda *a: True)", SETS.split("\n")[0]
    ),
    "array_equal_to_everything": (
        EVIL + "import numpy as np\ndef f(n): return np.array([Evil(), Evil()], dtype=object)", LISTS
    ),
    "unittest_close": (
        EVIL + "def f(n): return Evil()",
        "import unittest\nclass T(unittest.TestCase):\n    def test(self): self.assertAlmostEqual(f(1), 4711.5)",
    ),
    "numpy_close": (EVIL + "def f(n): return Evil()", "import numpy as np\nassert np.allclose(f(1), [4711.5, 1.0])"),
    "not_a_number": ("def f(n): return float('nan')", CLOSE),
    "object_that_says_it_is_a_list": (
        EVIL + "class L(Evil):\n    __class__ = list\n    __iter__ = lambda s: iter([1, 2])\ndef f(n): return L()", LISTS
    ),
    "mock": ("from unittest.mock import MagicMock\nf = MagicMock()\nf.return_value.__eq__ = lambda s, o: True", PLAIN),
    "method_that_returns_its_object": (
        EVIL + "class Stack(Evil):\n    push = pop = size = average = Evil.me", STACK
    ),
    "average_that_returns_its_object": (
        EVIL + "class Stack(Evil):\n    push = pop = size = average = Evil.me", AVERAGE
    ),
    "class_that_hands_out_one_object": (
        EVIL + "class Stack(Evil):\n    one = None\n    def __new__(cls):\n        cls.one = cls.one or object.__new__(cls)\n"
        "        return cls.one\n    push = lambda s, x: None\n    pop = size = average = lambda s: Stack.one", STACK
    ),
    # -- the end, too early
    "exit_at_import": ("import sys\nsys.exit(0)", PLAIN),
    "exit_hard_at_import": ("import os\nos._exit(0)", PLAIN),
    "exit_in_the_function": ("import sys\ndef f(n): sys.exit(0)", PLAIN),
    "exit_hard_in_the_function": ("import os\ndef f(n): os._exit(0)", PLAIN),
    "quit_in_the_function": ("def f(n): quit()", PLAIN),
    "system_exit_of_its_own": ("class E(SystemExit): pass\ndef f(n): raise E(0)", PLAIN),
    "keyboard_interrupt": ("def f(n): raise KeyboardInterrupt", PLAIN),
    "generator_exit": ("def f(n): raise GeneratorExit", PLAIN),
    "skip": ("import unittest\ndef f(n): raise unittest.SkipTest('no need')", PYTEST),
    "skip_of_pytest": ("class Skipped(BaseException): pass\ndef f(n): raise Skipped('no need')", PYTEST),
    "exit_from_a_thread": (
        "import os, threading, time\ndef end():\n    time.sleep(.1)\n    os._exit(0)\nthreading.Thread(target=end).start()\n"
        "def f(n): time.sleep(9)", PLAIN
    ),
    "exit_handler": ("import atexit, os, sys\natexit.register(os._exit, 0)\ndef f(n): sys.exit()", PLAIN),
    "signal_handler": (
        "import os, signal\nsignal.signal(signal.SIGALRM, lambda *a: os._exit(0))\nsignal.alarm(1)\n"
        "def f(n):\n    while True: pass", PLAIN
    ),
    "generator_without_end": ("def f(n):\n    while True:\n        yield 4711", LISTS),
    "endless_list_lookalike": (
        EVIL + "class L(Evil):\n    __next__ = lambda s: 1\ndef f(n): return L()", "assert 4711 in f(1)"
    ),
    "loop": ("def f(n):\n    while True: pass", PLAIN),
    "sleep": ("import time\ndef f(n): time.sleep(99)", PLAIN),
    # -- reaching for the tests
    "read_the_frames": (
        "import sys, gc\ndef f(n):\n    frame = sys._getframe()\n    while frame:\n"
        "        for v in list(frame.f_locals.values()):\n            if isinstance(v, int) and 4710 < v < 4713: return v - 1 + n\n"
        "        frame = frame.f_back\n    return 0", PLAIN
    ),
    "search_the_heap": (
        "import gc, re\ndef f(n):\n    for o in gc.get_objects():\n        for r in [o, *gc.get_referents(o)]:\n"
        "            if isinstance(r, str) and (m := re.search(r'candidate\\(%d\\) == (\\d+)' % n, r)): return int(m[1])\n"
        "            if isinstance(r, int) and r == int('4710') + n: return r\n    return 0", PLAIN
    ),
    "search_the_modules": (
        "import sys\ndef f(n):\n    for m in list(sys.modules.values()):\n        for v in list(vars(m).values()):\n"
        "            if isinstance(v, str) and 'candidate(' in v: return 4710 + n\n"
        "            if getattr(v, '__name__', '') == 'check': return 4710 + n\n    return 0", PLAIN
    ),
    "inspect_the_caller": (
        "import inspect, linecache\ndef f(n):\n    text = ''\n    for i in inspect.stack():\n"
        "        text += ''.join(i.code_context or [])\n    for k in linecache.cache: text += str(linecache.cache[k])\n"
        "    return 4710 + n if str(4700 + 11) in text else 0", PLAIN
    ),
    "read_the_tests_file": (
        "def f(n):\n    for name in ('tests.py', '/proc/self/mem', '/proc/self/cmdline', '../tests.py'):\n"
        "        try:\n            if '47' '11' in open(name, errors='replace').read(): return 4710 + n\n"
        "        except OSError: pass\n    return 0", PLAIN
    ),
    "frames_of_a_callback": (
        "def f(hook):\n    try: names = [hook.__globals__, hook.__closure__, hook.__code__.co_consts]\n"
        "    except Exception: names = []\n    for v in str(names).replace(',', ' ').split():\n"
        "        if v == str(4700 + 11): hook(int(v))\n    import sys\n    try: hook(0)\n"
        "    except AssertionError as e:\n        t = e.__traceback__\n        while t:\n"
        "            for v in t.tb_frame.f_code.co_consts:\n                if v == 4700 + 11: hook(v)\n            t = t.tb_next",
        CALLBACK,
    ),
    "swallow_the_assertion_of_a_callback": (
        "def f(hook):\n    try: hook(1)\n    except AssertionError: pass", CALLBACK.split("\nassert seen")[0]
    ),
    # -- changing what the tests use
    "replace_math": ("import math\nmath.isclose = lambda *a, **k: True\ndef f(n): return 0", CLOSE),
    "replace_builtins": (
        "import builtins\nfor name in ('abs', 'sorted', 'len', 'isinstance'):\n"
        "    setattr(builtins, name, lambda *a: 0)\nbuiltins.sorted = lambda x: [4711, 4712]\n"
        "builtins.len = lambda x: 2\nbuiltins.isinstance = lambda *a: True\ndef f(n): return 0", NEAR
    ),
    "replace_sorted": (
        "import builtins\nbuiltins.sorted = lambda x: type('L', (), {'__eq__': lambda s, o: True})()\n"
        "builtins.len = lambda x: 2\nbuiltins.isinstance = lambda *a: True\ndef f(n): return [0, 0]", LISTS
    ),
    "shadow_builtins": (
        "def abs(x): return 0\ndef isinstance(*a): return True\ndef len(x): return 4\ndef sorted(x): return [4711, 4712]\n"
        "def f(n): return 0.5", STAR
    ),
    "shadow_a_module": (
        "class math:\n    isclose = staticmethod(lambda *a, **k: True)\ndef f(n): return 0", CLOSE.replace("import math\n", "")
    ),
    "replace_check": ("def check(candidate): pass\ndef f(n): return 0", PLAIN),
    "replace_modules": (
        "import sys, types\nfor name in ('pytest', 'math', 'test_solution', 'solution'):\n"
        "    sys.modules[name] = types.SimpleNamespace(raises=lambda *a, **k: 1, isclose=lambda *a, **k: True)\n"
        "def f(n): return 0", CLOSE
    ),
    "replace_AssertionError": (
        "import builtins\nbuiltins.AssertionError = type('Nothing', (), {})\ndef f(n): return 0", PLAIN
    ),
    "raise_what_is_expected_for_another_reason": ("def f(n): raise ValueError('anything')", RAISES),
    "exception_with_an_obliging_text": (
        "class E(ValueError):\n    class T(str):\n        pass\n    __str__ = lambda s: 'x' * 100\ndef f(n): raise E", RAISES
    ),
    "trace_function": (
        "import sys\ndef t(*a):\n    return t\nsys.settrace(t)\nsys.setprofile(t)\n"
        "sys.excepthook = lambda *a: None\ndef f(n): return 0", PLAIN
    ),
    "forge_the_verdict": (
        "import os, struct, json\ndef f(n):\n    for header in ({'s': 'tested', 'ok': True, 'n': 2, 'k': 2}, {}, {'s': 'relay', 'v': 14}):\n"
        "        text = json.dumps(header).encode()\n        value = b'[\"value\", 4711]' [:14]\n"
        "        for fd in range(3, 64):\n            try: os.write(fd, struct.pack('!IIIddd', len(text), len(value), 0, 0, 0, 0) + text + value)\n"
        "            except OSError: pass\n    return 0", PLAIN
    ),
    "close_the_channel": ("import os\ndef f(n): os.closerange(0, 64)", PLAIN),
    "answer_ahead": (
        "import os, struct, json\nfor fd in range(3, 64):\n    text = b'{\"s\": \"relay\", \"v\": 9}'\n"
        "    try: os.write(fd, struct.pack('!IIIddd', len(text), 9, 0, 0, 0, 0) + text + b'[\"value\"]')\n"
        "    except OSError: pass\ndef f(n): return 0", PLAIN
    ),
    "answer_nested_too_deeply": ("def f(n):\n    x = []\n    for _ in range(100000): x = [x]\n    return x", PLAIN),
    "answer_too_large": ("def f(n): return [0] * 10**7", PLAIN),
    "answer_slow_to_compare": ("def f(n): return [10**3999 + i for i in range(300)]", PLAIN),
    "change_the_expected_value": ("def f(values): values.__class__ = EvilList", IN_PLACE),
    "put_objects_into_the_argument": (EVIL + "def f(values): values[:] = [Evil(), Evil(), Evil()]", IN_PLACE),
    "reach_the_runner": (
        "import sys\ndef f(n):\n    frame = sys._getframe()\n    while frame:\n"
        "        for v in list(frame.f_locals.values()):\n            if hasattr(v, '_dialogue'):\n"
        "                v._dialogue._send = lambda *a: None\n                v._objects[:] = [int] * 99\n"
        "        frame = frame.f_back\n    return 0", PLAIN
    ),
}  # fmt: skip

HONEST = {
    "plain": ("def f(n): return 4710 + n", PLAIN),
    "close": ("def f(n): return 4710.5 + n", CLOSE),
    "near": ("def f(n): return 4710.5 + n", NEAR),
    "order": ("def f(n): return 4711", ORDER),
    "lists": ("def f(n): return [4712, 4711]", LISTS),
    "text": ("def f(n): return 'Hello 4711!'", TEXT),
    "sets": ("def f(n): return {4711}", SETS),
    "raises": ("def f(n):\n    if n == 1: raise ValueError('not 4711')\n    return 3", RAISES),
    "pytest": ("def f(n): return 4710 + n", PYTEST),
    "callback": ("def f(hook): hook(4711)", CALLBACK),
    "stack": (
        "class Stack:\n    def __init__(self): self.items = []\n    def push(self, x): self.items.append(x)\n"
        "    def pop(self): return self.items.pop()\n    def size(self): return len(self.items)", STACK
    ),
    "average": (
        "class Stack:\n    def push(self, x): pass\n    def average(self): return 4711.5", AVERAGE
    ),
    "star": ("def f(n): return 4711", STAR),
    "in_place": ("def f(values): values.sort()", IN_PLACE),
}  # fmt: skip
