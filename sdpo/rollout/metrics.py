"""What an engine counts."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, field


@dataclass
class EngineMetrics:
    """Counters since the engine was ready.  Seconds are wall clock."""

    requests: int = 0  # responses finished
    prompt_tokens: int = 0
    response_tokens: int = 0
    truncated: int = 0  # responses that ended by length
    busy_seconds: float = 0.0  # with at least one response under way, pauses included
    sequence_seconds: float = 0.0  # the same summed over the responses under way
    weight_updates: int = 0
    paused_seconds: float = 0.0
    running: int = 0  # responses under way now
    _since: float = field(default=0.0, repr=False)  # when `running` changed last

    def __enter__(self) -> None:
        """One more response is under way."""
        self._count()
        self.running += 1

    def __exit__(self, *_: object) -> None:
        self._count()
        self.running -= 1

    def _count(self) -> None:
        """The seconds up to now."""
        now = time.monotonic()
        if self.running:
            self.busy_seconds += now - self._since
            self.sequence_seconds += (now - self._since) * self.running
        self._since = now

    def snapshot(self) -> dict[str, float]:
        """The counters, and tokens_per_second: response tokens per busy second."""
        self._count()
        values = {key: value for key, value in asdict(self).items() if not key.startswith("_")}
        busy = values["busy_seconds"]
        return values | {"tokens_per_second": self.response_tokens / busy if busy else 0.0}
