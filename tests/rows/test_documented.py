"""The rows that docs/data.md shows can be read."""

from __future__ import annotations

import json
import re

import pytest

from sdpo.config.paths import PROJECT
from sdpo.config.sections import ColumnSettings
from sdpo.envs.code.livecodebench import load_livecodebench
from sdpo.envs.rows import make_task


@pytest.fixture(scope="module")
def shown() -> list[str]:
    return re.findall(r"```json\n(.*?)```", (PROJECT / "docs" / "data.md").read_text(), re.DOTALL)


def test_rows_of_ones_own(shown):
    tasks = [make_task(json.loads(line), ColumnSettings()) for line in shown[0].splitlines()]
    assert [task.messages[-1]["content"] for task in tasks] == ["What is 2 + 3?"] * len(tasks)
    assert [task.solution for task in tasks] == ["5", "5", "2 + 3 = 5"]


def test_a_row_of_livecodebench(shown, tmp_path):
    (tmp_path / "rows.jsonl").write_text(shown[1])
    read = load_livecodebench(tmp_path / "rows.jsonl", test_split="published", problem_split="none", max_bad_rows=0)
    [problem] = read.evaluation
    assert (problem.id, len(problem.evaluation_tests)) == ("sum", 1)
