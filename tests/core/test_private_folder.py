"""What a run leaves behind, with processes that carry its mark in place of engines and learners."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
import pytest

from sdpo.config.paths import LOGS
from sdpo.errors import UserError
from sdpo.tracking import RunFolder
from sdpo.training import guardian
from sdpo.training.private_folder import base_folder, clear_dead, private_folder

# A driver whose child detached itself, whose grandchild is stopped, and one of whose children has another environment.
DRIVER = """
import os, signal, subprocess, sys, time
from pathlib import Path
from sdpo.tracking import RunFolder, RunInfo
from sdpo.training.private_folder import private_folder
SLEEP = [sys.executable, "-c", "import time; time.sleep(120)"]
DETACHED = [sys.executable, "-c",
    "import os, sys, time\\nif os.fork(): os._exit(0)\\nos.setsid()\\nif os.fork(): os._exit(0)\\n"
    "print(os.getpid(), flush=True); time.sleep(120)"]
with RunFolder(Path(sys.argv[1])) as run:
    run.create(RunInfo.collect(recipe="r", algorithm="sdpo", seed=0, profile="cpu"), {"seed": 0})
    with private_folder(run.path, print) as folder:
        logs = folder / guardian_ray / "session_2026" / "logs"
        logs.mkdir(parents=True)
        (logs / "worker.err").write_text("why it failed")
        pids = [subprocess.Popen(SLEEP).pid, subprocess.Popen(SLEEP, env={}).pid]
        os.kill(pids[0], signal.SIGSTOP)
        pids.append(int(subprocess.Popen(DETACHED, stdout=subprocess.PIPE).stdout.readline()))
        time.sleep(2.5)  # the guardian has seen the child without a mark
        print(folder, *pids, flush=True)
        END
""".replace("guardian_ray", repr(guardian.RAY))


class Driver:
    def __init__(self, tmp_path: Path, end: str) -> None:
        self.run, self.base = tmp_path / "run", tmp_path / "t"
        self.base.mkdir(exist_ok=True)
        program = DRIVER.replace("END", end)
        environment = {**os.environ, "TMPDIR": str(self.base)}
        environment.pop("RAY_ADDRESS", None)
        self.process = subprocess.Popen(
            [sys.executable, "-c", program, str(self.run)], env=environment, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        line = self.process.stdout.readline().split()
        assert line, self.process.communicate()[1]
        self.folder, self.children = Path(line[0]), [int(pid) for pid in line[1:]]

    def left(self) -> list[int]:
        """Those of its children that live."""
        return [pid for pid in self.children if psutil.pid_exists(pid) and psutil.Process(pid).status() != "zombie"]

    def guardian(self) -> psutil.Process:
        children = [c for c in psutil.Process(self.process.pid).children() if c.status() != psutil.STATUS_ZOMBIE]
        found = [c for c in children if guardian.__file__ in c.cmdline()]
        assert len(found) == 1
        return found[0]

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


pytestmark = pytest.mark.timeout(60)


@pytest.fixture
def short_path():
    """pytest's own temporary folders have paths that are too long for sockets."""
    with tempfile.TemporaryDirectory(prefix="t", dir="/tmp") as path:
        yield Path(path)


def eventually(condition) -> None:
    deadline = time.monotonic() + guardian.PATIENCE_S + 10
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert condition()


@pytest.mark.parametrize("named", [True, False], ids=["the logs", "a setting"])
def test_a_run_that_never_began_leaves_nothing_unless_the_message_names_its_logs(tmp_path, monkeypatch, named):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    path = tmp_path / "run"
    with pytest.raises(UserError), RunFolder(path), private_folder(path, print) as folder:
        logs = folder / guardian.RAY / "session_2026" / "logs"
        logs.mkdir(parents=True)
        (logs / "worker.err").write_text("why it failed")
        raise UserError(f"Ray's logs are in {os.environ[LOGS]}." if named else "There is no such layer.")
    assert path.exists() == named == (path / "logs" / "worker.err").exists()


def test_a_killed_driver_leaves_no_process_no_file_and_a_true_status(short_path):
    driver = Driver(short_path, "time.sleep(600)")
    assert clear_dead(short_path / "t") == 0 and driver.folder.exists() and len(driver.left()) == 3  # it lives
    driver.kill()
    eventually(lambda: not driver.left() and not driver.folder.exists())
    info = json.loads((driver.run / "run.json").read_text())
    assert info["status"] == "died" and "killed" in info["reason"]
    assert (driver.run / "logs" / "worker.err").read_text() == "why it failed"
    assert RunFolder(driver.run).info.status == "died"


@pytest.mark.slow
def test_what_a_driver_and_its_guardian_left_the_next_start_clears(short_path):
    driver = Driver(short_path, "time.sleep(600)")
    os.kill(driver.guardian().pid, signal.SIGKILL)
    driver.kill()
    assert driver.folder.exists()
    assert clear_dead(short_path / "t") == 1
    assert not driver.folder.exists() and set(driver.left()) <= {driver.children[1]}  # the one without a mark
    for pid in driver.left():
        os.kill(pid, signal.SIGKILL)
    assert RunFolder(driver.run).info.status == "died"  # although run.json still says running


@pytest.mark.slow
@pytest.mark.parametrize(
    ("end", "status", "logs"),
    [("pass", "interrupted", False), ("raise ValueError('broken')", "failed", True), ("sys.exit(3)", "failed", False)],
)
def test_an_end_of_its_own_leaves_nothing_but_the_logs_of_a_failure(short_path, end, status, logs):
    driver = Driver(short_path, end)
    driver.process.wait()
    eventually(lambda: set(driver.left()) <= {driver.children[1]})
    for pid in driver.left():  # without a mark, and its parent ended in order
        os.kill(pid, signal.SIGKILL)
    assert not any((short_path / "t").iterdir())
    assert RunFolder(driver.run).info.status == status
    assert (driver.run / "logs" / "worker.err").exists() == logs


def test_a_private_folder_is_for_this_user_alone_and_everything_temporary_goes_there(short_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(short_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    with private_folder(None, print) as folder:
        assert folder.parent == short_path and folder.stat().st_mode & 0o777 == 0o700
        assert tempfile.gettempdir() == str(folder)
        told = subprocess.run(
            [sys.executable, "-c", "import tempfile; print(tempfile.gettempdir())"], capture_output=True, text=True
        )
        assert told.stdout.strip() == str(folder)
    assert not any(short_path.iterdir()) and os.environ["TMPDIR"] == str(short_path)


def test_a_long_temporary_folder_gives_way_to_one_that_sockets_can_lie_in(tmp_path, monkeypatch):
    long = tmp_path / ("x" * 60)
    long.mkdir()
    monkeypatch.setenv("TMPDIR", str(long))
    monkeypatch.setattr(tempfile, "tempdir", None)
    session = "r/session_2026-11-27_07-49-58_048107_4194304/sockets/plasma_store"
    assert len(str(base_folder() / "sdpo-abcdefgh" / session)) <= 107


def test_only_what_is_surely_ours_and_dead_is_cleared(short_path):
    elsewhere = short_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "precious").touch()
    (short_path / "sdpo-asymlink").symlink_to(elsewhere)
    open_to_all = short_path / "sdpo-everyone"
    open_to_all.mkdir(mode=0o777)
    open_to_all.chmod(0o777)
    os.utime(open_to_all, (0, 0))
    being_made = Path(tempfile.mkdtemp(prefix="sdpo-", dir=short_path))  # not locked yet
    old = Path(tempfile.mkdtemp(prefix="sdpo-", dir=short_path))
    os.utime(old, (0, 0))
    assert clear_dead(short_path) == 1
    assert (elsewhere / "precious").exists() and open_to_all.exists() and being_made.exists() and not old.exists()


def test_the_guardian_needs_nothing_but_the_standard_library():
    program = f"import runpy, sys; runpy.run_path({guardian.__file__!r}); print('sdpo' in sys.modules)"
    done = subprocess.run([sys.executable, "-I", "-S", "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
