"""Ray does not come up within its own time limit, as on a busy machine."""

from __future__ import annotations

import pytest
import ray

from sdpo.errors import UserError
from sdpo.training import launch

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


class Said:
    def __init__(self) -> None:
        self.lines: list[str] = []

    def message(self, line: str) -> None:
        self.lines.append(line)


def failing(times: int, text: str, monkeypatch):
    """`ray.init` raises so often, then it starts Ray."""
    start, left = ray.init, iter(range(times))

    def init(**options):
        if next(left, None) is not None:
            raise Exception(text)  # noqa: TRY002 — what Ray raises
        return start(**options)

    monkeypatch.setattr(ray, "init", init)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)


def test_a_start_that_times_out_is_tried_again(monkeypatch):
    failing(2, "The current node timed out during startup.", monkeypatch)
    said = Said()
    try:
        launch._start_ray(None, said)
        assert ray.cluster_resources()["CPU"] > 0 and len(said.lines) == 2
    finally:
        ray.shutdown()


@pytest.mark.parametrize("times, text", [(3, "The current node timed out during startup."), (1, "no space left")])
def test_what_does_not_pass_is_said(monkeypatch, times, text):
    failing(times, text, monkeypatch)
    with pytest.raises(UserError, match=f"did not start on this machine .{text.split()[0]}"):
        launch._start_ray(None, Said())
