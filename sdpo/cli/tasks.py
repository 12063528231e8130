"""`sdpo tasks`: look at problems."""

from __future__ import annotations


def run(options) -> int:
    from sdpo.envs.minicode import show_problems

    show_problems(options.n, options.seed)
    return 0
