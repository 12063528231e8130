"""Environments: where tasks come from, what the policy is shown, and what its answer was worth.

base       the seam: `Environment`, `Dataset`
report     what happened to every row on its way to a task
rows/      rows of any origin as tasks: files, Hugging Face data sets, functions
function   a reward of the user's own; rewards: what it may return
workers/   processes for functions that may hang, crash or flood
reference  functions of the user's own, by name
sanitize   text that a program wrote, made harmless in a prompt
code/      programs with tests, judged in the sandbox: LiveCodeBench and everything in its format
minicode/  a bundled world of small programming problems
minitools/ a bundled world of small tool calls; words: nonsense words of both
math       answers compared by math-verify
choice     multiple choice
tools/     tool calls: the Berkeley Function-Calling Leaderboard, ToolAlpaca
gym        puzzles of reasoning-gym
judged     what math, gym and the conversations of tools share: grading in worker processes
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sdpo.config.schema import Recipe
    from sdpo.envs.base import Dataset, Environment, Purpose

__all__ = ["Dataset", "Environment", "Purpose", "build_environment"]


def __getattr__(name: str) -> Any:
    """Names of the seam, imported when they are used: worker processes stay small, which makes them quick to fork."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from sdpo.envs import base

    return getattr(base, name)


def build_environment(recipe: Recipe) -> Environment:
    """The environment that `environment.kind` names."""
    from sdpo.config.schema import environment_class

    environment: Environment = environment_class(recipe.environment.kind)(recipe)
    return environment
