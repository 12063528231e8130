"""The one folder that holds every temporary file of a run, for this user's eyes only, and ends with it.

TMPDIR of all processes, Ray's sessions (of a Ray that the run starts itself), vLLM's sockets, W&B's and the sandbox's
files: <temporary folder>/sdpo-xxxxxxxx/.  A lock in it, which the kernel drops when its owner dies, tells the folder of
a living run from what a dead one left behind; the next start clears those.
"""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from sdpo.config.paths import LOGS
from sdpo.errors import UserError
from sdpo.rollout import worker_process
from sdpo.tracking.lock import FolderLock, is_locked, owner_in
from sdpo.tracking.run_info import DIED, DIED_REASON
from sdpo.training import guardian
from sdpo.training.interrupt import at_end

PREFIX = "sdpo-"
LONGEST_BASE = 27  # characters: Ray's longest socket, 80 more, must fit into the 107 of a Unix socket's address
_NEW_S = 60.0  # a folder without a lock may be one that is being made
_VARIABLES = {
    "SPT_NOENV": "1",  # a process that changes its title would wipe the mark out of /proc/<pid>/environ
}
_LOCAL = {
    # Ray's name for it; on Linux, too, it makes Ray listen on the loopback interface alone.
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    "VLLM_HOST_IP": "127.0.0.1",
    "GLOO_SOCKET_IFNAME": "lo",
    "NCCL_SOCKET_IFNAME": "lo",
}
_RAY = {  # of a Ray of our own, where the user has not set it
    # Ray's 15 leaves a part that shares a core with another program 3 % of it.
    "RAY_worker_niceness": "0",
    # An engine's process imports vLLM before it registers, which takes minutes where the machine is busy; by itself Ray
    # kills it after one and starts another.
    worker_process.PATIENCE: "1800",
    "RAY_prestart_worker_first_driver": "0",  # of idle workers none has the environment that a part needs
}


def base_folder() -> Path:
    """Where private folders are made: the usual temporary folder, or /tmp where that one's path is too long."""
    usual = Path(tempfile.gettempdir())
    return usual if len(str(usual)) <= LONGEST_BASE else Path("/tmp")


def ray_folder() -> str | None:
    """Where a Ray of our own keeps its sessions; None (Ray's default) outside of a private folder."""
    return f"{os.environ['TMPDIR']}/{guardian.RAY}" if guardian.ENVIRONMENT in os.environ else None


@contextmanager
def private_folder(run: Path | None, tell: Callable[[str], None]) -> Iterator[Path]:
    """A private folder, with the guardian beside it; all processes started within have it as their TMPDIR.

    Args:
        run: the run folder, where logs of a run that failed are kept and a sudden death is recorded.  Without one the
            logs stay in the private folder until the next start.
        tell: gets a line on what dead runs left behind.
    """
    base = base_folder()
    if cleared := clear_dead(base):
        tell(f"Cleared what {cleared} dead run{'s' * (cleared > 1)} left in {base}.")
    folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=base))  # mode 700, a name that nobody can foresee
    lock = FolderLock(folder)
    lock.acquire()
    logs = folder / "logs" if run is None else run / "logs"
    local = {} if os.environ.get("RAY_ADDRESS") else {**_LOCAL, LOGS: str(logs)}  # of one machine, Ray being our own
    if local:
        local |= {name: os.environ.get(name, value) for name, value in _RAY.items()}
    given = {**_VARIABLES, **local, guardian.ENVIRONMENT: folder.name, "TMPDIR": str(folder)}
    before = {name: os.environ.get(name) for name in given}
    os.environ.update(given)
    tempfile.tempdir = None  # what was there before TMPDIR changed
    watcher = _start_guardian(folder, run)

    def end(keep: Path | None = None) -> None:
        guardian.end_all(folder.name, spare=() if watcher is None else (watcher.pid,))
        if keep is not None:
            guardian.keep_logs(folder, keep)
        for path in folder.iterdir():
            if path != keep:
                with suppress(OSError):
                    shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
        with suppress(OSError):  # the logs are kept in it
            folder.rmdir()

    try:
        with at_end(end):
            yield folder
    except Exception as error:
        end(keep=logs if run is None or _are_wanted(logs, run, error) else None)
        raise
    except BaseException:
        end()
        raise
    else:
        end()
    finally:
        lock.release()
        if watcher is not None:
            watcher.kill()
            watcher.wait()
        for name, value in before.items():
            os.environ.pop(name, None) if value is None else os.environ.__setitem__(name, value)
        tempfile.tempdir = None


def _are_wanted(logs: Path, run: Path, error: Exception) -> bool:
    """Not where something was wrong with the recipe and the run has not begun: then nothing of it is to stay."""
    begun = (run / "run.json").exists() or not isinstance(error, UserError) or str(logs) in str(error)
    return begun and run.is_dir()


def _start_guardian(folder: Path, run: Path | None) -> subprocess.Popen[bytes] | None:
    if not hasattr(os, "pidfd_open"):  # not Linux: what a killed run leaves behind stays
        return None
    end = json.dumps({"status": DIED, "reason": DIED_REASON})
    command = [sys.executable, "-I", "-S", guardian.__file__]
    return subprocess.Popen(
        [*command, str(os.getpid()), folder.name, str(folder), str(run or ""), end],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd="/",
        start_new_session=True,  # out of reach of a terminal's signals
    )


def clear_dead(base: Path) -> int:
    """Remove the private folders of dead runs of this user, with the processes that still use them; returns how many.

    Folders of others, links, and folders that others may write are left alone.
    """
    cleared = 0
    for folder in base.glob(f"{PREFIX}????????"):
        with suppress(OSError):
            if _is_ours(folder) and _is_dead(folder):
                guardian.end_all(folder.name)
                shutil.rmtree(folder)
                cleared += 1
    return cleared


def _is_ours(folder: Path) -> bool:
    found = folder.lstat()
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid() and not found.st_mode & 0o077


def _is_dead(folder: Path) -> bool:
    if is_locked(folder):
        return False
    return owner_in(folder) is not None or time.time() - folder.stat().st_mtime > _NEW_S
