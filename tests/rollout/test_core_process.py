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

from sdpo.rollout import core_process, worker_process
from tests.helpers.engine import config_for

SCRIPT = """
import json, os, sys
from multiprocessing import get_context
sys.path.insert(0, {tests!r})
from sdpo.rollout import core_process, forked_process
from forked import report

out = {out!r}
os.environ["SET_LATER"] = "yes"
log = os.open({log!r}, os.O_CREAT | os.O_WRONLY)
os.dup2(log, 1)

module = core_process.starter()
usual, waiting = module.get_mp_context, forked_process._waiting.pid
with core_process.forked_core():
    started = [module.get_mp_context().Process(target=report, args=(f"{{out}}{{i}}",)) for i in range(2)]
    for process in started:
        process.start()
        process.join()
assert module.get_mp_context is usual and not forked_process.is_waiting()
found = [[process.pid, process.exitcode] for process in started]

# With a pipe to inherit it is spawned, and what was forked for it ends.
forked_process.fork("VLLM::EngineCore")
unused = forked_process._waiting.pid
with core_process.forked_core():
    ours, theirs = get_context("spawn").Pipe()
    process = module.get_mp_context().Process(target=report, args=(f"{{out}}2", theirs))
    process.start()
    assert ours.recv() == process.pid != unused
    process.join()
assert not os.path.exists(f"/proc/{{unused}}")

# A vLLM without this function starts its core as ever.
forked_process.fork("VLLM::EngineCore")
del module.get_mp_context
with core_process.forked_core():
    assert not hasattr(module, "get_mp_context")
json.dump([waiting, *found], open(out, "w"))
"""
TARGET = """
import json, os, sys

def report(path, pipe=None):
    print("of the core", flush=True)
    title = open("/proc/self/cmdline").read().split("\\0")[0]
    json.dump([os.getpid(), os.environ.get("SET_LATER"), "torch" in sys.modules, title], open(path, "w"))
    if pipe is not None:
        pipe.send(os.getpid())
    sys.exit(7)
"""


def test_this_vllm_starts_its_core_as_ours_expects():
    """Where this fails, a new vLLM has moved what `core_process` names: each engine imports vLLM twice until then."""
    done = subprocess.run(
        [sys.executable, "-c", "from sdpo.rollout import core_process; assert core_process.starter() is not None"],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr


def test_a_vllm_without_these_modules_is_left_alone(monkeypatch):
    monkeypatch.setattr(core_process, "STARTER", "json.no_such_module")
    assert core_process.starter() is None
    with core_process.forked_core():
        pass


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
    waiting, (first, status), (second, other) = json.loads(out.read_text())
    assert waiting == first != second and (status, other) == (7, 7)
    told = [json.loads(Path(f"{out}{i}").read_text()) for i in range(2)]
    assert told[0] == [first, "yes", True, core_process.TITLE] and told[1][:3] == [second, "yes", False]
    assert log.read_text() == "of the core\n" * 3, "its output goes where the parent's went by then"


@pytest.mark.slow
def test_the_core_of_an_engine_has_not_imported_again(pool):
    """It was there before the engine's actor, of which it shares the memory, and is found by vLLM's name for it."""
    [core] = [pid for pid, what in pool.infos[0].processes.items() if what == "its vLLM core"]
    rollup = Path(f"/proc/{core}/smaps_rollup").read_text().splitlines()
    sizes = {line.split(":")[0]: int(line.split()[1]) for line in rollup[1:]}
    assert sizes["Shared_Dirty"] > 100_000, "kB that a fork shares with its parent"
    process = psutil.Process(core)
    assert process.ppid() == pool.infos[0].pid and process.cmdline()[0] == core_process.TITLE


def test_only_a_cpu_engine_of_our_own_ray_is_started_so(monkeypatch):
    config = config_for("model")
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setenv(worker_process.PATIENCE, "600")
    assert worker_process.__file__ in worker_process.of_engine(config)["py_executable"]
    assert worker_process.of_engine(replace(config, device="cuda", weight_transfer="nccl")) == {}
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:6379")
    assert worker_process.of_engine(config) == {}
    monkeypatch.delenv("RAY_ADDRESS")
    monkeypatch.delenv(worker_process.PATIENCE)
    assert worker_process.of_engine(config) == {}
