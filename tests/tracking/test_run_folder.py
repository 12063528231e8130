from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sdpo.errors import UserError
from sdpo.tracking import DIED, FAILED, FINISHED, INTERRUPTED, RUNNING, RunFolder, RunInfo, set_aside
from sdpo.tracking.run_info import DIED_REASON

HOLDER = """
import sys, time
from sdpo.tracking import RunFolder, RunInfo
with RunFolder(sys.argv[1]) as folder:
    if folder.info is None:
        folder.create(RunInfo.collect(recipe="r", algorithm="sdpo", seed=0, profile="cpu"), {"seed": 0})
    folder.append_metrics({"step": 1})
    print("holding", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path: Path):
    """Another process that trains into tmp_path/run."""
    process = subprocess.Popen([sys.executable, "-c", HOLDER, str(tmp_path / "run")], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "holding\n"
    yield process
    process.kill()
    process.wait()


def test_a_new_run_has_its_recipe_and_where_it_came_from(run: RunFolder):
    assert run.recipe["learner"] == {"lr": 1e-3}
    info = RunFolder(run.path).info
    assert (info.recipe, info.algorithm, info.seed, info.profile, info.status) == (
        "livecodebench",
        "sdpo",
        0,
        "cpu",
        RUNNING,
    )
    assert "cores" in info.hardware and info.commit and info.command and info.created.endswith("+00:00")
    assert run.rollouts.is_dir() and run.checkpoints.is_dir()


def test_a_second_run_does_not_overwrite_the_first(run: RunFolder, info: RunInfo):
    with pytest.raises(UserError, match="holds a run already"):
        run.create(info, {})


def test_rows_come_back_as_written_and_nan_as_null(run: RunFolder):
    run.append_metrics({"step": 1, "a": 0.5})
    run.append_metrics({"step": 2, "a": float("nan"), "b": float("inf")})
    assert run.metrics == [{"step": 1, "a": 0.5}, {"step": 2, "a": None, "b": None}]
    for line in (run.path / "metrics.jsonl").read_text().splitlines():
        json.loads(line, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))


@pytest.mark.parametrize("torn", [b'{"step": 3, "a', b'{"step": 3}', b"\x00\x00\x00\n\x00", b"{}x\n"])
def test_a_torn_last_line_is_left_out_and_repaired(run: RunFolder, torn: bytes):
    run.append_metrics({"step": 1})
    run.append_metrics({"step": 2})
    with open(run.path / "metrics.jsonl", "ab") as file:
        file.write(torn)
    reopened = RunFolder(run.path)
    assert [row["step"] for row in reopened.metrics] == [1, 2]
    run.__exit__(None, None, None)
    with reopened:
        reopened.append_metrics({"step": 3})
    assert (run.path / "metrics.jsonl").read_text() == '{"step": 1}\n{"step": 2}\n{"step": 3}\n'


def test_a_broken_line_in_the_middle_is_reported_with_its_number(run: RunFolder):
    (run.path / "metrics.jsonl").write_text('{"step": 1}\nnonsense\n{"step": 3}\n')
    with pytest.raises(UserError, match="line 2"):
        _ = run.metrics


def test_resuming_drops_what_came_after_the_checkpoint(run: RunFolder):
    for step in range(1, 7):
        run.append_metrics({"step": step})
        run.write_rollouts(step, [{"problem_id": "p", "passed": True}])
    run.append_metrics({"step": 6, "eval/train/pass@1": 0.5})
    run.set_status(INTERRUPTED, "Ctrl-C")
    run.__exit__(None, None, None)
    with RunFolder(run.path) as again:
        assert again.resume(4) == 3
        assert [row["step"] for row in again.metrics] == [1, 2, 3, 4]
        assert sorted(path.name for path in again.rollouts.iterdir()) == [
            f"step-00000{i}.parquet" for i in (1, 2, 3, 4)
        ]
        assert (again.info.status, again.info.reason) == (RUNNING, "")
        again.append_metrics({"step": 5})
    assert [row["step"] for row in RunFolder(run.path).metrics] == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("lost", [0, 1, 2])
def test_rows_of_the_checkpoints_step_that_the_file_has_lost_are_written_again(run: RunFolder, lost: int):
    rows = [{"step": 1}, {"step": 2, "a": 0.1}, {"step": 2, "eval/held_out/pass@1": 0.3}]
    for row in rows:
        run.append_metrics(row)
    kept = run.metrics_of(2)  # what a checkpoint of step 2 keeps
    assert kept == rows[1:] and run.metrics_of(1) == []
    lines = (run.path / "metrics.jsonl").read_text().splitlines(keepends=True)
    (run.path / "metrics.jsonl").write_text("".join(lines[: len(lines) - lost]))
    assert run.resume(2, kept) == 0
    assert run.metrics == rows


def test_an_evaluation_that_the_checkpoint_does_not_count_is_dropped(run: RunFolder):
    run.append_metrics({"step": 2})
    kept = run.metrics_of(2)
    run.append_metrics({"step": 2, "eval/held_out/pass@1": 0.3})  # will be made again
    run.resume(2, kept)
    assert run.metrics == [{"step": 2}]


def test_writing_needs_the_lock(run: RunFolder):
    with pytest.raises(RuntimeError, match="with RunFolder"):
        RunFolder(run.path).append_metrics({"step": 1})


def test_two_processes_cannot_train_into_one_folder(tmp_path: Path, holder: subprocess.Popen):
    folder = RunFolder(tmp_path / "run")
    assert folder.info.status == RUNNING  # reading is always possible
    with pytest.raises(UserError, match=rf"process {holder.pid} .*name="), folder:
        pytest.fail("took a folder that another process trains into")
    with pytest.raises(UserError, match="stop it"):
        set_aside(tmp_path / "run")
    assert folder.metrics == [{"step": 1}]


def test_the_lock_of_a_killed_process_is_taken_over(tmp_path: Path, holder: subprocess.Popen):
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    folder = RunFolder(tmp_path / "run")
    assert (folder.info.status, folder.info.reason) == (DIED, DIED_REASON)
    with folder:
        folder.resume(1)
        folder.set_status(FINISHED)
    assert folder.info.status == FINISHED


def test_a_forked_child_does_not_keep_the_lock(run: RunFolder):
    child = os.fork()
    if child == 0:
        time.sleep(30)
        os._exit(0)
    try:
        run.__exit__(None, None, None)
        with RunFolder(run.path) as again:
            again.resume(0)
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (KeyboardInterrupt(), "Ctrl-C"),
        (asyncio.CancelledError(), "Ctrl-C"),
        (None, "stopped before its last step"),
        (ValueError("bad\nmore"), "ValueError: bad"),
        (ZeroDivisionError(), "ZeroDivisionError"),
        (UserError("No such model."), "No such model."),
    ],
)
def test_a_run_that_breaks_off_says_why(tmp_path: Path, info: RunInfo, error: BaseException | None, reason: str):
    try:
        with RunFolder(tmp_path / "run") as folder:
            folder.create(info, {})
            if error is not None:
                raise error
    except BaseException as raised:
        assert raised is error
    assert (folder.info.status, folder.info.reason) == (FAILED if isinstance(error, Exception) else INTERRUPTED, reason)


def test_a_deleted_folder_is_a_message(tmp_path: Path, info: RunInfo):
    with pytest.raises(UserError, match="is gone: it was deleted or moved"), RunFolder(tmp_path / "run") as folder:
        folder.create(info, {})
        shutil.rmtree(folder.path)
        (folder.path / "anything").write_text("")


def test_a_folder_in_which_no_run_began_is_removed(tmp_path: Path):
    with RunFolder(tmp_path / "run"):
        pass
    assert not (tmp_path / "run").exists()


def test_setting_a_run_aside_deletes_nothing(run: RunFolder):
    run.append_metrics({"step": 1})
    run.set_status(FINISHED)
    run.__exit__(None, None, None)
    old = set_aside(run.path)
    assert not run.path.exists() and RunFolder(old).metrics == [{"step": 1}]
    assert set_aside(run.path) is None


def test_a_full_disk_is_one_clear_message_and_tears_nothing(run: RunFolder, info: RunInfo):
    # /dev/full is the kernel's own full disk: every write to it fails with ENOSPC.
    (run.path / "metrics.jsonl").symlink_to("/dev/full")
    with pytest.raises(UserError, match=rf"disk is full: {run.path} needs .* are free there"):
        run.append_metrics({"step": 1})
    (run.rollouts / ".step-000001.parquet.partial").symlink_to("/dev/full")
    with pytest.raises(UserError, match=f"disk is full: {run.rollouts}"):
        run.write_rollouts(1, [{"problem_id": "p"}])
    assert list(run.rollouts.iterdir()) == []
    (run.path / ".run.json.partial").symlink_to("/dev/full")
    run.set_status(FAILED, "The disk is full")  # written over the old file, whose block is there
    assert (run.info.status, run.info.reason) == (FAILED, "The disk is full")


def test_a_path_that_is_a_file_is_refused(tmp_path: Path):
    (tmp_path / "run").write_text("")
    with pytest.raises(UserError, match="is a file"), RunFolder(tmp_path / "run"):
        pass


def test_something_else_than_a_run(tmp_path: Path):
    (tmp_path / "run.json").write_text("[1, 2]")
    with pytest.raises(UserError, match="not the description of a run"):
        _ = RunFolder(tmp_path).info
