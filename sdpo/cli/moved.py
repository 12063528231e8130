"""Commands that have moved to the studies."""

from __future__ import annotations

import argparse
import sys


def run(options: argparse.Namespace) -> int:
    print(f"This command belongs to the studies now: python -m studies {options.command} …", file=sys.stderr)
    return 2
