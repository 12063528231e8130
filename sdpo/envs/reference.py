"""Functions of the user's own, named in a recipe as `module:function` or `path.py:function`.

A path is looked up in the current folder, and its own folder is where it finds its neighbours.  A module is found as
Python finds it, and in the current folder.
"""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from sdpo.errors import UserError


class NotFound(UserError):
    """The function is not there, or its module cannot be imported."""


def folders(reference: str) -> list[str]:
    """What Python's path needs beside its own entries to find the function and what it imports."""
    where = reference.rpartition(":")[0]
    own = [str(Path(where).expanduser().resolve().parent)] if where.endswith(".py") else []
    return [*own, str(Path.cwd())]


def find_function(reference: str, option: str) -> Callable[..., Any]:
    """The function that the option names.

    Raises:
        NotFound: there is no such file, module or function, or it is nothing to call.
        Exception: whatever the module raises while it is imported.
    """
    where, _, name = reference.rpartition(":")
    sys.path += [folder for folder in folders(reference) if folder not in sys.path]
    module = _from_file(Path(where), reference, option) if where.endswith(".py") else _module(where, reference, option)
    if not hasattr(module, name):
        own = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
        near = difflib.get_close_matches(name, own, 1)
        raise NotFound(
            f"{option}={reference}: {where} has no function {name}.{f' Did you mean {near[0]}?' if near else ''}"
        )
    function = getattr(module, name)
    if not callable(function):
        raise NotFound(f"{option}={reference}: {name} is a {type(function).__name__}, not a function.")
    return function  # type: ignore[no-any-return]


def _module(name: str, reference: str, option: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not (name == error.name or name.startswith(f"{error.name}.")):
            raise  # the module is there, and something that it imports is not
        raise NotFound(
            f"{option}={reference}: Python finds no module {error.name}, neither in the current folder ({Path.cwd()}) "
            "nor elsewhere. Run the command where the file is, give its path (path.py:function), or set PYTHONPATH."
        ) from None


def _from_file(path: Path, reference: str, option: str) -> ModuleType:
    path = path.expanduser().resolve()
    if not path.is_file():
        raise NotFound(f"{option}={reference}: there is no file {path}. The path counts from the current folder.")
    # Under its own name where that is free, so that what it defines can be pickled and found again.
    name = path.stem if _is(path.stem, path) else f"own_{path.stem}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise NotFound(f"{option}={reference}: {path} is not a Python file.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _is(name: str, path: Path) -> bool:
    """Whether an import of this name finds the file, or nothing."""
    try:
        spec = importlib.util.find_spec(name)
    except (ImportError, ValueError):
        return False
    return spec is None or (spec.origin is not None and Path(spec.origin).resolve() == path)
