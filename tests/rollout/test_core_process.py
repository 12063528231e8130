"""vLLM's core is forked from the process that has imported vLLM, before that has threads."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from sdpo.rollout import worker_process
from tests.helpers.engine import config_for

SCRIPT = """
import json, os, sys
sys.path.insert(0, {tests!r})
import vllm.v1.engine.utils as engines
from sdpo.rollout import core_process
from forked import report

usual, waiting = engines.get_mp_context, core_process._waiting
os.environ["SET_LATER"] = "yes"
log = os.open({log!r}, os.O_CREAT | os.O_WRONLY)
os.dup2(log, 1)
with core_process.forked_core():
    first, second = (engines.get_mp_context().Process(target=report, args=({out!r} + str(i),)) for i in range(2))
assert engines.get_mp_context is usual
for process in (first, second):
    process.start()
    process.join()
json.dump([waiting.pid, first.pid, second.pid, first.exitcode, second.exitcode], open({out!r}, "w"))
"""
TARGET = """
import json, os, sys

def report(path):
    print("of the core", flush=True)
    json.dump([os.getpid(), os.environ.get("SET_LATER"), "torch" in sys.modules], open(path, "w"))
    sys.exit(7)
"""


@pytest.mark.slow
def test_the_first_core_is_the_process_that_waits_and_the_next_a_fresh_one(tmp_path):
    (tmp_path / "forked.py").write_text(TARGET)
    script = tmp_path / "as_ray_does.py"
    log, out = tmp_path / "log", tmp_path / "out"
    text = SCRIPT.format(tests=str(tmp_path), log=str(log), out=str(out))
    script.write_text("if __name__ == '__main__':\n" + textwrap.indent(text, "    "))
    command = [sys.executable, "-P", worker_process.__file__, script]
    done = subprocess.run(command, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr
    waiting, first, second, *statuses = json.loads(out.read_text())
    assert waiting == first != second and statuses == [7, 7]
    told = [json.loads(Path(f"{out}{i}").read_text()) for i in range(2)]
    assert told == [[first, "yes", True], [second, "yes", False]]
    assert log.read_text() == "of the core\n" * 2, "its output goes where the parent's went by then"


@pytest.mark.slow
def test_the_core_of_an_engine_has_not_imported_again(pool):
    """It was there before the engine's actor, of which it shares the memory."""
    [core] = [pid for pid, what in pool.infos[0].processes.items() if what == "its vLLM core"]
    rollup = Path(f"/proc/{core}/smaps_rollup").read_text().splitlines()
    sizes = {line.split(":")[0]: int(line.split()[1]) for line in rollup[1:]}
    assert sizes["Shared_Dirty"] > 100_000, "kB that a fork shares with its parent"
    assert psutil.Process(core).ppid() == pool.infos[0].pid


def test_only_a_cpu_engine_of_our_own_ray_is_started_so(monkeypatch):
    config = config_for("model")
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    assert worker_process.__file__ in worker_process.of_engine(config)["py_executable"]
    assert worker_process.of_engine(replace(config, device="cuda", weight_transfer="nccl")) == {}
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:6379")
    assert worker_process.of_engine(config) == {}
