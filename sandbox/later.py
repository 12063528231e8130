"""The modules that only assertion tests need: kept as code, and loaded when the first such test comes.

Every fork copies the page tables of all that is loaded, and every child its pages, whatever its program does.  The
files themselves are out of reach once the fork server has entered its namespaces.
"""

from __future__ import annotations

import marshal
import os
import sys
import types
from importlib.machinery import SourceFileLoader

# Each after those that it imports.
_NAMES = "objects dialogue candidate assertions standins remote pytest_like examiner".split()


class AssertionModules:
    """Prepared by the fork server; `load` there, or in a child that was forked before."""

    def __init__(self) -> None:
        self._codes: list[tuple[str, bytes]] = []
        for name in _NAMES:
            path = os.path.join(os.path.dirname(__file__), f"{name}.py")
            code = SourceFileLoader(f"{__package__}.{name}", path).get_code(f"{__package__}.{name}")
            self._codes.append((f"{__package__}.{name}", marshal.dumps(code)))

    def load(self) -> bool:
        """Make them importable as always; False if they are already."""
        if not self._codes:
            return False
        for name, code in self._codes:
            module = sys.modules[name] = types.ModuleType(name)
            module.__package__ = __package__
            exec(marshal.loads(code), module.__dict__)
        self._codes = []
        return True


ASSERTIONS = AssertionModules()
