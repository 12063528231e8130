"""Commands started as from a terminal."""

from __future__ import annotations

import signal


def heeds_signals() -> None:
    """For `preexec_fn`: what a shell starts in the background is deaf to Ctrl-C, what nohup starts to SIGHUP, and both
    hand that on to their children."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
