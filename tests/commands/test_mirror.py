"""A run whose machine is gone goes on from its mirror: the real command, three times."""

from __future__ import annotations

import json
import shutil

import pytest

from studies.faults.compare import differences
from tests.helpers.commands import Run

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]
NAME = "livecodebench-sdpo-seed0"


def test_a_run_goes_on_elsewhere_bit_for_bit(tmp_path):
    first, second, whole = (tmp_path / name for name in ("first", "second", "whole"))
    for folder in (first, second, whole):
        folder.mkdir()
    mirrored = (f"run.mirror=file://{tmp_path}/mirror", "evaluation.every=1", "tracking.wandb=disabled")
    begun = Run(first, *mirrored, "run.steps=2")
    assert begun.end() == 0, begun.output
    assert "copying to the mirror" in begun.output and "warning" not in begun.output
    copy = tmp_path / "mirror" / NAME
    assert (copy / "report.html").is_file() and json.loads((copy / "run.json").read_text())["status"] == "finished"
    shutil.rmtree(first)

    again = Run(second, *mirrored, "run.steps=3")
    assert again.end() == 0, again.output
    assert "Fetched step-000002" in again.output and "after step 2." in again.output
    undisturbed = Run(whole, *mirrored[1:], "run.steps=3")
    assert undisturbed.end() == 0, undisturbed.output
    assert differences(whole / "runs" / NAME, second / "runs" / NAME) == []
    assert {path.name for path in (copy / "checkpoints").iterdir()} >= {"step-000003"}
    assert (copy / "run.json").read_bytes() == (second / "runs" / NAME / "run.json").read_bytes()
