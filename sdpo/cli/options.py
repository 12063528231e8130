"""`sdpo options`: every option of a recipe, in words."""

from __future__ import annotations

import argparse
import sys

from sdpo.config.options import all_options, markdown, plain, select
from sdpo.config.terminal import say
from sdpo.errors import UserError


def run(options: argparse.Namespace) -> int:
    if options.markdown and options.keys:
        raise UserError(f"--markdown writes the whole page; leave out {' '.join(options.keys)}, or --markdown.")
    if options.markdown:
        sys.stdout.write(markdown(all_options()))
    else:
        say("\n".join(plain(select(options.keys))))
    return 0
