"""rich's console for text of unknown origin."""

from __future__ import annotations

from collections.abc import Iterable

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

from sdpo.config.terminal import shown


class SafeConsole(Console):
    """Whatever is drawn passes through `shown`; rich's own control sequences are none of the text."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        for segment in super().render(renderable, options):
            yield segment if segment.control else Segment(shown(segment.text), segment.style)

    def on_broken_pipe(self) -> None:
        """Nobody reads any more (rich would end the process): say nothing more."""
        self.quiet = True
