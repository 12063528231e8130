"""The names of the levels of isolation, for both sides of the sandbox."""

from __future__ import annotations

LEVELS = ("namespaces", "landlock", "seccomp", "none")  # strongest first
AUTOMATIC = LEVELS[:2]  # those that "auto" may choose: the others let a program read what the user can read
