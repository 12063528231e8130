"""The `sdpo` command as a process; `python -m sdpo.cli` without an installation."""

from __future__ import annotations

import atexit
import logging
import os
import sys
from contextlib import suppress
from typing import NoReturn

from sdpo.cli import main


def command() -> NoReturn:
    """Run `main`, and end the process without taking its modules apart: 1.5 s once torch and transformers are imported.

    Handlers of `atexit` run in the reverse order of their registration: this one comes after those of all libraries but
    `logging`, whose own it calls.
    """
    statuses: list[int] = []
    atexit.register(_leave, statuses)
    statuses.append(main())
    sys.exit(statuses[0])


def _leave(statuses: list[int]) -> None:
    """Not after an exception, and not where output is lost: Python says so, and sets the status."""
    logging.shutdown()
    with suppress(OSError):
        sys.stdout.flush()
        sys.stderr.flush()
        if statuses:
            os._exit(statuses[0])


if __name__ == "__main__":
    command()
