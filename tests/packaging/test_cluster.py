"""The Slurm script and the KubeRay manifest: read here, and the script run with one machine in the place of Slurm's."""

from __future__ import annotations

import gzip
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys

import pytest
import yaml
from jsonschema import Draft202012Validator
from referencing import Registry, Resource

from sdpo.cli import _parser
from sdpo.config.files import find_recipe, load_recipe
from sdpo.config.paths import PROJECT
from sdpo.training.interrupt import END_LIMIT_S, SAVE_LIMIT_S

SLURM = PROJECT / "cluster" / "slurm.sbatch"
DATA = PROJECT / "tests" / "data"
SCHEMA = json.loads((DATA / "rayjob.schema.json").read_text())
PODS = Resource.from_contents(json.loads(gzip.decompress((DATA / "pod_template.schema.json.gz").read_bytes())))


@pytest.fixture
def job() -> dict:
    return yaml.safe_load((PROJECT / "cluster" / "rayjob.yaml").read_text())


def errors(manifest: dict) -> list[str]:
    validator = Draft202012Validator(SCHEMA, registry=Registry().with_resource(PODS.id(), PODS))
    return [f"{error.json_path}: {error.message}" for error in validator.iter_errors(manifest)]


def recipe_of(command: list[str]):
    """The recipe of `sdpo train …`, loaded as the command would on a cluster."""
    options = _parser().parse_args(command)
    return load_recipe(find_recipe(options.recipe, options.algorithm), "gpu", options.overrides)


def test_the_manifest_is_a_rayjob(job):
    assert errors(job) == []
    worker = job["spec"]["rayClusterSpec"]["workerGroupSpecs"][0]["template"]["spec"]
    worker["container"] = []
    worker["containers"][0]["securityContext"] = {"runAsUser": "root"}
    worker["containers"][0]["resources"]["limits"]["memory"] = "512GB"
    job["spec"]["ttlSecondsAfterFinish"] = 1
    del job["spec"]["rayClusterSpec"]["headGroupSpec"]["rayStartParams"]
    assert len(found := errors(job)) == 5, found


def test_the_manifest_runs_what_is_locked_where_every_pod_sees_it(job):
    spec = job["spec"]
    command = shlex.split(spec["entrypoint"])
    assert command[:3] == ["exec", "sdpo", "train"]
    run = recipe_of(command[2:]).run
    wait = int(yaml.safe_load(spec["runtimeEnvYAML"])["env_vars"]["RAY_JOB_STOP_WAIT_TIME_S"])
    assert wait >= run.stop_limit_s + SAVE_LIMIT_S + END_LIMIT_S
    cluster = spec["rayClusterSpec"]
    assert f"ray=={cluster['rayVersion']}\n" in (PROJECT / "requirements" / "gpu.lock").read_text()
    assert spec["shutdownAfterJobFinishes"] or not spec["ttlSecondsAfterFinished"]
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        pod = group["template"]["spec"]
        mounts = {mount["name"]: mount["mountPath"] for mount in pod["containers"][0]["volumeMounts"]}
        assert mounts.keys() == {volume["name"] for volume in pod["volumes"]}
        assert run.directory.startswith(mounts["shared"])
    assert "USER 10001" in (PROJECT / "docker" / "Dockerfile.gpu").read_text()
    assert pod["securityContext"]["runAsUser"] == 10001


def test_the_script_is_sound_and_gives_a_run_the_time_to_stop():
    assert subprocess.run(["bash", "-n", str(SLURM)]).returncode == 0
    if (shellcheck := shutil.which("shellcheck")) is not None:
        done = subprocess.run([shellcheck, str(SLURM)], capture_output=True, text=True)
        assert done.returncode == 0, done.stdout
    text = SLURM.read_text()
    run = recipe_of(["train", "livecodebench"]).run
    notice = int(re.search(r"--signal=B:TERM@(\d+)", text)[1])
    assert notice >= run.stop_limit_s + SAVE_LIMIT_S + END_LIMIT_S
    assert not re.search(r"^#SBATCH", text[text.index("set -euo") :], re.MULTILINE), "Slurm reads none after a command"


@pytest.fixture
def slurm(tmp_path):
    """One machine as a job of two: `srun` runs its command here."""
    commands = {
        "bin/scontrol": "echo here; echo there",
        "bin/srun": 'while [[ $1 == --* ]]; do shift; done; exec "$@" --num-cpus=1',
        "sdpo/.venv/bin/python": f'exec {sys.executable} "$@"',
        "sdpo/.venv/bin/ray": f'exec {sys.executable} -m ray.scripts.scripts "$@"',
        "sdpo/.venv/bin/sdpo": f'exec {sys.executable} -m sdpo.cli "$@"',
    }
    for name, text in commands.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(f"#!/bin/bash\n{text}\n")
        (tmp_path / name).chmod(0o755)
    environment = {
        **os.environ, "PATH": f"{tmp_path}/bin:{os.environ['PATH']}", "SDPO": str(tmp_path / "sdpo"),
        "SLURM_JOB_ID": str(os.getpid()), "SLURM_NNODES": "2", "SLURM_JOB_NODELIST": "two", "PYTHONUNBUFFERED": "1",
        "PYTHONPATH": str(PROJECT), "WANDB_MODE": "offline",
    }  # fmt: skip
    environment.pop("RAY_ADDRESS", None)

    def start(*words: str) -> subprocess.Popen:
        return subprocess.Popen(
            ["bash", str(SLURM), *words], env=environment, cwd=tmp_path, text=True, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip

    yield start
    shutil.rmtree(f"/tmp/ray-{os.getpid()}", ignore_errors=True)


def test_the_script_asks_for_what_it_needs(slurm, monkeypatch):
    done = slurm()
    assert "say which recipe" in done.communicate()[0] and done.returncode == 2


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_two_machines_join_and_a_signal_reaches_the_run_alone(slurm):
    script, said = slurm("livecodebench", "--profile", "cpu", "tracking.wandb=disabled"), ""
    try:
        for line in script.stdout:
            said += line
            if line.startswith("Profile cpu"):
                break
        os.kill(script.pid, signal.SIGTERM)
        said += script.communicate(timeout=200)[0]
    finally:
        if script.poll() is None:
            os.killpg(script.pid, signal.SIGKILL)
    assert script.returncode == 130 and "2 of 2 machines have joined Ray" in said, said
    assert "Stopped by SIGTERM" in said and "Traceback" not in said, said
