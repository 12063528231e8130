"""Ends what a run leaves behind, however its driver ends: a small process beside it, with the standard library alone.

    python -I -S guardian.py DRIVER MARK FOLDER RUN END

Every process of a run carries MARK in its environment (`ENVIRONMENT`).  Once the driver, the parent of the guardian, is
gone, the guardian kills them with all their children, keeps Ray's logs and the true status in the run folder RUN (if
there is one; END is what run.json is to say, as JSON), and removes the run's private FOLDER.  After an orderly end
there is nothing left for it to do.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import select
import shutil
import signal
import sys
import time
from collections.abc import Collection
from datetime import UTC, datetime
from pathlib import Path

ENVIRONMENT = "SDPO_RUN_ID"
RAY = "r"  # the part of the private folder that Ray has; short, see private_folder.LONGEST_BASE
PATIENCE_S = 10.0  # of `end_all`
LOOK_S = 2.0  # between two looks at the driver's own children, which may carry no mark
LOG_BYTES = 2**24  # kept of each log: its end


def stat_of(pid: int) -> list[str]:
    """/proc/<pid>/stat from the state on, the third field."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def running() -> dict[int, tuple[int, str]]:
    """Every process that has not ended: its parent, and the moment of its start in the kernel's ticks."""
    found = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            with contextlib.suppress(OSError, IndexError):
                fields = stat_of(int(name))
                if fields[0] not in "ZX":
                    found[int(name)] = (int(fields[1]), fields[19])
    return found


def marked(mark: str, among: Collection[int]) -> set[int]:
    """Those of the processes whose environment holds the mark."""
    sought, found = f"{ENVIRONMENT}={mark}".encode(), set()
    for pid in among:
        with contextlib.suppress(OSError):
            if sought in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"):
                found.add(pid)
    return found


def below(pids: Collection[int], processes: dict[int, tuple[int, str]]) -> set[int]:
    """The processes with all that descends from them."""
    found, grown = set(pids), True
    while grown:
        more = {pid for pid, (parent, _) in processes.items() if parent in found} - found
        found, grown = found | more, bool(more)
    return found


def end_all(mark: str, spare: Collection[int] = (), known: Collection[tuple[int, str]] = ()) -> bool:
    """Kill every process with the mark and its descendants.  Returns whether none is left.

    known: further ones, as (process id, moment of its start).
    """
    spared, deadline = {os.getpid(), *spare}, time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        processes = running()
        others = {pid for pid, start in known if processes.get(pid, (0, ""))[1] == start}
        left = below((marked(mark, processes) | others) - spared, processes) - spared
        if not left:
            return True
        for pid in left:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.05)
    return False


def ray_logs(folder: Path) -> list[Path]:
    """Logs of the Ray sessions that had this private folder."""
    return [path for path in folder.glob(f"{RAY}/session_2*/logs") if path.is_dir()]


def keep_logs(folder: Path, target: Path) -> bool:
    """Copy the ends of Ray's logs out of a private folder, in place of an earlier run's.  Returns whether any came."""
    found = False
    shutil.rmtree(target, ignore_errors=True)
    for logs in ray_logs(folder):
        for path in logs.rglob("*"):
            if path.is_file() and not path.is_symlink() and path.stat().st_size:
                with contextlib.suppress(OSError), path.open("rb") as file:
                    file.seek(max(0, path.stat().st_size - LOG_BYTES))
                    copy = target / path.relative_to(logs)
                    copy.parent.mkdir(parents=True, exist_ok=True)
                    copy.write_bytes(file.read())
                    found = True
    return found


def record_death(run: Path, end: dict[str, str]) -> bool:
    """Write `end` into run.json, unless the run has come to another end, or another process works on it."""
    try:
        fd = os.open(run / "lock", os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        info = json.loads((run / "run.json").read_text())
        if info["status"] != "running":
            return False
        info.update(end, updated=datetime.now(UTC).isoformat(timespec="milliseconds"))
        new = run / ".run.json.guardian"
        new.write_text(json.dumps(info, indent=2, ensure_ascii=False) + "\n")
        new.replace(run / "run.json")
        return True
    except (OSError, ValueError, KeyError, TypeError):
        return False
    finally:
        os.close(fd)


def children(pid: int) -> set[int]:
    found: set[int] = set()
    with contextlib.suppress(OSError):
        for task in os.scandir(f"/proc/{pid}/task"):
            with contextlib.suppress(OSError):
                found |= set(map(int, Path(task.path, "children").read_text().split()))
    return found


def start_of(pid: int) -> str:
    """The moment when a process was started, in the kernel's ticks; empty if there is none."""
    with contextlib.suppress(OSError, IndexError):
        return stat_of(pid)[19]
    return ""


def watch(driver: int) -> set[tuple[int, str]]:
    """Wait until the process is gone.  Returns what were its children when last seen."""
    known: set[tuple[int, str]] = set()
    try:
        fd = os.pidfd_open(driver)
    except OSError:
        return known
    if os.getppid() != driver:  # it was gone before, and its number is another's by now
        return known
    while not select.select([fd], [], [], LOOK_S)[0]:
        known = {(pid, start_of(pid)) for pid in children(driver) - {os.getpid()}}
    return known


def main(driver: int, mark: str, folder: Path, run: Path | None, end: dict[str, str]) -> None:
    known = watch(driver)
    end_all(mark, known=known)
    if run is not None and record_death(run, end):
        keep_logs(folder, run / "logs")
    shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    number, mark, folder, run, end = sys.argv[1:]
    main(int(number), mark, Path(folder), Path(run) if run else None, json.loads(end))
