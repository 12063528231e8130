"""Run every hostile program at one level, as this user or as one without rights, and say what happened.

    python attack.py LEVEL [nobody | numpy]  →  a JSON object: name → {verdict, stdout, message}; what is outside

Run as a process of its own: it needs a victim of its own, and drops root's rights for good.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import runpy
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
USER = 1234
_NEW_MOUNTS, _BIND, _RECURSIVE, _PRIVATE = 0x20000, 4096, 16384, 1 << 18


def as_nobody(script: Path, arguments: list[str]) -> None:
    """Replace this process (root's) by `script`, run by a user without rights; interpreter and project may lie where
    only root can read.  Raises OSError where mounts are not allowed."""
    libc = ctypes.CDLL(None, use_errno=True)

    def check(result: int) -> None:
        if result:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))

    check(libc.unshare(_NEW_MOUNTS))
    check(libc.mount(None, b"/", None, _RECURSIVE | _PRIVATE, None))
    prefix, place = Path(sys.base_prefix), Path("/mnt")
    check(libc.mount(b"sandbox-test", bytes(place), b"tmpfs", 0, b"mode=755"))
    for source, name in ((prefix, "python"), (ROOT, "project")):
        (place / name).mkdir()
        check(libc.mount(bytes(source), bytes(place / name), None, _BIND | _RECURSIVE, None))
    os.setgroups([])
    os.setresgid(USER, USER, USER)
    os.setresuid(USER, USER, USER)
    interpreter = place / "python" / "bin" / f"python{sys.version_info.major}.{sys.version_info.minor}"
    os.chdir("/")
    os.execve(
        interpreter, [interpreter, "-B", place / "project" / script.relative_to(ROOT), *arguments], {"PATH": "/usr/bin"}
    )


def main(level: str, numpy: bool) -> dict:
    """numpy: in children of the fork server that has numpy loaded."""
    sys.path.insert(0, str(ROOT))
    from sandbox import Job, Limits, Sandbox, TestCase

    programs = runpy.run_path(str(Path(__file__).with_name("hostile_programs.py")))
    hasty = Limits(cpu_time_s=0.5, wall_time_s=3.0, memory_mb=256, output_kb=256)
    patient = Limits(cpu_time_s=10, wall_time_s=60, memory_mb=256, output_kb=256)  # for what must end before its time
    first = "import numpy\n" if numpy else ""
    honest = Job(first + "print(int(input()) + 1)", [TestCase("1", "2")], Limits(cpu_time_s=10, wall_time_s=60))
    os.environ["SANDBOX_TEST_SECRET"] = "secret"
    with contextlib.ExitStack() as stack:
        victim = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
        stack.callback(victim.kill)
        abstract = f"sandbox-test-{os.getpid()}"
        listener = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM))
        listener.bind("\0" + abstract)
        listener.setblocking(False)
        secret = stack.enter_context(tempfile.NamedTemporaryFile("w", suffix=".secret"))
        secret.write("a secret")
        secret.flush()
        os.chmod(secret.name, 0o666)
        names = f"VICTIM, JUDGE, ABSTRACT, SECRET = {victim.pid}, {os.getpid()}, {abstract!r}, {secret.name!r}\n"
        jobs = {}
        for kind in ("REFUSED", "OUTWARD", "READING"):
            for name, code in programs[kind].items():
                jobs[name] = Job(first + programs["ATTEMPT"] + names + code, [TestCase("", "STOLEN")], hasty)
        for name, (code, verdicts) in programs["EXHAUSTING"].items():
            jobs[name] = Job(first + code, [TestCase("", "never")], hasty if "time limit" in verdicts else patient)
        for name, code in programs["DISHONEST_VALUES"].items():
            jobs[name] = Job(first + code, [TestCase("1", "42", "functional", "f")], hasty)
        before = (
            os.sched_getaffinity(0),
            os.sched_getaffinity(victim.pid),
            os.getpriority(os.PRIO_PROCESS, victim.pid),
        )
        with Sandbox(workers=4, isolation=level) as sandbox:
            while numpy and not sandbox._engine._warm.is_ready:
                sandbox.judge(honest.code, honest.tests, honest.limits)
                time.sleep(0.1)
            judgements = sandbox.judge_many([job for hostile in jobs.values() for job in (hostile, honest)])
            level = sandbox.report["level"]
        after = (os.sched_getaffinity(0), os.sched_getaffinity(victim.pid), os.getpriority(os.PRIO_PROCESS, victim.pid))
        received = []
        with contextlib.suppress(BlockingIOError):
            received.append(listener.recv(64).decode())
        time.sleep(0.1)
        outside = {
            "victim": victim.poll(),
            "scheduling unchanged": before == after,
            "received": received,
            "secret": Path(secret.name).read_text(),
            "traces": [path for path in ("/tmp/trace_of_a_program", "trace_of_a_program") if Path(path).exists()],
        }
    told = {
        name: {"verdict": j.verdict.value, "stdout": j.tests[0].stdout or "", "message": j.tests[0].message}
        for name, j in zip(jobs, judgements[::2], strict=True)
    }
    honest_verdicts = sorted({j.verdict.value for j in judgements[1::2]})
    return {"level": level, "user": os.getuid(), "programs": told, "honest": honest_verdicts, "outside": outside}


if __name__ == "__main__":
    if sys.argv[2:] == ["nobody"]:
        as_nobody(Path(__file__).resolve(), sys.argv[1:2])
    print(json.dumps(main(sys.argv[1], sys.argv[2:] == ["numpy"])))
