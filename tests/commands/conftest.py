"""No command outlives the test that started it, however that ended."""

from __future__ import annotations

import pytest

from tests.helpers.commands import Run


@pytest.fixture(autouse=True)
def runs_end():
    yield
    while Run.started:
        Run.started.pop().kill()
