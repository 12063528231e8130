"""The bundled algorithms and environments, by name.

The one list of either; a class is imported when a recipe names it.  One from outside the package is named
`module:Class`.
"""

from __future__ import annotations

import difflib
import importlib
import re
from collections.abc import Mapping
from typing import Any

from sdpo.errors import UserError

# The first one is the default, the second its baseline.
ALGORITHMS: Mapping[str, str] = {
    "sdpo": "sdpo.algorithms.sdpo:SDPO",
    "grpo": "sdpo.algorithms.grpo:GRPO",
    "srpo": "sdpo.algorithms.srpo:SRPO",
    "opsd": "sdpo.algorithms.opsd:OPSD",
    "sdft": "sdpo.algorithms.sdft:SDFT",
    "sft": "sdpo.algorithms.sft:SFT",
    "sc-sdpo": "sdpo.algorithms.sc_sdpo:SCSDPO",
    "rlsd": "sdpo.algorithms.rlsd:RLSD",
    "cepo": "sdpo.algorithms.cepo:CEPO",
    "rlcsd": "sdpo.algorithms.rlcsd:RLCSD",
    "sdpg": "sdpo.algorithms.sdpg:SDPG",
    "sdar": "sdpo.algorithms.sdar:SDAR",
    "sd-zero": "sdpo.algorithms.sd_zero:SDZero",
    "drift": "sdpo.algorithms.drift:DRIFT",
    "rft": "sdpo.algorithms.rft:RFT",
    "ssd": "sdpo.algorithms.ssd:SSD",
}
DEFAULT_ALGORITHM, BASELINE = list(ALGORITHMS)[:2]

ENVIRONMENTS: Mapping[str, str] = {
    "code": "sdpo.envs.code:CodeEnvironment",
    "minicode": "sdpo.envs.minicode:MinicodeEnvironment",
    "minitools": "sdpo.envs.minitools:MinitoolsEnvironment",
    "math": "sdpo.envs.math:MathEnvironment",
    "choice": "sdpo.envs.choice:ChoiceEnvironment",
    "tools": "sdpo.envs.tools:ToolsEnvironment",
    "gym": "sdpo.envs.gym:GymEnvironment",
    "function": "sdpo.envs.function:FunctionEnvironment",
}
DEFAULT_ENVIRONMENT = next(iter(ENVIRONMENTS))
# Rows with assertions for tests, for which a recipe's section `data` was not written.
ASSERTION_SOURCES = ("humaneval", "mbpp", "kodcode", "acecode")
# Where rows come from says which environment, where a recipe does not (`data.source`).  The first is its own.
SOURCES: Mapping[str, str] = {
    "livecodebench": "code",
    **dict.fromkeys(ASSERTION_SOURCES, "code"),
    "minicode": "minicode",
    "minitools": "minitools",
    "bfcl": "tools",
}


class NotImportable(ValueError, UserError):
    """A class from outside the package is not there; whoever only reads an old recipe can do without it."""


def resolve(known: Mapping[str, str], name: str, option: str) -> Any:
    """The class that the option names.

    Raises:
        ValueError: the name is neither known nor `module:Class`.  NotImportable: Python does not find it.
    """
    where = known.get(name, name)
    if not re.fullmatch(r"[\w.]+:\w+", where):
        near = difflib.get_close_matches(name, known, 1)
        raise ValueError(
            f"{option}={name} is unknown.{f' Did you mean {near[0]}?' if near else ''} "
            f"Known: {', '.join(known)}; one of your own is given as module:Class"
        )
    module, _, attribute = where.partition(":")
    try:
        return getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise NotImportable(
            f"{option}={name} cannot be imported ({error}). Give module:Class of a module that Python finds "
            "(PYTHONPATH)"
        ) from error


def is_reference(text: str) -> bool:
    """Whether this names a function as module:function or path.py:function."""
    where, _, name = text.rpartition(":")
    return name.isidentifier() and (where.endswith(".py") or all(map(str.isidentifier, where.split("."))))


def label(algorithm: str) -> str:
    """What an algorithm is called in names of runs and in reports."""
    return algorithm.split(":")[-1].lower()


def order(labels: Any) -> list[str]:
    """Each label once: the bundled algorithms in the order of their list, then others as they come."""
    found = list(dict.fromkeys(labels))
    return [name for name in ALGORITHMS if name in found] + [name for name in found if name not in ALGORITHMS]
