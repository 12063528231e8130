from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from sdpo.tracking import RunFolder, rollout_rows
from sdpo.tracking.rollouts import SCHEMA, read_rollouts, rollout_steps, rollouts_path, write_rollouts
from sdpo.types import Group, Hint, Rollout, Sample, TeacherContext, TokenCredit
from tests.helpers.tasks import RIGHT, UNGRADED, problem, turn, with_outcome, wrong

TEXTS = {(1, 2): "What is asked", (8,): "what the teacher reads"}


def _group() -> Group:
    outcomes = (RIGHT, wrong())
    turns = [
        turn(f"response {i}", outcome, prompt_ids=(1, 2), response_ids=(3, 4, 5)[: i + 1], version=7)
        for i, outcome in enumerate(outcomes)
    ]
    return Group(problem(name="p1"), tuple(Rollout((made,)) for made in turns))


def _samples(group: Group, teachers: list[TeacherContext | None]) -> list[Sample]:
    turns = [rollout.last for rollout in group.rollouts]
    return [
        Sample(t.prompt_ids, t.response_ids, t.sampler_log_probs, teacher=teacher)
        for t, teacher in zip(turns, teachers, strict=True)
    ]


def _teacher(told: str | None, length: int = 2) -> TeacherContext:
    return TeacherContext((8,), np.ones(length, np.float32), None if told is None else Hint(None, told))


def test_groups_become_a_compressed_table_and_come_back(tmp_path: Path):
    group = _group()
    failure = group.rollouts[1].outcome.feedback
    rows = rollout_rows([group], [_samples(group, [None, _teacher(failure)])], TEXTS.__getitem__)
    path = write_rollouts(tmp_path, 12, rows)
    assert path.name == "step-000012.parquet" and rollout_steps(tmp_path) == [12]
    assert pq.ParquetFile(path).metadata.row_group(0).column(0).compression == "ZSTD"
    first, second = read_rollouts(tmp_path, 12)
    assert (first["problem_id"], first["sample"], first["response_tokens"], first["policy_version"]) == ("p1", 0, 1, 7)
    assert (first["prompt"], first["response"]) == ("What is asked", "response 0")
    assert (first["passed"], first["verdict"], first["reward"], first["teacher_prompt"]) == (
        True,
        "accepted",
        1.0,
        None,
    )
    assert (second["verdict"], second["teacher_prompt"]) == ("wrong answer", "what the teacher reads")
    assert second["feedback"] == failure and "Wrong Answer" in failure


def test_the_feedback_is_what_the_teacher_was_shown(tmp_path: Path):
    """An algorithm may tell its teacher something else than the environment said, or a demonstration alone."""
    group = _group()
    group = replace(group, rollouts=(*group.rollouts, group.rollouts[1]))
    without = TeacherContext((8,), np.ones(2, np.float32), Hint("print(3)", None))
    samples = _samples(group, [None, _teacher("of another question"), without])
    write_rollouts(tmp_path, 1, rollout_rows([group], [samples], TEXTS.__getitem__))
    assert [row["feedback"] for row in read_rollouts(tmp_path, 1)] == [None, "of another question", None]


def test_what_could_not_be_graded_has_no_reward_and_says_why(tmp_path: Path):
    group = with_outcome(with_outcome(_group(), 0, UNGRADED), 1, None)
    write_rollouts(tmp_path, 1, rollout_rows([group], [_samples(group, [None, None])], TEXTS.__getitem__))
    first, second = read_rollouts(tmp_path, 1)
    assert (first["reward"], first["passed"], first["verdict"]) == (None, False, "sandbox error")
    assert (second["reward"], second["passed"], second["verdict"]) == (None, None, None)


def test_all_steps_load_as_one_data_set(tmp_path: Path):
    """Also where a column is null in a whole step: one without tokens, without a teacher, without a grade."""
    import datasets

    def text(ids) -> str:
        return " ".join(map(str, ids))

    group, tables = _group(), tmp_path / "rollouts"
    tables.mkdir()
    numbers, pairs = np.zeros(1, np.float32), np.zeros((1, 2), np.float32)
    learned = TokenCredit(numbers, numbers, None, None, np.ones((1, 2), np.int32), pairs, None)
    taught = _samples(group, [_teacher("try again", 1), None])
    ungraded = with_outcome(with_outcome(group, 0, None), 1, None)
    write_rollouts(tables, 1, rollout_rows([group], [taught], text, [[learned, None]]))
    write_rollouts(tables, 2, rollout_rows([ungraded], [_samples(group, [None, None])], text))
    nothing = write_rollouts(tmp_path, 3, [])
    assert [pq.read_schema(path) == SCHEMA for path in (nothing, *tables.iterdir())] == [True] * 3
    cache = str(tmp_path / "cache")
    found = datasets.load_dataset("parquet", data_files=f"{tables}/*.parquet", split="train", cache_dir=cache)
    assert list(found["step"]) == [1, 1, 2, 2] and list(found["passed"]) == [True, False, None, None]
    assert list(found["token_ids"]) == [[3], None, None, None] and found[0]["feedback"] == "try again"
    with pytest.raises(ValueError, match="no column temperature"):
        write_rollouts(tables, 4, [{"temperature": 0.6}])


def test_tables_over_the_budget_are_thinned_out_the_older_the_sparser(run: RunFolder):
    rows = [{"problem_id": "p", "response": "x" * 100}]
    run.write_rollouts(1, rows)
    size = rollouts_path(run.rollouts, 1).stat().st_size
    dropped = [step for number in range(2, 101) for step in run.write_rollouts(number, rows, 20.5 * size)]
    kept = rollout_steps(run.rollouts)
    assert len(kept) == 20 and kept[0] == 1 and kept[-3:] == [98, 99, 100]
    assert sorted([*kept, *dropped]) == list(range(1, 101)) and run.info.rollouts_dropped == 80
    gaps = [after - before for before, after in zip(kept, kept[1:], strict=False)]
    assert max(gaps[-5:]) < max(gaps[:5]) and max(gaps) <= 32  # no stretch is lost as a whole


def test_the_newest_table_stays_even_if_it_alone_is_over_the_budget(run: RunFolder):
    for step in (1, 2, 3):
        run.write_rollouts(step, [{"problem_id": "p"}], 1)
    assert rollout_steps(run.rollouts) == [1, 3]
