"""Runs programs that pass the screen both ways: their tests in a series in one process, and each in a fresh one.

A process of its own, as small as the fork server: `python -I -S fuzz_driver.py ROOT`.  One JSON object a line in and
out: {"code", "inputs"} → null for a program that is refused, else {"series", "fresh", "leaks", "noticed"}: `noticed` is
what the runner itself has seen of leaks.
"""

from __future__ import annotations

import ast
import collections
import json
import os
import random
import resource
import sys
import types

ROOT = sys.argv[1]
package = types.ModuleType("sandbox")
package.__path__ = [os.path.join(ROOT, "sandbox")]
sys.modules["sandbox"] = package

from sandbox import child, screen, server  # noqa: E402
from sandbox.prelude import install_prelude  # noqa: E402
from sandbox.runner import Program  # noqa: E402

_OUTPUT = 1 << 16
_CPU_S = 5
_FRESH_BY_DESIGN = {"stdin", "stdout", "stderr", "__stdin__", "__stdout__", "__stderr__"}
_NOT_SEEN = {"linecache.cache"}  # has the program's lines after a warning
_SEARCHED = (dict, list, set, collections.deque)


def main() -> None:
    requests, answers = os.fdopen(os.dup(0), "r"), os.fdopen(os.dup(1), "w")
    server._like_a_script([])
    prelude = install_prelude()
    for fd in (0, 1):
        os.dup2(os.memfd_create("fuzz"), fd)
    child.rehearse(prelude)
    child.rehearse(prelude)
    Program("1 is 1\nno_such_name", prelude).run(None, None, _OUTPUT)  # to warn and to suggest a name loads modules
    before = LastingState()
    for line in requests:
        answers.write(json.dumps(compare(json.loads(line), prelude, before)) + "\n")
        answers.flush()


def compare(request: dict, prelude: dict, before: LastingState) -> dict | None:
    code, inputs = request["code"], request["inputs"]
    if not screen.isolated(ast.parse(code), prelude) and not request.get("unscreened"):
        return None
    series = _in_a_fork(lambda: _series(code, inputs, prelude, before), tests=len(inputs))
    fresh = [_in_a_fork(lambda text=text: _run(Program(code, prelude), text)) for text in inputs]
    results, leaks, noticed = series if series is not None else ([None] * len(inputs), [], False)
    return {"series": results, "fresh": fresh, "leaks": leaks, "noticed": noticed}


def _series(code: str, inputs: list[str], prelude: dict, before: LastingState) -> tuple[list, list, bool]:
    program, results, junk = Program(code, prelude, repeated=True), [], []
    interpreter = _interpreter()
    for text in inputs:
        results.append(_run(program, text, in_memory=True))
        junk += [object() for _ in range(137)], [float(n) for n in range(77)], bytearray(300_000)  # other addresses
        del junk[:1]
    leaks = before.changed() + [key for key, value in _interpreter().items() if value != interpreter[key]]
    return results, leaks, program.left_a_trace()


def _run(program: Program, text: str, in_memory: bool = False) -> list:
    for fd in (0, 1):
        os.ftruncate(fd, 0)
        os.lseek(fd, 0, os.SEEK_SET)
    os.pwrite(0, text.encode(), 0)
    report = program.run(None, None, _OUTPUT, text.encode() if in_memory else None)
    return [report.header, report.output.decode("utf-8", "replace")]


def _in_a_fork(work, tests: int = 1) -> object:  # noqa: ANN001
    """The result of `work`, which may take so long for each of its tests; None if its process died."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(read)
        for fd in (0, 1):
            os.dup2(os.memfd_create("fuzz"), fd)
        resource.setrlimit(resource.RLIMIT_CPU, (_CPU_S * tests, _CPU_S * tests))
        resource.setrlimit(resource.RLIMIT_AS, (1 << 29, 1 << 29))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        try:
            data = json.dumps(work()).encode()
            with os.fdopen(write, "wb") as file:
                file.write(data)
        finally:
            os._exit(0)
    os.close(write)
    with os.fdopen(read, "rb") as file:
        data = file.read()
    os.waitpid(pid, 0)
    return json.loads(data) if data else None


def _interpreter() -> dict:
    return {
        "hooks": (sys.gettrace(), sys.getprofile(), len(sys.meta_path), len(sys._current_frames())),
        "settings": (sys.getswitchinterval(), dict(os.environ), os.getcwd(), resource.getrlimit(resource.RLIMIT_STACK)),
        "random": random.getstate(),
        "descriptors": os.listdir("/proc/self/fd"),
    }


class LastingState:
    """Everything that a program could leave behind, as far as Python can see it: what modules hold, what their classes,
    functions and containers hold, and so on.  All of it is kept, so that its parts can be told apart by identity."""

    def __init__(self) -> None:
        self._things: list[tuple[str, object]] = []
        self._seen: set[int] = set()
        for name, module in list(sys.modules.items()):
            if name not in ("__main__", "solution") and not name.startswith("sandbox"):
                self._note(name, module, 4)
        self._before = [_fingerprint(thing) for _, thing in self._things]

    def changed(self) -> list[str]:
        now = [_fingerprint(thing) for _, thing in self._things]
        return [path for (path, _), old, new in zip(self._things, self._before, now, strict=True) if old != new]

    def _note(self, path: str, thing: object, depth: int) -> None:
        if id(thing) in self._seen or depth == 0 or path in _NOT_SEEN:
            return
        self._seen.add(id(thing))
        self._things.append((path, thing))
        for key, value in _parts(thing):
            if type(value) in _SEARCHED or isinstance(value, type) or hasattr(value, "__dict__"):
                if not isinstance(value, types.ModuleType):
                    self._note(f"{path}.{key}", value, depth - 1)


def _parts(thing: object) -> list[tuple]:
    if isinstance(thing, dict):
        return list(thing.items()) if thing is not sys.modules else []
    if type(thing) in _SEARCHED:
        return list(enumerate(thing))
    parts = list(vars(thing).items()) if hasattr(thing, "__dict__") else []
    if isinstance(thing, types.FunctionType):
        parts += [("defaults", thing.__defaults__), ("kwdefaults", thing.__kwdefaults__), ("code", thing.__code__)]
    elif isinstance(thing, type):
        parts.append(("bases", thing.__bases__))
    return parts


def _fingerprint(thing: object) -> list:
    if thing is sys.modules:
        return sorted(name for name in thing if name not in ("__main__", "solution"))
    return [(key, id(value)) for key, value in _parts(thing) if type(key) is not str or key not in _FRESH_BY_DESIGN]


if __name__ == "__main__":
    main()
