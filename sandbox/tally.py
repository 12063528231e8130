"""How many programs a sandbox has judged, and on how many of them it failed itself."""

from __future__ import annotations

import logging

from .types import Judgement, Verdict

_WORTH_A_WARNING = 0.01  # of all judgements: sandbox errors

log = logging.getLogger("sandbox")


class Tally:
    def __init__(self) -> None:
        self.counts = {"judged": 0, "sandbox_errors": 0}
        self._warned = 0  # sandbox errors at the last warning

    def count(self, judgement: Judgement) -> None:
        """Count one judgement; warn where failures become frequent, each time they have doubled."""
        counts = self.counts
        counts["judged"] += 1
        if judgement.verdict is not Verdict.SANDBOX_ERROR:
            return
        counts["sandbox_errors"] += 1
        judged, errors = counts["judged"], counts["sandbox_errors"]
        if errors >= _WORTH_A_WARNING * judged and errors >= 2 * self._warned:
            self._warned = errors
            log.warning("the sandbox itself failed on %d of %d programs: %s", errors, judged, judgement.message)
