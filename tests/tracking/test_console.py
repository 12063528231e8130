from __future__ import annotations

import os
import pty
import re
import select
import subprocess
import sys
import time

import pytest

from sdpo.tracking.format import duration, number, sparkline

PROGRAM = """
import time
from sdpo.tracking import Console
with Console("livecodebench-sdpo-seed0", total_steps=3) as console:
    console.message("cpu profile: no GPU was found")
    with console.phase("starting vLLM engine", announce=True):
        time.sleep(0.3)
    for step in (1, 2):
        with console.phase("generate", total=64) as phase:
            for _ in range(32):
                phase.advance()
            time.sleep(0.4)
        console.step({
            "step": step, "generations": 64 * step, "train/pass_rate": 0.25 * step, "distillation/loss": 0.0123,
            "policy/entropy": 0.81, "distillation/teacher_entropy": 0.64, "response/length_mean": 18.25,
            "verdict/accepted": 16, "verdict/wrong_answer": 40, "verdict/runtime_error": 8,
            "time/generate": 1.25, "time/update": 2.0, "throughput/tokens_per_s": 2213.4,
        })
    console.evaluation({"step": 2, "generations": 128, "eval/held_out/pass@1": 0.22, "eval/held_out/pass@1/low": 0.15,
                        "eval/held_out/pass@1/high": 0.3, "eval/held_out/easy/pass@1": 0.4})
    time.sleep(0.4)
"""
NUMBERS = ["0.50", "0.0123", "0.810", "0.640", "18.2", "2,213", "accepted 16", "wrong answer 40", "runtime error 8"]


def _terminal_output(columns: int, rows: int) -> str:
    """What the program writes to a terminal of this size."""
    leader, follower = pty.openpty()
    environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": str(columns), "LINES": str(rows)}
    environment = {k: v for k, v in environment.items() if k not in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE")}
    process = subprocess.Popen([sys.executable, "-c", PROGRAM], stdout=follower, stderr=follower, env=environment)
    os.close(follower)
    output, end = b"", time.monotonic() + 60
    while time.monotonic() < end:
        if select.select([leader], [], [], 0.5)[0]:
            try:
                output += os.read(leader, 65536)
            except OSError:  # the other side is closed
                break
    assert process.wait(timeout=10) == 0
    os.close(leader)
    return output.decode()


def _last_panel(output: str) -> str:
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", output).replace("\r", "")
    return text[text.rindex("╭") :]


@pytest.mark.parametrize("columns", [60, 110])
def test_a_terminal_shows_one_live_panel(columns: int):
    output = _terminal_output(columns, 40)
    assert "\x1b[1A" in output  # the panel is drawn over itself
    assert "\x1b[?25h" in output[output.rindex("╰") :]  # the cursor is given back
    panel = _last_panel(output)
    for text in NUMBERS:
        assert text in panel, text
    assert "2/3 steps, 128 generations" in panel
    assert "held-out problems  pass@1 0.22 [0.15, 0.30]" in panel and "easy" not in panel
    assert "elapsed" in panel and re.search(r"about \d+\.\d s left", panel)
    assert max(len(line) for line in panel.splitlines()) <= columns
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", output)
    assert "✓ starting vLLM engine" in text and "32/64" in text and "cpu profile: no GPU was found" in text


def test_without_a_terminal_there_is_one_line_per_step():
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[:2] == ["cpu profile: no GPU was found", "starting vLLM engine …"]
    assert re.fullmatch(r"starting vLLM engine: 0\.\d s", lines[2])
    assert lines[3].startswith("step 1/3 | pass rate 0.25 | ") and lines[4].startswith("step 2/3 | pass rate 0.50 | ")
    for text in NUMBERS[1:]:
        assert text in lines[4], text
    assert re.search(r"generate 1\.2 s, update 2\.0 s .*\d s left$", lines[4])
    assert lines[5:] == ["evaluation, step 2: held-out problems  pass@1 0.22 [0.15, 0.30]"]
    assert "\x1b" not in done.stdout


def test_a_phase_that_fails_says_so(plain_console):
    console, output = plain_console
    with pytest.raises(ValueError), console.phase("starting Ray", announce=True):
        raise ValueError
    assert output.getvalue().splitlines()[-1].endswith("(not completed)")


def test_a_long_phase_shows_that_it_is_alive(plain_console, monkeypatch: pytest.MonkeyPatch):
    console, output = plain_console
    with console.phase("generate", total=4) as phase:
        phase.advance()
        assert output.getvalue() == ""
        now = time.monotonic()
        monkeypatch.setattr(time, "monotonic", lambda: now + 25)
        phase.advance()
        phase.advance()
        assert output.getvalue().splitlines() == ["  generate … 2/4 (25 s)"]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.01234, "0.0123"),
        (18.25, "18.2"),
        (64.0, "64"),
        (2213.4, "2,213"),
        (1.2e-6, "1.2e-06"),
        (-0.5, "-0.500"),
        (0, "0"),
        (float("nan"), "–"),
        (None, "–"),
        (float("inf"), "infinite"),
    ],
)
def test_numbers(value: float | None, text: str):
    assert number(value) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.44, "0.4 s"), (12.4, "12 s"), (59.7, "1 min 00 s"), (200, "3 min 20 s"), (3900, "1 h 05 min")],
)
def test_durations(seconds: float, text: str):
    assert duration(seconds) == text


def test_sparklines():
    assert sparkline([0.0, 0.5, 1.0], 8, 0.0, 1.0) == "▁▅█"
    assert sparkline([3.0, 3.0], 8) == "▁▁"
    assert sparkline([0.0, float("nan"), 1.0], 8) == "▁ █"
    assert sparkline([float(i) for i in range(100)], 8) == "▁▂▃▄▅▆▇█"
    assert sparkline([0.0] * 50 + [1.0] * 50, 2) == "▁█"
