"""Commands that have moved to the studies."""

from __future__ import annotations

import argparse
import sys

from sdpo.config.terminal import say


def run(options: argparse.Namespace) -> int:
    say(f"This command belongs to the studies now: python -m studies {options.command} …", sys.stderr)
    return 2
