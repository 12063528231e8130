"""minitools: a world of small tool calls, in which words have secret meanings.

What ``Please `jorp` `flam` 3.`` asks for, which tool it is and what its argument is called, is found out by trying, and
by reading what the service answers.
"""

from __future__ import annotations

from sdpo.envs.minitools.environment import MinitoolsEnvironment
from sdpo.envs.minitools.world import World, make_world

__all__ = ["MinitoolsEnvironment", "World", "make_world"]
