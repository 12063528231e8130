"""TensorBoard and CSV: what was written is read back by other programs than ours."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from pydantic import ValidationError
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from sdpo.config.sections import TrackingSettings
from sdpo.tracking.csv_file import CsvFile
from sdpo.tracking.metrics_file import MetricsFile
from sdpo.training.tensorboard import TensorBoard

ROLLOUT = {"step": 1, "problem_id": "p", "prompt": "Add.", "response": "print(3)", "reward": 1.0,
           "verdict": "accepted", "feedback": None, "teacher_prompt": "not shown"}  # fmt: skip


def _row(step: int, **more: float | None) -> dict:
    return {"step": step, "time": "2026-01-01T00:00:00", "train/pass_rate": step / 4, **more}


def test_the_csv_file_follows_the_metrics_also_over_a_resume(tmp_path: Path):
    metrics, file = MetricsFile(tmp_path / "metrics.jsonl"), CsvFile(tmp_path)
    for row in (_row(1), _row(2, **{"eval/train/pass@1": 0.5, "x": None}), _row(3)):
        metrics.append(row)
        file.log(row)
    table = pd.read_csv(tmp_path / "metrics.csv")
    assert list(table["train/pass_rate"]) == [0.25, 0.5, 0.75]
    assert table["eval/train/pass@1"].tolist()[1] == 0.5 and table["eval/train/pass@1"].isna().sum() == 2
    metrics.go_back(1)
    CsvFile(tmp_path)
    assert pd.read_csv(tmp_path / "metrics.csv")["step"].tolist() == [1]


def test_a_csv_file_that_cannot_be_written_is_said_once_and_stops_nothing(tmp_path: Path):
    (tmp_path / "metrics.csv").mkdir()
    said: list[str] = []
    metrics, file = MetricsFile(tmp_path / "metrics.jsonl"), CsvFile(tmp_path, said.append)
    for step in (1, 2):
        metrics.append(_row(step))
        file.log(_row(step))
    assert len(said) == 1 and said[0].startswith("The CSV file failed")


def _read(folder: Path) -> EventAccumulator:
    return EventAccumulator(str(folder / "tensorboard")).Reload()


def test_tensorboard_holds_every_number_the_recipe_and_texts(tmp_path: Path):
    board = TensorBoard(tmp_path, recipe="seed: 0")
    for step in (1, 2, 3):
        board.log(_row(step, x=None))
    board.rollouts(3, [ROLLOUT])
    board.finish()
    board.finish()
    events = _read(tmp_path)
    assert events.Tags()["scalars"] == ["train/pass_rate"]
    assert [(e.step, e.value) for e in events.Scalars("train/pass_rate")] == [(1, 0.25), (2, 0.5), (3, 0.75)]
    texts = {tag: events.Tensors(tag)[0].tensor_proto.string_val[0].decode() for tag in events.Tags()["tensors"]}
    assert "seed: 0" in texts["recipe/text_summary"]
    assert "print(3)" in texts["rollouts/0/text_summary"] and "not shown" not in texts["rollouts/0/text_summary"]


def test_tensorboard_drops_the_steps_that_a_resumed_run_makes_again(tmp_path: Path):
    first = TensorBoard(tmp_path)
    for step in (1, 2, 3):
        first.log(_row(step))
    first.finish()
    again = TensorBoard(tmp_path, first_step=2)
    again.log({"step": 2, "train/pass_rate": 1.0})
    again.finish()
    assert [(e.step, e.value) for e in _read(tmp_path).Scalars("train/pass_rate")] == [(1, 0.25), (2, 1.0)]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"sinks": ("csv", "csv")}, "names one twice"),
        ({"sinks": ("csv",), "wandb": "offline"}, "tracking.wandb=offline has no effect"),
        ({"sinks": ("csv",), "shown_rollouts": 1}, "shown_rollouts has no effect"),
        ({"sinks": ("mlflow",)}, "'wandb', 'tensorboard' or 'csv'"),
    ],
)
def test_settings_without_effect_are_refused(settings: dict, message: str):
    with pytest.raises(ValidationError, match=message):
        TrackingSettings(**settings)
