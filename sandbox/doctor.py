"""What isolation this machine offers, in words."""

from __future__ import annotations

from .client import Sandbox
from .errors import SandboxError
from .types import TestCase

MEANING = {
    "namespaces": "user, mount, network, pid, IPC and host-name namespaces + Landlock + seccomp",
    "landlock": "Landlock + seccomp",
    "seccomp": "seccomp only: programs can read what this user can read, but write nothing; never chosen by auto",
    "none": "none",
}


def examine() -> dict:
    """`level`, `meaning`, `missing` (feature → reason), `works` (a program was judged), `problem` where none can be."""
    try:
        with Sandbox(workers=1, pool=1) as sandbox:
            works = sandbox.judge("print(int(input()) + 1)", [TestCase("1", "2")]).passed
            report = dict(sandbox.report)
    except SandboxError as error:
        return {"level": None, "meaning": MEANING["none"], "missing": {}, "works": False, "problem": str(error)}
    missing = dict(report["missing"])
    if report["level"] == "namespaces" and not report["landlock_abi"]:
        missing.setdefault("landlock", "not offered by this kernel")
    if report["level"] == "namespaces" and not report["proc"]:
        missing["/proc/self/fd"] = "programs cannot open /dev/stdin by name (open(0) and sys.stdin work)"
    if report["users"] == 1 and report["level"] != "none":
        missing.setdefault("user ids", "one for all programs: their threads are not counted one by one")
    return report | {"meaning": MEANING[report["level"]], "missing": missing, "works": works, "problem": None}
