"""The names that `screen` accepts: functions of the library with their argument forms, methods of data, exceptions.

A form is written `positional keyword=… -> result`.  One letter per positional argument; a star repeats the last one.

    d  data                       i  data, an iterator or a stream, all of which are iterated over at once
    e  data or an exception       n  the same or a set, for its size
    f  a function                 k  the same or a key made by `cmp_to_key`
    c  a class of data            t  such a class, or a tuple of them
    o  a stream                   u  a constant encoding that needs no codec
    m  one iterable or several data

Results: d data, r data that may be a float, p the same with less than three arguments, i an iterator, s a set, f a
function, k a key, g the pairs of `groupby`.  `!`: the function may only be called, not handed to another function.

Every entry keeps three promises (docs/sandbox.md): it writes to no object but its arguments and its result; it hands
the program nothing but data; and what it returns depends on its arguments and the run's streams alone.
"""

from __future__ import annotations

import bisect
import builtins
import collections
import copy
import functools
import heapq
import itertools
import math
import operator
import string
import sys
import typing
from typing import NamedTuple

MODULES = {
    module.__name__: module
    for module in (
        bisect, builtins, collections, copy, functools, heapq, itertools, math, operator, string, sys, typing
    )
    if module is not builtins
}  # fmt: skip

_FUNCTIONS = {
    builtins: {
        "d* -> d": "abs bin bool chr divmod exit format hex input oct ord quit range",
        "dd base=d -> d": "int",
        "dd ndigits=d -> d": "round",
        "ddd -> p": "pow",
        "dd -> r": "complex float",
        "e -> d": "ascii repr str",
        "e* sep=d end=d flush=d file=o -> d": "print",
        "i -> d": "all any bytearray bytes dict list tuple",
        "n -> d": "len",
        "id start=d -> d": "sum",
        "m key=k default=d -> d": "max min",
        "i key=k reverse=d -> d": "sorted",
        "i -> s": "frozenset set",
        "id -> d!": "next",
        "dt -> d!": "isinstance",
        "i -> i": "iter reversed",
        "id start=d -> i": "enumerate",
        "fi* -> i": "map",
        "fi -> i": "filter",
        "i* strict=d -> i": "zip",
    },
    sys: {"d -> d!": "exit setrecursionlimit set_int_max_str_digits", "- -> d!": "getrecursionlimit"},
    math: {
        "d* -> d": "ceil comb factorial floor gcd isqrt lcm perm trunc",
        "i start=d -> d": "prod",
        "d* -> r": "acos acosh asin asinh atan atan2 atanh cbrt copysign cos cosh degrees dist erf erfc exp exp2 expm1 "
        "fabs fmod frexp gamma hypot isfinite isinf isnan ldexp lgamma log log10 log1p log2 modf nextafter pow radians "
        "remainder sin sinh sqrt tan tanh ulp",
        "dd rel_tol=d abs_tol=d -> r": "isclose",
        "i -> r": "fsum",
    },
    collections: {
        "i -> d": "Counter OrderedDict",
        "id maxlen=d -> d": "deque",
        "ci -> d!": "defaultdict",
    },
    heapq: {
        "dd -> d": "heappop heappush heappushpop heapreplace",
        "d -> d": "heapify",
        "di key=k -> d!": "nlargest nsmallest",
        "i* key=k reverse=d -> i": "merge",
    },
    bisect: {"dddd lo=d hi=d key=k -> d": "bisect bisect_left bisect_right insort insort_left insort_right"},
    itertools: {
        "ifd initial=d -> i": "accumulate",
        "i* repeat=d -> i": "chain product",
        "id -> i": "combinations combinations_with_replacement permutations",
        "ii -> i": "compress",
        "dd start=d step=d -> i": "count",
        "dd times=d -> i": "repeat",
        "i -> i": "cycle pairwise",
        "fi -> i": "dropwhile filterfalse starmap takewhile",
        "iddd -> i": "islice",
        "i* fillvalue=d -> i": "zip_longest",
        "if key=f -> g": "groupby",
    },
    functools: {"fid -> d!": "reduce", "f -> k": "cmp_to_key"},
    operator: {
        "d* -> d": "add and_ contains countOf eq floordiv ge getitem gt indexOf invert is_ is_not le lshift lt mod mul "
        "ne neg not_ or_ pos rshift sub truth xor",
        "d* -> r": "pow truediv",
        "d* -> f": "itemgetter",
    },
    copy: {"d -> d!": "copy deepcopy"},
}

_OF_CLASSES = {"dict.fromkeys": "id -> d", "str.maketrans": "d* -> d", "chain.from_iterable": "i -> i"}

_METHODS = {
    "- -> d": "bit_count bit_length capitalize casefold clear conjugate copy isalnum isalpha isascii isdecimal isdigit "
    "is_integer islower isnumeric isspace istitle isupper lower popleft reverse swapcase title total upper",
    "ddd -> d": "add append appendleft center count discard endswith find get index insert ljust lstrip most_common "
    "partition pop remove removeprefix removesuffix replace rfind rindex rjust rotate rpartition rstrip setdefault "
    "startswith strip translate zfill",
    "dd last=d -> d": "move_to_end popitem",
    "u -> d": "decode encode",
    "dd sep=d maxsplit=d -> d": "rsplit split",
    "d keepends=d -> d": "splitlines",
    "d* -> d": "format",
    "i -> d": "extend extendleft isdisjoint issubset issuperset join subtract symmetric_difference "
    "symmetric_difference_update",
    "i* -> d": "difference difference_update intersection intersection_update union update",
    "- key=k reverse=d -> d": "sort",
    "- -> i": "elements items keys values",
}
_OF_SETS = {"d -> d": "add discard remove", "- -> d": "clear", "i* -> d": "update"}
_OF_STREAMS = {"d -> d": "read readline readlines write", "i -> d": "writelines", "- -> d": "flush"}

DATA_ATTRIBUTES = {"imag", "real"}
_CLASSES = "bool bytes dict float frozenset int list set str tuple complex range bytearray".split()
FACTORIES = (collections.Counter, collections.deque, collections.OrderedDict)
ENCODINGS = {"ascii", "latin-1", "utf-8", "utf8"}
CONSTANTS = (int, float, str, bool, type(None))  # of a module: immutable, and no subclass of them

# What may be caught: no error that comes of running out of memory, stack or other resources, which earlier runs use up.
_EXCEPTIONS = (
    "ArithmeticError AssertionError AttributeError EOFError FloatingPointError IndexError KeyError LookupError "
    "NameError NotImplementedError OverflowError StopIteration SystemExit TypeError "
    "UnboundLocalError UnicodeDecodeError UnicodeEncodeError UnicodeError ValueError ZeroDivisionError"
).split()


class Form(NamedTuple):
    """How a function may be called, and what that gives."""

    positional: str
    keywords: dict[str, str] | None  # None: any, each of them data
    result: str
    called_only: bool = False
    data_class: bool = False

    @classmethod
    def parse(cls, text: str, data_class: bool = False) -> Form:
        arguments, _, result = text.partition(" -> ")
        positional, *keywords = arguments.split()
        positional = positional.replace("-", "")
        kind = result.removesuffix("!")
        called_only = kind != result or kind not in "drps" or any(letter in positional for letter in "fkctou")
        return cls(positional, dict(word.split("=") for word in keywords), kind, called_only, data_class)


OWN = Form("d*", None, "d")  # a function of the program's own, or one that a function of the library made
KEY = Form("", {}, "k", called_only=True)  # made by `cmp_to_key`: goes where a key is wanted and is not called
OWN_GENERATOR = Form("d*", None, "i", called_only=True)


def _table(source: dict[str, str]) -> dict[str, Form]:
    return {name: Form.parse(text) for text, names in source.items() for name in names.split()}


METHODS, SET_METHODS, STREAM_METHODS = _table(_METHODS), _table(_OF_SETS), _table(_OF_STREAMS)
FUNCTIONS: dict[int, Form] = {}  # by id of the function
for _module, _forms in _FUNCTIONS.items():
    for _name, _form in _table(_forms).items():
        if hasattr(_module, _name):  # some are younger than the oldest interpreter, `exit` is the site module's
            _object = getattr(_module, _name)
            _is_class = _name in _CLASSES and _module is builtins or _object in FACTORIES
            FUNCTIONS[id(_object)] = _form._replace(data_class=_is_class)
QUIT, CLEAR = Form.parse("d* -> d!"), Form.parse("- -> d!")
CLASS_FUNCTIONS = {
    (id(getattr(builtins, owner, None) or getattr(itertools, owner)), name): Form.parse(text)
    for (owner, name), text in ((key.split("."), text) for key, text in _OF_CLASSES.items())
}
CAUGHT = {id(getattr(builtins, name)) for name in _EXCEPTIONS}
RAISED = {id(getattr(builtins, name)) for name in ["Exception", "RuntimeError", *_EXCEPTIONS]}
