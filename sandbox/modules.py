"""The program's own modules: its `files`, importable from memory, and their sources for tracebacks."""

from __future__ import annotations

import sys
from importlib.machinery import ModuleSpec

PROGRAM_FILE = "solution.py"


class MemoryModules:
    """Finder and loader (PEP 451) of modules whose sources were handed in; nothing is written anywhere.

    Not derived from `importlib.abc`: that module and what it brings along would cost every child 1 MB.
    """

    def __init__(self, sources: dict[str, str]) -> None:
        self.sources = {name.removesuffix(".py"): source for name, source in sources.items()}

    def find_spec(self, name, path=None, target=None):  # noqa: ANN001, ANN201
        if name in self.sources:
            return ModuleSpec(name, self, origin=f"{name}.py")
        return None

    def create_module(self, spec):  # noqa: ANN001, ANN201
        return None

    def exec_module(self, module) -> None:  # noqa: ANN001
        name = module.__name__
        module.__file__ = f"{name}.py"
        exec(compile(self.sources[name], f"{name}.py", "exec"), module.__dict__)

    def get_source(self, name: str) -> str | None:
        """What `linecache` asks for when a traceback is printed."""
        return self.sources.get(name)

    def forget(self) -> None:
        """Unload the modules, so that the next test imports them afresh."""
        for name in self.sources:
            sys.modules.pop(name, None)


class ProgramSource:
    """`__loader__` of the program itself, so that its own tracebacks show its lines."""

    def __init__(self, source: str) -> None:
        self._source = source

    def get_source(self, name: str) -> str:
        return self._source


def install(sources: dict[str, str]) -> MemoryModules:
    modules = MemoryModules(sources)
    sys.meta_path.insert(0, modules)
    modules.forget()  # a file takes precedence over a module that happens to be loaded already
    return modules
