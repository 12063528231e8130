"""The learner's work on a batch, and what is said where a number in it was not finite."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sdpo.config.schema import Recipe
from sdpo.errors import UserError
from sdpo.learner.group import Learner
from sdpo.learner.skipped import BrokenWeights, TooManySkipped
from sdpo.tracking import RunFolder, Tracker
from sdpo.tracking.disk import atomic_write
from sdpo.types import Sample


class Updates:
    """`run` makes the updates of one step."""

    def __init__(self, recipe: Recipe, learner: Learner, tokenizer: Any, folder: RunFolder, tracker: Tracker) -> None:
        self.recipe, self.learner, self.tokenizer = recipe, learner, tokenizer
        self.folder, self.tracker = folder, tracker

    async def run(
        self, samples: list[list[Sample]], on_update: Callable[[], None], step: int, saved: str
    ) -> dict[str, float]:
        """The learner's numbers.  saved: what the run could be resumed from.

        Raises UserError where weights are no longer finite, or too many updates in a row were skipped.
        """
        settings, repeats = self.recipe.learner, f"the same command repeats the run from {saved}"
        try:
            learned = await self.learner.train(samples, on_update, step)
        except BrokenWeights as stop:
            raise UserError(
                f"Update {stop.update} of step {step} had a finite gradient and left weights that are not finite: "
                f"{stop.source}. The optimiser's step was too large: give another run (name=…) a lower learner.lr "
                f"({settings.lr:g}). Nothing was published or saved; {repeats}."
            ) from None
        except TooManySkipped as stop:
            path = self.folder.path / "skipped" / f"step-{step:06d}-update-{stop.update}.jsonl"
            path.parent.mkdir(parents=True, exist_ok=True)
            atomic_write(path, stop.lines(self.tokenizer.decode).encode())
            raise UserError(
                f"The last {stop.in_a_row} updates (learner.max_skipped) were skipped, because a number was not "
                f"finite. The first tensor that is not: {stop.source}. The batch of the last one (step {step}, update "
                f"{stop.update}) is saved, one response per line; look at it with: python -m json.tool --json-lines "
                f"{path}. If its numbers look right, the steps before it were too large: give another run (name=…) a "
                f"lower learner.lr ({settings.lr:g}) or learner.clip_grad_norm ({settings.clip_grad_norm:g}). "
                f"Otherwise {repeats}."
            ) from None
        if skipped := learned["learner/skipped_updates"]:
            self.tracker.message(
                f"warning: {skipped:.0f} of {settings.updates_per_batch} updates of step {step} skipped, because a "
                f"number was not finite; the first: {self.learner.skip_reason}"
            )
        return learned
