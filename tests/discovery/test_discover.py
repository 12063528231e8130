"""`sdpo discover` with real engines and a real learner, on few questions and with few attempts."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from sdpo.cli import main

SMALL = (
    "discovery.algorithms=[sdpo]", "discovery.questions=2", "discovery.budget=32", "discovery.hardness_samples=8",
    "discovery.hardness_k=8", "discovery.max_pass_at_k=0.9",
)  # fmt: skip


def start(folder, *words: str) -> subprocess.Popen:
    command = [sys.executable, "-m", "sdpo.cli", "discover", "discover-livecodebench", "--profile", "cpu", *SMALL]
    return subprocess.Popen(
        [*command, f"run.directory={folder}", "name=found", *words],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env={**os.environ, "COLUMNS": "120"},
    )  # fmt: skip


def searches(folder) -> dict[tuple, dict]:
    """What was found, without clocks."""
    each = map(json.loads, (folder / "found" / "searches.jsonl").read_text().splitlines())
    return {(s["method"], s["question"], s["seed"]): s for s in each if s.pop("seconds") > 0}


LOADED = (
    "model.adapter={rank: 8}", "rollout.adapter=loaded", "learner.lr=2e-3", "discovery.questions=5",
    "discovery.budget=64",
)  # fmt: skip


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    ("questions", "budget", "words", "struck_words"),
    [
        (2, 32, (), ()),
        (5, 64, (*LOADED, "discovery.questions_at_once=1"), (*LOADED, "discovery.questions_at_once=3")),
    ],
    ids=["in turns", "side by side"],
)
def test_killed_in_the_middle_and_started_again_it_gives_the_same_table(
    tmp_path, questions, budget, words, struck_words
):
    """And side by side the same as in turns: no question's attempts depend on those beside it."""
    whole = start(tmp_path / "whole", *words)
    output, _ = whole.communicate(timeout=400)
    assert whole.returncode == 0, output
    expected = searches(tmp_path / "whole")
    assert len(expected) == questions * 3
    assert f"Of {questions} questions, within {budget} attempts each: SDPO" in output
    assert all(search["attempts"] <= budget for search in expected.values())
    assert all((search["solution"] is not None) == (search["solved"] > 0) for search in expected.values())

    struck = start(tmp_path / "struck", *struck_words)
    file = tmp_path / "struck" / "found" / "searches.jsonl"
    while struck.poll() is None and not (file.exists() and '"method": "sdpo"' in file.read_text()):
        time.sleep(0.1)
    struck.send_signal(signal.SIGKILL)
    struck.communicate()
    assert len(searches(tmp_path / "struck")) < len(expected)
    again = start(tmp_path / "struck", *struck_words)
    output, _ = again.communicate(timeout=400)
    assert again.returncode == 0, output
    assert searches(tmp_path / "struck") == expected
    assert (tmp_path / "struck" / "found" / "index.html").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["environment.turns=2"], "environment.turns=1"),
        (["context.max_prompt_tokens=256"], "context.max_prompt_tokens to at least that"),
        (["discovery.algorithms=[sdpo,sft]"], "has no algorithm 'sft'"),
        (["discovery.hardness_k=128"], "must not be larger"),
        (["discovery.questions_at_once=2"], "no effect unless engines load an adapter of each question"),
        (["discovery.questions_at_once=2", "model.adapter={}"], "no effect unless engines load an adapter of each"),
    ],
)
def test_what_cannot_be_compared_is_refused_before_anything_starts(tmp_path, words, said, capsys):
    command = ["discover", "discover-livecodebench", "--profile", "cpu", *SMALL, f"run.directory={tmp_path}", *words]
    assert main(command) == 2
    assert said in capsys.readouterr().err.replace("\n", " ")


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (
            ["train", "livecodebench", "--dry-run", "discovery.budget=5"],
            "discovery.budget=5 has no effect in `sdpo train`",
        ),
        (["tasks", "check", "livecodebench", "discovery={}"], "discovery={} has no effect in `sdpo tasks`"),
        (["train", "discover-livecodebench", "--dry-run"], "has a section discovery, which has no effect in training"),
        (["plan", "discover-livecodebench"], "has a section discovery, which has no effect in training"),
    ],
)
def test_its_options_are_refused_where_nothing_reads_them(command, said, capsys):
    assert main([*command, "--profile", "cpu"]) == 2
    assert said in capsys.readouterr().err.replace("\n", " ")
