"""minicode: a world of small programming problems in LiveCodeBench's format, in which words have secret meanings.

What `jorp` and `flam` mean in ``Print the `jorp` values, then their `flam`.`` is found out by trying, and by reading
what the sandbox says.  Each word stands for an operation on a list of integers, or for a function of a library whose
exact name only Python's own error message tells.
"""

from __future__ import annotations

from sdpo.envs.minicode.environment import MinicodeEnvironment
from sdpo.envs.minicode.family import FAMILIES, LISTS, TEXTS, Family
from sdpo.envs.minicode.load import load_minicode
from sdpo.envs.minicode.rows import world_rows, write_world
from sdpo.envs.minicode.show import show_problems
from sdpo.envs.minicode.world import World, make_world

__all__ = [
    "FAMILIES",
    "LISTS",
    "TEXTS",
    "Family",
    "MinicodeEnvironment",
    "World",
    "load_minicode",
    "make_world",
    "show_problems",
    "world_rows",
    "write_world",
]
