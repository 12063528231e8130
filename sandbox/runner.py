"""Run one test of a program as a real script in this process.  Runs in a child, after hardening."""

from __future__ import annotations

import ast
import atexit
import builtins
import gc
import io
import sys
import types
from json import loads
from os import fstat, pread
from resource import RUSAGE_SELF, getrusage
from time import monotonic, process_time

from . import failure, screen, values
from .modules import PROGRAM_FILE, MemoryModules, ProgramSource
from .prelude import MAX_INT_DIGITS, RECURSION_LIMIT
from .wire import VALUE_ALLOWANCE, Report

# References of our own: what a program may have put in their places in the library changes nothing here.
_set_recursion_limit, _set_int_max_str_digits = sys.setrecursionlimit, sys.set_int_max_str_digits
_OBSERVED = (
    "bisect builtins collections copy datetime functools heapq io itertools json math operator random re statistics "
    "string typing"
).split()


def reset_limits() -> None:
    """What a program may have changed of the interpreter's own limits."""
    _set_recursion_limit(RECURSION_LIMIT)
    _set_int_max_str_digits(MAX_INT_DIGITS)


class Program:
    """A compiled program and what it needs for a run; every run starts from a fresh `__main__`."""

    def __init__(
        self,
        source: str,
        prelude: dict[str, object],
        modules: MemoryModules | None = None,
        repeated: bool = False,
        floats: bool = False,
    ) -> None:
        """repeated: find out whether several runs in this process would be independent (`self.repeatable`).

        floats: whether an argument of the tests may be a float.
        """
        self.modules = modules
        self._loader = ProgramSource(source)
        self.sources = {PROGRAM_FILE: source.split("\n")}
        if modules is not None:
            self.sources |= {f"{name}.py": text.split("\n") for name, text in modules.sources.items()}
        # Objects that hold file descriptors are flushed by the interpreter's end; only then is a collection worth it.
        self._collect = "open" in source or "io." in source
        self.repeatable = False
        self._code = compile(source, PROGRAM_FILE, "exec", dont_inherit=True)
        if repeated:
            tree = compile(source, PROGRAM_FILE, "exec", ast.PyCF_ONLY_AST, dont_inherit=True)
            self.repeatable = screen.isolated(tree, prelude, modules.sources if modules is not None else None, floats)
        self.namespace: dict[str, object] = {}  # of the module, once it is loaded
        if repeated:
            self._namespaces = [sys.modules[name].__dict__ for name in _OBSERVED if name in sys.modules]
            self._sizes = self._measure()

    def left_a_trace(self) -> bool:
        """Whether a repeated program has added something to a module of the prelude: never, if the screen is right."""
        return self._measure() != self._sizes

    def _measure(self) -> list[object]:
        return [*map(len, self._namespaces), sys.gettrace(), sys.getprofile(), "threading" in sys.modules]

    def load(self) -> dict:
        """Run the module once, for tests that will call what it defines (`self.namespace`).

        Returns the header of a report on what went wrong; empty if nothing did.
        """
        self.namespace = self._fresh_module("solution", None)
        try:
            exec(self._code, self.namespace)
        except BaseException as error:
            reset_limits()
            return {"s": "exception"} | failure.describe(error, self.sources)
        reset_limits()
        return {}

    def _fresh_module(self, name: str, stdin: bytes | None) -> dict:
        """The namespace of a module in which nothing has run, in a process set up as for a first run."""
        module = types.ModuleType(name)
        namespace = module.__dict__
        namespace["__file__"] = PROGRAM_FILE
        namespace["__builtins__"] = builtins
        namespace["__loader__"] = self._loader
        sys.modules["__main__"] = sys.modules[name] = module
        reset_limits()
        _open_streams(stdin)
        if self.modules is not None:
            self.modules.forget()
        return namespace

    def run(
        self, functional_name: str | None, arguments: str | None, output_limit: int, stdin: bytes | None = None
    ) -> Report:
        """Run one test.

        arguments: one JSON value per line, for a functional test.
        stdin: None where it lies on descriptor 0.  A program that passed the screen has no way to the descriptor but
        `sys.stdin` and `input`; it can read from memory.
        """
        began = process_time()
        header: dict = {}
        text = b""
        # LiveCodeBench imports a functional program: its main guard does not run.
        namespace = self._fresh_module("__main__" if functional_name is None else "solution", stdin)
        try:
            if functional_name is None:
                _as_script(self._code, namespace)
            else:
                value = _call(self._code, namespace, functional_name, arguments)
                text = values.encode(value, output_limit + VALUE_ALLOWANCE).encode()
        except values.TooLarge as problem:
            header = {"s": "too large", "m": str(problem)}
        except BaseException as error:
            _set_recursion_limit(RECURSION_LIMIT)
            header = {"s": "exception"} | failure.describe(error, self.sources)
        _set_recursion_limit(RECURSION_LIMIT)
        problem = _end_of_script(namespace, self._collect)
        if problem is not None and not header.get("s"):
            header = {"s": "exception"} | failure.describe(problem, self.sources)
        try:
            output = pread(1, min(fstat(1).st_size, output_limit + 1), 0)
        except OSError:
            header["closed"], output = True, b""  # by the program; the judge has a descriptor of its own
        peak = getrusage(RUSAGE_SELF).ru_maxrss
        ended = process_time()
        return Report(header, output, peak, ended - began, ended, monotonic(), text)


def _as_script(code: types.CodeType, namespace: dict) -> None:
    try:
        exec(code, namespace)
    except SystemExit:
        pass  # whatever its argument: LiveCodeBench judges what was printed


def _call(code: types.CodeType, namespace: dict, name: str, lines: str) -> object:
    try:
        exec(code, namespace)
        solution = namespace.get("Solution")
        owner = solution() if isinstance(solution, type) else None
        function = namespace.get(name) if owner is None else getattr(owner, name)
        if function is None:
            raise NameError(f"name '{name}' is not defined")
        arguments = [loads(line) for line in lines.strip().split("\n") if line.strip()]
        return function(*arguments)
    except SystemExit as error:
        raise RuntimeError(f"the program ended (SystemExit: {error}) instead of returning a value") from None


class _Memory(io.BytesIO):
    """stdin of a program in a series, without a system call."""

    mode = "rb"

    def fileno(self) -> int:
        return 0


_ready_stdin: list[io.TextIOWrapper] = []


def prepare_streams() -> None:
    """Open the streams of a first run ahead, in a process that forks; descriptors must stand at their beginnings."""
    _open_streams(None)
    _ready_stdin.append(sys.stdin)


def _streams(stdin: bytes | None) -> tuple[io.TextIOWrapper, io.TextIOWrapper, io.TextIOWrapper]:
    """As an interpreter in the locale C.UTF-8 has them: line ends stay, bytes that are not UTF-8 come and go."""
    source = io.FileIO(0, "r", False) if stdin is None else _Memory(stdin)
    sink = io.FileIO(1, "w", False)
    source.name, sink.name = "<stdin>", "<stdout>"
    reader = io.TextIOWrapper(io.BufferedReader(source), "utf-8", "surrogateescape", "\n")
    writer = io.TextIOWrapper(io.BufferedWriter(sink), "utf-8", "surrogateescape", "\n")
    reader.mode, writer.mode = "r", "w"
    errors = io.TextIOWrapper(io.BufferedWriter(io.FileIO(2, "w", False)), "utf-8", "backslashreplace")
    return reader, writer, errors


def _open_streams(stdin: bytes | None) -> None:
    if stdin is None and _ready_stdin and _ready_stdin.pop() is sys.stdin:
        return
    sys.stdin, sys.stdout, sys.stderr = sys.__stdin__, sys.__stdout__, sys.__stderr__ = _streams(stdin)
    # The prelude's star-import of sys binds them, too.
    builtins.stdin, builtins.stdout, builtins.stderr = sys.stdin, sys.stdout, sys.stderr


def _end_of_script(namespace: dict, collect: bool) -> BaseException | None:
    """What the interpreter does at its end: wait for threads, run exit handlers, drop objects, flush."""
    original = sys.__stdout__
    try:
        threading = sys.modules.get("threading")  # not loaded by the fork server
        if threading is not None and threading.active_count() > 1:
            for thread in threading.enumerate():
                if thread is not threading.current_thread() and not thread.daemon:
                    thread.join()
        atexit._run_exitfuncs()
        current, others = sys.stdout, (sys.__stdout__, original)
        namespace.clear()
        if collect:
            gc.collect()
        if current is not None and not getattr(current, "closed", False):
            current.flush()
        for stream in others:  # these are only dropped, which flushes them where that is possible
            try:
                stream.flush()
            except Exception:
                pass
    except SystemExit:
        return None
    except BaseException as error:
        return error
    return None
