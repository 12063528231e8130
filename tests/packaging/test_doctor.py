"""The doctor on the real machine, and on machines that lack something."""

from __future__ import annotations

import io
import os
import shutil
import sys
from pathlib import Path

import pytest
from rich.console import Console

from sdpo.cli import doctor
from sdpo.cli.doctor import Check


@pytest.fixture(autouse=True)
def quiet_environment(monkeypatch):
    for name in ("RAY_ADDRESS", "PROFILE", "WANDB_MODE", "WANDB_API_KEY"):
        monkeypatch.delenv(name, raising=False)


def test_this_machine_can_run_the_tests():
    checks = doctor.report()
    assert {c.group for c in checks} == {"Tools", "Packages", "Machine", "Devices", "Sandbox", "Services"}
    found = {c.name: c for c in checks}
    assert found["Python"].status == "ok"
    assert found["lock file"].status == "ok", found["lock file"]
    assert found["weight transfer plugin"].found == "registered"
    assert found["CPU cores"].found == str(len(os.sched_getaffinity(0)))
    assert found["isolation"].found.split()[0] in ("namespaces", "landlock", "seccomp")
    problems = [c for c in checks if c.status == "problem"]
    assert not problems


def test_packages_that_differ_from_the_lock(monkeypatch, tmp_path):
    (tmp_path / "requirements").mkdir()
    kind = "gpu" if "vllm" in doctor.installed_versions() else "cpu"
    (tmp_path / "requirements" / f"{kind}.lock").write_text("# comment\nrich==0.1\nno-such-package==1.0\n")
    monkeypatch.setattr(doctor, "PROJECT", tmp_path)
    found = {c.name: c for c in doctor._packages(kind)}
    assert found["missing"].status == "problem" and found["missing"].found == "no-such-package"
    assert "rich" in found["other versions"].found and "(lock: 0.1)" in found["other versions"].found
    assert f"make setup PROFILE={kind}" in found["missing"].remedy
    assert found["lock file"].found == "0 of 2 as locked"


def test_packages_of_the_other_profile():
    kind, other = ("gpu", "cpu") if "vllm" in doctor.installed_versions() else ("cpu", "gpu")
    found = {c.name: c for c in doctor._packages(other)}
    assert found["profile"].status == "problem"
    assert found["profile"].remedy == f"make setup PROFILE={other}"


def test_no_lock_file(monkeypatch, tmp_path):
    monkeypatch.setattr(doctor, "PROJECT", tmp_path)
    found = {c.name: c for c in doctor._packages("cpu")}
    assert found["lock file"].status == "problem" and "git checkout requirements" in found["lock file"].remedy


def _distribution(site: Path, name: str, package: str) -> None:
    """What an installer leaves of a distribution with one top-level package."""
    info = site / f"{name}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (info / "top_level.txt").write_text(package)
    (info / "RECORD").write_text(f"{package}/__init__.py,,\n")
    (site / package).mkdir()
    (site / package / "__init__.py").write_text("")


def test_another_distributions_sandbox_is_named(monkeypatch, tmp_path):
    assert doctor._sandbox_package().status == "ok"
    _distribution(tmp_path, "castle-builder", "sandbox")
    monkeypatch.syspath_prepend(tmp_path)
    beside = doctor._sandbox_package()  # ours is imported already, theirs lies beside it
    assert beside.status == "warning" and "castle-builder brings a package of this name too" in beside.found
    for name in [name for name in sys.modules if name.split(".")[0] == "sandbox"]:
        monkeypatch.delitem(sys.modules, name)
    instead = doctor._sandbox_package()
    assert instead.status == "problem" and f"{tmp_path}/sandbox/__init__.py is imported in place of" in instead.found
    assert "pip uninstall -y castle-builder" in instead.remedy


def test_an_installed_wheel_is_checked_against_what_it_asks_for(monkeypatch, tmp_path):
    kind = "gpu" if "vllm" in doctor.installed_versions() else "cpu"
    monkeypatch.setattr(doctor, "is_checkout", lambda: False)
    assert {c.name: c for c in doctor._packages(kind)}["requirements"].status == "ok"
    _distribution(tmp_path, "ray", "ray")  # version 1.0, found before the real one
    monkeypatch.syspath_prepend(tmp_path)
    lacking = next(doctor._against_requirements(kind))
    assert lacking.status == "problem" and "ray" in lacking.found and "(1.0)" in lacking.found
    assert f"pip install 'sdpo[{kind}]'" in lacking.remedy


def test_wandb_is_optional(monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    assert doctor._wandb().status == "ok" and "not installed" in doctor._wandb().found


def test_tools_that_are_missing(monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    found = {c.name: c for c in doctor._python("cpu")}
    assert found["C++ compiler"].status == "problem" and "apt install g++" in found["C++ compiler"].remedy


@pytest.mark.parametrize(("address", "status"), [("127.0.0.1:9", "problem"), ("nonsense", "problem"), ("local", "ok")])
def test_ray_address(monkeypatch, address, status):
    monkeypatch.setenv("RAY_ADDRESS", address)
    check = doctor._ray()
    assert check.status == status
    if status == "problem":
        assert address in check.found and "ray start --head" in check.remedy


def test_wandb_online_without_an_account(monkeypatch, tmp_path):
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))
    assert doctor._wandb().found == "offline (no account)"
    monkeypatch.setenv("WANDB_MODE", "online")
    assert doctor._wandb().status == "warning"


def test_little_room(monkeypatch):
    monkeypatch.setattr(doctor, "_SMALL_DISK", shutil.disk_usage(doctor.PROJECT).total + 1)
    check = next(c for c in doctor._machine("cpu") if c.name.startswith("disk"))
    assert check.status == "warning" and "old checkpoints" in check.remedy


def test_exit_status_and_remedies_on_one_line(capsys):
    long = "step " * 60
    lines = [Check("A", "one", "ok", "fine"), Check("A", "two", "warning", "[Errno 5] so so", long.strip())]
    assert doctor.main(lambda: lines) == 0
    out = capsys.readouterr().out
    assert long.strip() in out, "a remedy is copied whole, so it is never wrapped"
    assert "[Errno 5] so so" in out
    assert doctor.main(lambda: [*lines, Check("B", "three", "problem", "gone", "bring it back")]) == 1


def test_a_problem_without_a_remedy_cannot_be_written():
    with pytest.raises(ValueError, match="remedy"):
        Check("A", "one", "problem", "gone")


def test_render_groups_once():
    console = Console(file=io.StringIO(), width=100)
    doctor.render([Check("Tools", "a", "ok", "1"), Check("Tools", "b", "ok", "2")], console)
    assert console.file.getvalue().count("Tools") == 1


def test_a_bundled_policy_that_is_missing_is_named(monkeypatch, tmp_path):
    def found():
        return next(check for check in doctor._hugging_face("cpu") if check.name == "bundled policies")

    for name in doctor.POLICIES:
        (tmp_path / "policies" / name).mkdir(parents=True)
        (tmp_path / "policies" / name / "config.json").touch()
    monkeypatch.setattr(doctor, "BUNDLED", tmp_path)
    assert (found().status, found().found) == ("ok", "minicode, minitools")
    (tmp_path / "policies" / "minitools" / "config.json").unlink()
    assert found().status == "problem" and "missing: minitools" in found().found and found().remedy
