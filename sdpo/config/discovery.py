"""The section of a recipe that `sdpo discover` reads, and nothing else does."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pydantic import Field, model_validator

from sdpo.config.sections import Settings
from sdpo.errors import UserError

if TYPE_CHECKING:
    from sdpo.config.schema import Recipe


class DiscoverySettings(Settings):
    algorithms: tuple[str, ...] = Field(
        (), description="of the recipe's folder that search by training; empty: the recipe's own"
    )
    hardness_samples: int = Field(64, ge=1, description="independent samples per question, before any is chosen")
    hardness_k: int = Field(64, ge=1, description="k of the pass@k by which a question is hard")
    max_pass_at_k: float = Field(0.0, ge=0, le=1, description="largest such pass@k of a question that is searched")
    questions: int = Field(24, ge=1, description="most questions that are searched, drawn by the seed")
    questions_at_once: int = Field(
        8,
        ge=1,
        description="searched side by side by training, where each has an adapter of its own in the engines "
        "(rollout.adapter=loaded); otherwise questions take turns",
    )
    budget: int = Field(2750, ge=1, description="attempts of each method at each question")
    seeds: int = Field(5, ge=1, description="searches of each method at each question; independent samples need one")

    @model_validator(mode="after")
    def _has_so_many_samples(self) -> DiscoverySettings:
        if self.hardness_k > self.hardness_samples:
            raise ValueError("discovery.hardness_k must not be larger than discovery.hardness_samples")
        return self


def refuse_overrides(overrides: Sequence[str], command: str) -> None:
    """For every command but `sdpo discover`.  Raises UserError for an option of the section."""
    given = [text for text in overrides if text.partition("=")[0].split(".")[0] == "discovery"]
    if given:
        raise UserError(
            f"{', '.join(given)} has no effect in `sdpo {command}`: `sdpo discover` reads it. Leave it out."
        )


def refuse_recipe(recipe: Recipe) -> None:
    """For what trains on all tasks.  Raises UserError for a recipe that was made for `sdpo discover`."""
    if "discovery" in recipe.model_fields_set:
        raise UserError(
            f"Recipe {recipe.recipe} has a section discovery, which has no effect in training: search with `sdpo "
            "discover`, or give a recipe without it (a file that extends another takes its sections)."
        )
