"""The images and the cluster are not built here: the files are linted and parsed, and every path in them followed."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from fnmatch import fnmatch
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
DOCKER = ROOT / "docker"


def services(name: str) -> dict:
    return yaml.safe_load((DOCKER / name).read_text())["services"]


def instructions(profile: str) -> list[tuple[str, str]]:
    """(INSTRUCTION, arguments) of a Dockerfile, continued lines joined."""
    text = re.sub(r"^#.*\n", "", (DOCKER / f"Dockerfile.{profile}").read_text(), flags=re.MULTILINE)
    lines = [line for line in re.sub(r"\\\n\s*", " ", text).splitlines() if line.strip()]
    return [tuple(line.split(maxsplit=1)) for line in lines]


@pytest.mark.parametrize("profile", ["cpu", "gpu"])
def test_dockerfile_copies_what_is_there_and_not_ignored(profile):
    ignored = (ROOT / ".dockerignore").read_text().split()
    sources = [word for name, rest in instructions(profile) if name == "COPY" for word in rest.split()[:-1]]
    assert "." in sources and "requirements" in sources
    for source in sources:
        assert (ROOT / source).exists(), source
        assert not any(fnmatch(source, pattern) for pattern in ignored), source


@pytest.mark.parametrize("profile", ["cpu", "gpu"])
def test_image_sets_up_its_profile_and_does_not_run_as_root(profile):
    steps = instructions(profile)
    assert any(name == "ENV" and f"PROFILE={profile}" in rest for name, rest in steps)
    assert any(name == "RUN" and rest.endswith("make setup") for name, rest in steps)
    user = [rest for name, rest in steps if name == "USER"]
    assert user and user[-1] not in ("root", "0")
    workdir = next(rest for name, rest in steps if name == "WORKDIR")
    assert any(name == "ENV" and f"{workdir}/.venv/bin" in rest for name, rest in steps)


@pytest.mark.parametrize("profile", ["cpu", "gpu"])
def test_hadolint_finds_nothing(profile):
    hadolint = shutil.which("hadolint", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    assert hadolint is not None, "it is in the lock: make setup"
    done = subprocess.run([hadolint, str(DOCKER / f"Dockerfile.{profile}")], capture_output=True, text=True)
    assert done.returncode == 0 and not done.stdout, done.stdout + done.stderr


def test_the_context_leaves_out_the_environment_and_the_runs():
    assert {".venv", "runs", ".git"} <= set((ROOT / ".dockerignore").read_text().split())


@pytest.mark.parametrize("name", ["compose.yaml", "compose.gpu.yaml"])
def test_compose_builds_from_files_that_exist(name):
    profile = "gpu" if "gpu" in name else "cpu"
    assert set(services(name)) == {"head", "worker"}
    for service in services(name).values():
        assert service["image"] == f"sdpo:{profile}"
        context = (DOCKER / service["build"]["context"]).resolve()
        assert context == ROOT
        assert (context / service["build"]["dockerfile"]).name == f"Dockerfile.{profile}"
        assert (context / service["build"]["dockerfile"]).exists()
        assert service["environment"]["PROFILE"] == profile


@pytest.mark.parametrize("name", ["compose.yaml", "compose.gpu.yaml"])
def test_workers_join_the_head(name):
    head, worker = (services(name)[part]["command"] for part in ("head", "worker"))
    port = re.search(r"--head --port=(\d+)", head).group(1)
    assert re.search(rf"--address=\S+:{port} ", worker)
    assert "--block" in head and "--block" in worker


def test_cluster_has_room_and_shares_the_runs():
    base = yaml.safe_load((DOCKER / "compose.yaml").read_text())
    for service in base["services"].values():
        assert service["shm_size"] == "8gb"
        assert service["environment"]["RAY_AUTH_MODE"] == "token"
        assert service["environment"]["RAY_AUTH_TOKEN"].startswith("${RAY_AUTH_TOKEN:?"), "never a token in the file"
        assert "runs:/opt/sdpo/runs" in service["volumes"]
        assert {volume.split(":")[0] for volume in service["volumes"]} <= set(base["volumes"])
    assert base["services"]["head"]["environment"]["RAY_ADDRESS"] == "auto"
    assert base["services"]["worker"]["depends_on"]["head"]["condition"] == "service_healthy"


def test_documented_make_targets_exist():
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    for page in (DOCKER / "README.md", ROOT / "docs" / "install.md"):
        code = "\n".join(re.findall(r"```.*?```|`[^`]+`", page.read_text(), flags=re.DOTALL))
        used = set(re.findall(r"\bmake ([a-z]+(?:-[a-z]+)*)\b", code))
        assert used and used <= targets, used - targets
