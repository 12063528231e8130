"""Environments: where tasks come from, what the policy is shown, and what its answer was worth.

base       the seam: `Environment`, `Dataset`
report     what happened to every row on its way to a task
rows/      rows of any origin as tasks: files, Hugging Face data sets, functions
reference  functions of the user's own, by name
sanitize   text that a program wrote, made harmless in a prompt
code/      programs with tests, judged in the sandbox: LiveCodeBench and everything in its format
minicode/  a bundled world of small programming problems
"""

from __future__ import annotations

from sdpo.config.schema import Recipe, environment_class
from sdpo.envs.base import Dataset, Environment, Purpose

__all__ = ["Dataset", "Environment", "Purpose", "build_environment"]


def build_environment(recipe: Recipe) -> Environment:
    """The environment that `environment.kind` names."""
    environment: Environment = environment_class(recipe.environment.kind)(recipe)
    return environment
