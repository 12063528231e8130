"""TensorBoard: event files under `<run>/tensorboard`, by torch's writer, of which `sdpo.tracking` knows nothing."""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from sdpo.errors import UserError
from sdpo.tracking.sink import COLUMNS, Sink

_AXES = {"step", "time"}  # what TensorBoard has as its own axes


def check_installed() -> None:
    """Raises UserError where a recipe asks for TensorBoard and there is none."""
    if importlib.util.find_spec("tensorboard") is None:
        raise UserError(
            "tracking.sinks names tensorboard, which is not installed. Install it (pip install tensorboard), or leave "
            "it out."
        )


class TensorBoard(Sink):
    """One curve per metric over the training step.

    Args:
        folder: the run folder.
        first_step: the step that comes next; events of a resumed run at this step and later are dropped.
        recipe: the resolved recipe, shown as text.
        warn: told, once, what went wrong.
    """

    def __init__(
        self, folder: Path, *, first_step: int = 0, recipe: str = "", warn: Callable[[str], None] = warnings.warn
    ) -> None:
        super().__init__("TensorBoard", warn)
        self._folder, self._writer = Path(folder) / "tensorboard", None
        self._try(lambda: self._open(first_step, recipe))

    def _open(self, first_step: int, recipe: str) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(self._folder), purge_step=first_step or None)
        if recipe and not first_step:
            self._writer.add_text("recipe", f"```yaml\n{recipe}\n```")

    @property
    def description(self) -> str:
        return f"TensorBoard: tensorboard --logdir {self._folder}"

    def log(self, row: Mapping[str, Any]) -> None:
        self._try(lambda: self._scalars(row))

    def _scalars(self, row: Mapping[str, Any]) -> None:
        for key, value in row.items():
            if key not in _AXES and value is not None:
                self._writer.add_scalar(key, value, row["step"])
        self._writer.flush()

    def rollouts(self, step: int, rows: Sequence[Mapping[str, Any]]) -> None:
        def texts() -> None:
            for number, row in enumerate(rows):
                text = "\n\n".join(f"**{name}**\n\n```\n{row[name]}\n```" for name in COLUMNS[1:])
                self._writer.add_text(f"rollouts/{number}", text, step)

        self._try(texts)

    def finish(self, exit_code: int = 0) -> None:
        self._try(lambda: self._writer.close())
