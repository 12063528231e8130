"""Pre-training of the bundled minicode policy: corpus, tokenizer, training loop, and the measurement of its skills."""

from __future__ import annotations

from collections.abc import Sequence


def pretrain_main(overrides: Sequence[str] = ()) -> int:
    """Make the policy, measure it, write its card (`studies.pretrain.command`)."""
    from studies.pretrain.command import main

    return main(overrides)
