"""`sdpo submit`: what it refuses and what it sends; and, where Ray has a job server (ray[default]), real jobs."""

from __future__ import annotations

import ast
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import zipfile
from pathlib import Path

import pytest

from sdpo.cli import main
from sdpo.cli.job_environment import LARGEST_FILE, entrypoint, large_files, runtime_environment
from sdpo.config.files import find_recipe, load_recipe
from sdpo.config.paths import PROJECT
from sdpo.errors import UserError
from sdpo.tracking import provenance
from tests.helpers.commands import COMMAND, SDPO

ADDRESS = "http://127.0.0.1:1"  # where nothing listens


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["livecodebench", "run.directory=/r"], "give the address of the cluster's dashboard: http://HOST:8265"),
        (
            ["livecodebench", "run.directory=/r", "--address", "head:6379"],
            "give the address of the cluster's dashboard",
        ),
        (["livecodebench", "run.directory=/r", "--address", ADDRESS], "Nothing answers at http://127.0.0.1:1.*tunnel"),
        (["livecodebench", "--address", ADDRESS], "run.directory=runs would lie in the job's copy.*/shared/runs"),
        (["/OUTSIDE/my.yaml", "run.directory=/r", "--address", ADDRESS], "my.yaml does not lie in .*recipe's folder"),
        (["livecodebench", "learner.lrr=1", "--address", ADDRESS], "Did you mean"),
        (["livecodebench", "--stop", "x", "--address", ADDRESS], "Give one of"),
        (["--stop", "x", "--logs", "y", "--address", ADDRESS], "Give one of"),
        (["--stop", "x", "--env", "HOME", "--address", ADDRESS], "options of a run have no effect"),
        (["livecodebench", "run.directory=/r", "--env", "NO_SUCH", "--address", ADDRESS], "no such variable is set"),
        (["livecodebench", "run.directory=/r", "--pip", "absent.lock", "--address", ADDRESS], "absent.lock cannot be"),
    ],
)
def test_what_cannot_work_is_refused_with_the_remedy(words, says, capsys, tmp_path, monkeypatch):
    (tmp_path / "my.yaml").write_text("extends: recipes/livecodebench/sdpo.yaml\n")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert main(["submit", *(word.replace("/OUTSIDE", str(tmp_path)) for word in words)]) == 2
    assert re.search(says, capsys.readouterr().err)


def test_something_else_than_a_dashboard_is_named(capsys, tmp_path, monkeypatch):
    """A server that closes every connection, as Ray's other ports do for HTTP."""
    monkeypatch.chdir(tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as server:

        def close_all():
            while True:
                try:
                    server.accept()[0].close()
                except OSError:
                    return

        threading.Thread(target=close_all, daemon=True).start()
        address = f"http://127.0.0.1:{server.getsockname()[1]}"
        assert main(["submit", "--status", "x", "--address", address]) == 2
        server.shutdown(socket.SHUT_RDWR)
    assert "Is this the address of a Ray dashboard" in capsys.readouterr().err


def recipe():
    return load_recipe(find_recipe("livecodebench", "sdpo"), "cpu", ["run.directory=/shared/runs"])


def test_variables_are_handed_on_by_name_and_a_stop_has_its_time(tmp_path, monkeypatch):
    for name in ("WANDB_API_KEY", "HF_TOKEN", "WANDB_ENTITY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("WANDB_API_KEY", "secret")
    monkeypatch.setenv("MY_REWARD", "a")
    environment = runtime_environment(tmp_path, recipe(), ["MY_REWARD"], None)
    variables = environment["env_vars"]
    assert variables["WANDB_API_KEY"] == "secret" and variables["MY_REWARD"] == "a" and "HF_TOKEN" not in variables
    assert int(variables["RAY_JOB_STOP_WAIT_TIME_S"]) >= 150 and variables[provenance.COMMIT] == provenance.commit()
    assert "pip" not in environment and environment["working_dir"] == str(tmp_path)


def sent(folder: Path, excludes: list[str]) -> set[str]:
    """What Ray itself would pack."""
    from ray._private.runtime_env.packaging import create_package

    with tempfile.TemporaryDirectory() as out:
        create_package(str(folder), Path(out) / "p.zip", True, excludes=excludes)
        return set(zipfile.ZipFile(Path(out) / "p.zip").namelist())


@pytest.mark.parametrize("git", [True, False])
def test_the_folder_goes_without_runs_environments_and_large_files(tmp_path, git):
    wanted = {"mine.yaml", "rewards.py", "my/runs/rows.jsonl"}
    for name in (*wanted, "runs/a/metrics.jsonl", ".venv/bin/python", "build/x"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x")
    with open(tmp_path / "model.safetensors", "wb") as file:
        file.truncate(LARGEST_FILE + 1)
    if git:
        subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    assert large_files(tmp_path) == ["model.safetensors"]
    excludes = runtime_environment(tmp_path, recipe(), [], None)["excludes"]
    assert {name for name in sent(tmp_path, excludes) if not name.endswith("/")} == wanted


def test_a_folder_that_is_too_large_is_refused_with_what_makes_it_so(tmp_path):
    for i in range(9):
        (tmp_path / "data").mkdir(exist_ok=True)
        with open(tmp_path / "data" / f"{i}.jsonl", "wb") as file:
            file.truncate(LARGEST_FILE)
    with pytest.raises(UserError, match=r"450.0 MiB: data 450.0 MiB.*\.rayignore"):
        large_files(tmp_path)
    (tmp_path / ".gitignore").write_text("data\n")
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    assert large_files(tmp_path) == []


def test_a_checkout_can_be_sent_and_has_all_that_a_run_reads():
    names = sent(PROJECT, runtime_environment(PROJECT, recipe(), [], None)["excludes"])
    assert {
        "sdpo/cli/__main__.py", "sandbox/server.py", "recipes/livecodebench/sdpo.yaml", "requirements/gpu.lock",
        "policies/minicode/model.safetensors",
    } <= names  # fmt: skip
    assert not [name for name in names if name.startswith((".git/", ".venv/", "runs/"))]


def test_packages_are_those_of_the_lock_and_sdpo_itself(tmp_path):
    lock = PROJECT / "requirements" / "gpu.lock"
    pip = runtime_environment(PROJECT, recipe(), [], lock)["pip"]
    packages = pip["packages"]
    assert "--no-deps" in pip["pip_install_options"] and packages[-1].startswith("${RAY_RUNTIME_ENV")
    assert [name for name in packages if name.startswith("vllm==")] and not [name for name in packages if "#" in name]
    assert runtime_environment(tmp_path, recipe(), [], lock)["pip"]["packages"] == packages[:-1]


def test_the_command_survives_the_shell():
    words = ["data.window=[2025-02-01, 2025-05-01]", "name=a 'b' $HOME"]
    command = entrypoint("/opt/python", "mine.yaml", ["--algorithm", "grpo"], words)
    shell = command.replace("/opt/python -m sdpo.cli", f"{sys.executable} -c 'import sys; print(sys.argv[1:])'")
    said = subprocess.run(shell, shell=True, capture_output=True, text=True, check=True).stdout
    assert ast.literal_eval(said) == ["train", "--algorithm", "grpo", "mine.yaml", *words]


# ---- with a job server ----


@pytest.fixture(scope="module")
def server():
    """A cluster of this machine with a dashboard and a token, and its environment."""
    pytest.importorskip("ray.dashboard.optional_deps", reason="the job server needs ray[default], which gpu.lock has")
    # The agent takes jobs; on its usual port it fails where another Ray of this machine has it.
    with socket.create_server(("127.0.0.1", 0)) as free, socket.create_server(("127.0.0.1", 0)) as other:
        port, agent_port = free.getsockname()[1], other.getsockname()[1]
    environment = {**os.environ, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "ab" * 32, "WANDB_MODE": "offline"}
    start = [sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--port=0", "--num-cpus=2", "--block"]
    with tempfile.TemporaryDirectory(prefix="ray-") as folder:
        head = subprocess.Popen(
            [*start, f"--dashboard-port={port}", f"--dashboard-agent-listen-port={agent_port}",
             f"--temp-dir={folder}", "--disable-usage-stats"],
            env=environment, start_new_session=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
        try:
            while True:
                assert head.poll() is None, head.stdout.read()
                try:
                    socket.create_connection(("127.0.0.1", port), 1).close()
                    break
                except OSError:
                    time.sleep(0.5)
            yield f"http://127.0.0.1:{port}", environment
        finally:
            head.send_signal(signal.SIGTERM)
            head.wait(60)


def submitted(server, *words: str) -> subprocess.Popen:
    address, environment = server
    return subprocess.Popen(
        [*SDPO, "submit", "--address", address, *words], cwd=PROJECT, text=True, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, env={**environment, "RAY_ADDRESS": "127.0.0.1:1", "PYTHONPATH": str(PROJECT)},
    )  # fmt: skip


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_job_trains_is_left_stopped_and_goes_on(server, tmp_path):
    job = ["livecodebench", "--profile", "cpu", "--python", sys.executable, *COMMAND[COMMAND.index("cpu") + 1 :]]
    job += [f"run.directory={tmp_path}", "tracking.wandb=disabled"]
    first, said = submitted(server, *job, "run.steps=500", "run.checkpoint_every=500"), ""
    for line in first.stdout:
        said += line
        if "step   1/500" in line:
            break
    first.send_signal(signal.SIGINT)  # the job goes on
    said += first.communicate()[0]
    assert first.returncode == 130 and "The job goes on" in said and "Traceback" not in said, said
    name = said.split("--stop ")[-1].split()[0]
    status = submitted(server, "--status", name)
    assert f"{name}: RUNNING" in status.communicate()[0] and status.returncode == 0
    stop = submitted(server, "--stop", name)
    assert "saves its last complete step" in stop.communicate()[0] and stop.returncode == 0
    followed = submitted(server, "--logs", name)
    said = followed.communicate()[0]
    assert followed.returncode == 130 and "step   1/500" in said and "was stopped" in said, said
    folder = tmp_path / "livecodebench-sdpo-seed0"
    info = json.loads((folder / "run.json").read_text())
    assert info["status"] == "interrupted" and info["commit"] == provenance.commit(), info
    done = int((folder / "checkpoints" / "last").resolve().name.split("-")[1])

    last = submitted(server, *job, f"run.steps={done + 1}")
    said = last.communicate()[0]
    assert last.returncode == 0 and "Finished." in said, said
    assert json.loads((folder / "run.json").read_text())["status"] == "finished"


@pytest.mark.slow
def test_a_job_that_fails_has_its_exit_status_and_its_reason(server, tmp_path):
    failing = submitted(
        server, "livecodebench", "--profile", "cpu", "--python", sys.executable, f"run.directory={tmp_path}",
        "model.path=/no/such/model", "name=failing",
    )  # fmt: skip
    said = failing.communicate()[0]
    assert failing.returncode == 2 and "error: Job failing-" in said and "/no/such/model" in said, said
    unknown = submitted(server, "--status", "absent")
    assert unknown.wait() == 2 and "knows no such job" in unknown.stdout.read()
    address, environment = server
    stranger = submitted((address, {**environment, "RAY_AUTH_TOKEN": "cd" * 32}), "--status", "absent")
    assert stranger.wait() == 2 and "asks for a token" in stranger.stdout.read()
