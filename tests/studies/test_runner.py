"""The runner: made once, shared, stopped, gone on with, failed, tried again."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from sdpo.errors import UserError
from sdpo.tracking import RunFolder
from studies.evidence import settings
from studies.evidence.index import Index
from studies.evidence.layout import Layout
from studies.evidence.record import Record, load_records
from studies.evidence.runner import resolve
from studies.evidence.session import Session
from studies.evidence.studies import load_studies, specs
from tests.helpers.small_studies import STUDIES, TINY

ROOT = Path(__file__).parents[2]

CHOSEN = {"sdpo": ("learner.lr=2e-3",), "grpo": ()}


def test_every_run_leaves_one_record_that_says_how_it_was_made(studies, tuned, make_runner):
    record = Record.load(tuned.record("tuning/sdpo-fast-world0"))
    assert record.finished and record.settings["learner"]["lr"] == 2e-3
    assert record.command.startswith("sdpo train livecodebench --algorithm sdpo --profile cpu name=tuning-sdpo-fast")
    assert "learner.lr=2e-3" in record.command and record.commit and record.hardware and record.elapsed_s > 0
    assert record.curve("eval/train/pass@1")[0] == (0, 0) and record.eval["step"] == [0, 2, 4]
    assert record.train["step"] == [1, 2, 3, 4] and record.train["policy/entropy"][3] == 0.25
    counts = record.problems["held_out"]
    assert counts.steps == [0, 2, 4] and len(counts.passed) == 3 and counts.n == 4
    make_runner().run(specs(studies, "tuning", None))  # nothing is left to do
    assert not any(tuned.runs.glob("*/run.json"))


def test_the_commands_say_which_runs_have_no_record(studies, tuned, capsys):
    session = Session(studies, tuned)
    session.show_commands(["tuning"])
    *commands, closing = capsys.readouterr().out.splitlines()
    assert len(commands) == 3 and not any("#" in line for line in commands)
    assert closing == "# 3 of 3 runs are recorded"
    tuned.record("tuning/grpo-world0").unlink()
    session.show_commands(["tuning"])
    *commands, closing = capsys.readouterr().out.splitlines()
    (missing,) = [line for line in commands if line.endswith("  # not recorded yet")]
    assert "--algorithm grpo" in missing and closing == "# 2 of 3 runs are recorded"


def test_a_run_of_two_parts_is_made_once(studies, tuned, layout, make_runner):
    make_runner().run(specs(studies, "comparison", CHOSEN))
    assert len(load_records(layout.records)) == 5  # 3 and, of 4, the two of world 1
    index = Index.of(layout)
    assert index.get("comparison/sdpo-world0") is index.get("tuning/sdpo-fast-world0")
    assert index.get("comparison/grpo-world0") is index.get("tuning/grpo-world0")


def test_a_failed_run_is_kept_with_its_reason_and_tried_again_when_asked(studies, layout, make_runner, monkeypatch):
    declared = specs(studies, "tuning", None)
    monkeypatch.setenv("TINY_FAIL", "tuning-sdpo-world0")
    make_runner().run(declared[:2])
    failed = Record.load(layout.record("tuning/sdpo-world0"))
    assert failed.status == "failed" and failed.reason == "exit status 2: error: the disk is full (for this test)."
    assert failed.train["step"] == [1]  # as far as it came
    assert Index.of(layout).finished("tuning/sdpo-fast-world0")  # the others are made
    monkeypatch.delenv("TINY_FAIL")
    make_runner().run(declared[:2])
    assert Record.load(layout.record("tuning/sdpo-world0")).status == "failed"
    make_runner(retry=True).run(declared[:2])
    again = Record.load(layout.record("tuning/sdpo-world0"))
    assert again.finished and [a["exit_status"] for a in again.attempts] == [2, 0] and again.train["step"][-1] == 4
    assert again.failures == [failed.reason]  # what failed stays said


def test_a_folder_with_other_settings_is_set_aside_with_its_log(studies, layout, tmp_path, make_runner, monkeypatch):
    monkeypatch.setenv("TINY_FAIL", "tuning-sdpo-world0")
    make_runner().run(specs(studies, "tuning", None)[:1])
    layout.record("tuning/sdpo-world0").unlink()
    monkeypatch.delenv("TINY_FAIL")
    changed = studies.model_copy(update={"common": ("evaluation.every=2", "run.steps=6")})
    make_runner().run(specs(changed, "tuning", None)[:1])
    record = Record.load(layout.record("tuning/sdpo-world0"))
    assert record.finished and record.train["step"][-1] == 6 and len(record.attempts) == 1
    (aside,) = layout.runs.glob("tuning-sdpo-world0.*")
    assert "the disk is full" in (aside / "train.log").read_text()
    assert "the disk is full" not in (layout.folder("tuning/sdpo-world0") / "train.log").read_text()


def test_other_settings_under_a_recorded_name_are_refused(studies, tuned, make_runner):
    changed = studies.model_copy(update={"common": ("evaluation.every=2", "run.steps=5")})
    with pytest.raises(UserError, match="recorded with other settings"):
        make_runner().run(specs(changed, "tuning", None))


def test_stopped_and_gone_on_with(studies, layout, tmp_path, make_runner):
    """Ctrl-C in the middle of a run: no record, and the next call goes on from the run's last step."""
    script = tmp_path / "runner.py"
    script.write_text(
        "import sys\n"
        "from pathlib import Path\n"
        "from studies.evidence.layout import Layout\n"
        "from studies.evidence.progress import Progress\n"
        "from studies.evidence.runner import Runner, RunsStopped\n"
        "from studies.evidence.studies import load_studies, specs\n"
        f"here = Path({str(tmp_path)!r})\n"
        "studies = load_studies(here / 'studies.yaml')\n"
        "try:\n"
        f"    Runner(Layout(here / 'data', here / 'runs'), Progress(), program={TINY!r})"
        ".run(specs(studies, 'tuning', None)[:1])\n"
        "except RunsStopped:\n"
        "    sys.exit(130)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TINY_PAUSE_S": "0.6"}  # `studies` is not installed
    process = subprocess.Popen([sys.executable, str(script)], env=environment)
    folder = layout.folder("tuning/sdpo-world0")
    while not (folder / "metrics.jsonl").is_file() or RunFolder(folder).metrics[-1]["step"] < 1:
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    assert process.wait(20) == 130
    assert not layout.records.exists() and RunFolder(folder).info.status == "interrupted"
    make_runner().run(specs(studies, "tuning", None)[:1])
    record = Record.load(layout.record("tuning/sdpo-world0"))
    assert [a["exit_status"] for a in record.attempts] == [130, 0]
    assert record.train["step"] == [1, 2, 3, 4] and record.elapsed_s > record.attempts[1]["elapsed_s"]
    assert "Resuming after step" in (folder / "train.log").read_text()


def test_the_choice_follows_its_rule_and_is_made_once(studies, tuned, layout):
    declared = specs(studies, "tuning", None)
    with pytest.raises(UserError, match="Tuning is not complete: tuning/sdpo-world0"):
        settings.choose(declared, Index([]), layout.settings)
    record = Record.load(layout.record("tuning/sdpo-fast-world0"))
    record.problems["train"].passed = [[0] * 4, [4] * 4, [4] * 4]  # of 0, 128, 256 generations: mean (0.5 + 1) / 2
    record.save(layout.record("tuning/sdpo-fast-world0"))
    chosen = settings.choose(declared, Index.of(layout), layout.settings)
    assert chosen == {"sdpo": ("learner.lr=2e-3",), "grpo": ()}
    content = yaml.safe_load(layout.settings.read_text())
    assert content["candidates"]["sdpo"]["sdpo-fast-world0"]["mean_pass_at_1"] == 0.75
    with pytest.raises(UserError, match="chosen already"):
        settings.choose(declared, Index.of(layout), layout.settings)


def test_settings_are_put_together_in_order(studies):
    run = specs(studies, "comparison", CHOSEN)[2]
    assert (run.id, run.overrides) == ("comparison/sdpo-world1", ("seed=1", "data.world_seed=1", "learner.lr=2e-3"))
    repeated = studies.parts["comparison"].model_copy(update={"seeds": (0, 7)})
    again = studies.model_copy(update={"parts": {**studies.parts, "comparison": repeated}})
    run = specs(again, "comparison", CHOSEN)[2]
    assert (run.id, run.overrides[:2]) == ("comparison/sdpo-world0-seed7", ("seed=7", "data.world_seed=0"))
    with pytest.raises(UserError, match="builds on the chosen settings"):
        specs(studies, "comparison", None)


def test_a_part_may_have_a_recipe_and_a_tuning_of_its_own(studies, tuned, layout, capsys):
    own = {"recipe": "tools", "tuning": "tools-tuning", "worlds": (0,)}
    parts = {**studies.parts, "tools": studies.parts["comparison"].model_copy(update=own)}
    parts["tools-tuning"] = studies.parts["tuning"].model_copy(update={"recipe": "tools"})
    session = Session(studies.model_copy(update={"parts": parts}), layout)
    session.show_commands(["tools"])
    assert "# tools takes the chosen settings, and none are chosen" in capsys.readouterr().out
    chosen = {"sdpo": {"set": ["learner.lr=3e-3"]}, "grpo": {"set": []}}
    (layout.data / "tools-settings.yaml").write_text(yaml.safe_dump({"chosen": chosen}))
    session.show_commands(["tools", "tools-tuning", "comparison"])  # whose own tuning has chosen nothing
    sdpo, _, *tuning, comparison, closing = capsys.readouterr().out.splitlines()
    assert sdpo.startswith("sdpo train tools --algorithm sdpo --profile cpu name=tools-sdpo-world0")
    assert "learner.lr=3e-3" in sdpo and len(tuning) == 3 and all("sdpo train tools" in line for line in tuning)
    assert comparison.startswith("# comparison takes the chosen settings, and none are chosen")
    assert closing == "# 0 of 5 runs are recorded"


def test_the_bundled_studies_are_valid_and_tune_both_methods_alike():
    bundled = load_studies()
    assert set(STUDIES["parts"]) <= set(bundled.parts)
    for part, tried in {"tuning": 7, "tools-tuning": 2}.items():
        tuning = specs(bundled, part, None)
        assert sum(s.algorithm == "sdpo" for s in tuning) == sum(s.algorithm == "grpo" for s in tuning) == tried
        budgets = {resolve(s, Layout(Path("data"), Path("runs"))).run.steps for s in tuning}
        assert len(budgets) == 1
    assert bundled.tunings == ["tuning", "tools-tuning"]
