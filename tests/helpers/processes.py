"""Commands started as from a terminal."""

from __future__ import annotations

import signal


def heeds_interrupts() -> None:
    """For `preexec_fn`: what a shell starts in the background is deaf to Ctrl-C, and hands that on to its children."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
