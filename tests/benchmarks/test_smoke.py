"""Every benchmark runs at small sizes and writes its record.  Times are never checked."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch
from transformers import Qwen3Config, Qwen3ForCausalLM

from benchmarks import busy, overlap, startup
from benchmarks.common import EXTRA_PACKAGES, ROOT
from benchmarks.gpu import learner_step, padded_step


def run(name: str, output, *arguments: str) -> dict:
    command = [sys.executable, "-m", f"benchmarks.{name}", "--small", "--repeats", "1", "--output", str(output)]
    done = subprocess.run([*command, *arguments], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    record = json.loads(output.read_text())
    assert record["small"] and all(len(row) == len(record["columns"]) for row in record["rows"])
    return record


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_linear_divergence(tmp_path):
    record = run("linear_divergence", tmp_path / "r.json", "--only", "linear_divergence, top 20", "--threads", "1")
    assert set(record["medians"]) == {"full logits", "linear_divergence", "linear_divergence, top 20"}
    assert all(m["seconds"] > 0 for m in record["medians"].values())
    for name, errors in record["relative_error"].items():
        assert 0 < max(errors.values()) < 1e-4, name


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_learner_step(tmp_path):
    record = run("learner_step", tmp_path / "r.json", "--threads", "1")
    assert record["counted"]["grpo"]["teacher"] == 0 < record["counted"]["sdpo"]["teacher"]
    assert record["counted"]["grpo"]["student"] == record["counted"]["sdpo"]["student"], "the same responses"
    assert record["predicted_ratio"] > 1 and record["measured_ratio"] > 0
    assert 0 < record["counted"]["own"]["teacher"] < record["counted"]["sdpo"]["teacher"]
    assert record["elsewhere_ratio"] > 0


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_scaling(tmp_path):
    record = run("scaling", tmp_path / "r.json")
    assert {p["ranks"] for p in record["points"]} == {1, 2}
    assert all(p["seconds"] > 0 and p["peak_bytes"] > 0 for p in record["points"])


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.skipif(not (EXTRA_PACKAGES / "trl").is_dir(), reason="TRL is not installed (make bench does it)")
def test_training_step_trl(tmp_path):
    record = run("training_step_trl", tmp_path / "r.json", "--threads", "1")
    assert set(record["samples"]) == {"grpo", "sdpo", "grpo, long tail", "sdpo, long tail"}
    assert all(s["tokens_per_second"]["trl"] > 0 for s in record["samples"].values())


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_packing(tmp_path):
    record = run("packing", tmp_path / "r.json")
    assert len(record["rows"]) == 4 and record["largest_difference"] < 1e-3, "the layouts must agree"


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_weight_update(tmp_path):
    record = run("weight_update", tmp_path / "r.json")
    (samples,) = record["samples"].values()
    (bucketed,), (single,) = samples["one bucket"], samples["one RPC per parameter"]
    assert bucketed["bytes"] == single["bytes"] and bucketed["rpcs"] == 1 < single["rpcs"]


@pytest.mark.timeout(120)
def test_continuous_in_simulated_time(tmp_path):
    found = run("continuous", tmp_path / "r.json", "--only", "simulation")["phases"]["simulated"]
    batch, ahead, continuous = (
        found[f"2 engines, {side}"]
        for side in ("synchronous, staleness 0", "synchronous, staleness 16", "continuous, staleness 16")
    )
    assert batch["lag"] == batch["oldest"] == 0 and continuous["oldest"] <= 16
    assert continuous["tokens_per_s"] > 3 * batch["tokens_per_s"]  # in simulated time: the same on every machine
    assert continuous["idle"] < batch["idle"] and continuous["lag"] < ahead["lag"] / 2


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_continuous_on_this_machine(tmp_path):
    samples = run("continuous", tmp_path / "r.json", "--only", "cpu")["samples"]
    assert set(samples) == {"synchronous, staleness 0", "continuous, staleness 4"}
    assert all(sample["tokens_per_s"] > 0 and sample["oldest"] <= 4 for found in samples.values() for sample in found)


def test_whole_steps_in_simulated_time(tmp_path):
    ratios = run("whole_step", tmp_path / "r.json", "--only", "simulation")["simulated"]["ratios"].values()
    grpo, inside, beside = ratios
    assert 1 == grpo < beside < inside


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_whole_steps_on_this_machine(tmp_path):
    record = run("whole_step", tmp_path / "r.json", "--only", "cpu")
    assert all(pair["counted"] > 1 and 1 < pair["bound"] < pair["counted"] for pair in record["steps"])
    assert record["ratio"] > 0


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_evaluation(tmp_path):
    samples = run("evaluation", tmp_path / "r.json")["samples"]
    assert [len(found) for found in samples.values()] == [1, 1]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_checkpoint(tmp_path):
    record = run("checkpoint", tmp_path / "r.json")
    for sides in record["samples"].values():
        [synchronous], [asynchronous] = sides["synchronous"], sides["asynchronous"]
        assert synchronous["waits"] == synchronous["written"] and asynchronous["waits"] < asynchronous["written"]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_safeguards(tmp_path):
    [sample] = run("safeguards", tmp_path / "r.json")["samples"][:1]
    assert sample["steps"] == 3 and 0 < sample["all"] < sample["seconds"]
    assert all(sample[kind] > 0 for kind in ("looks", "finite", "checksums"))


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_busy(tmp_path):
    record = run("busy", tmp_path / "r.json")
    assert len(record["rows"]) == 3 * len(busy.NEIGHBOURS) == len(record["factors"])
    assert record["factors"][f"{busy.SET}, 0"] == 1.0 and record["alone_ratio"] > 0


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_startup(tmp_path):
    record = run("startup", tmp_path / "r.json")
    [sample] = record["samples"]["this"]
    assert startup.MOMENTS.keys() - sample.keys() <= {startup.SEEN}, "a line that the run does not print"
    assert 0 < sample["Ray started"] < sample["engines serve"] < sample["weights published"]
    assert sample["weights published"] < sample[startup.LAST] < sample[startup.PROMPT]
    assert sample["start"] == sample[startup.FIRST] and sample["end"] > 0


def test_overlap_reads_run_folders(tmp_path):
    steps = [{"step": n, "train/pass_rate": 0.1 * n, "wall_clock_s": 10.0 + 3 * n} for n in range(1, 8)]
    ends = [{"step": n, "eval/held_out/pass@1": 0.1 * (n + 1), "wall_clock_s": w} for n, w in ((0, 9.0), (7, 40.0))]
    rows = [ends[0], *steps, ends[1]]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    read = overlap._read(tmp_path)
    assert read["wall_s"] == 31.0 - 9.0 and read["step_s"] == 3.0
    assert read["pass_at_start"] == 0.1 and read["pass_at_end"] == pytest.approx(0.8)
    assert read["pass_rate"] == pytest.approx(0.5)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", ["linear_divergence", "learner_step"])
def test_the_gpu_scripts_run(tmp_path, name):
    """On a CPU too, where --small is what they take."""
    only = ["--only", "full logits, top 20"] if name == "linear_divergence" else []  # the others compile for long
    record = run(f"gpu.{name}", tmp_path / "r.json", *only)
    assert record["rows"] and record["bounds_met"].keys() == {"time", "memory"}
    if name == "learner_step":
        other = "TRL" if (EXTRA_PACKAGES / "trl").is_dir() else "transformers, padded"
        assert record["other"] == other
        steps = ["SDPO", "GRPO", f"{other}: SDPO", f"{other}: GRPO", "SDPO ÷ GRPO"]
        assert [row[0] for row in record["rows"]] == steps


def test_a_padded_step_in_plain_transformers_has_the_gradients_of_the_learners():
    """On one batch: the losses of both are the same, padding takes no part."""
    torch.manual_seed(0)
    config = Qwen3Config(**learner_step.MODELS["tiny"])
    student, teacher = (Qwen3ForCausalLM(config) for _ in range(2))
    lengths = [(5, 9, 7), (5, 3, 12), (5, 6, 6)]
    batch = [
        learner_step._sequence(config, SimpleNamespace(prompt=p, response=r, teacher_prompt=t), torch.device("cpu"))
        for p, r, t in lengths
    ]
    for theirs in (None, teacher):
        found = []
        for side in ("own", "padded"):
            student.zero_grad()
            if side == "own":
                learner_step._step(student, batch, 4, theirs)
            else:
                padded_step._step(student, theirs, padded_step.padded(batch, student.device, theirs is not None))
            found.append({name: p.grad.clone() for name, p in student.named_parameters()})
        assert all(gradient.any() for gradient in found[0].values())
        torch.testing.assert_close(found[1], found[0], rtol=1e-3, atol=1e-6)


@pytest.mark.slow
def test_all_gpu_scripts_run_where_they_stopped(tmp_path):
    """The attention, which is quick; of the others the records are there."""
    others = [
        tmp_path / f"{name}.json" for name in ("linear_divergence", *(f"learner_step_{n}B" for n in (0.6, 1.7, 8)))
    ]
    for path in others:
        path.write_text("{}")
    command = [ROOT / "benchmarks" / "gpu" / "run_all.sh", tmp_path, "--small"]
    environment = os.environ | {"PYTHON": sys.executable}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "attention.json").read_text())["rows"]
    assert done.stdout.count("left out") == len(others) and all(path.read_text() == "{}" for path in others)
    done = subprocess.run([*command, "--smal"], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 2 and "--smal is unknown" in done.stderr


@pytest.mark.slow
def test_the_gpu_scripts_import_nothing_heavy():
    """torch, triton and transformers are all that a machine for kernels must have; of this project, the losses and
    the counting of their arithmetic."""
    code = """
import sys
from argparse import Namespace
import benchmarks.gpu.learner_step, benchmarks.gpu.linear_divergence
from benchmarks.common import Record
Record("r", Namespace(small=True, output=None))
print(*(name for name in sys.modules if name.split(".")[0] in {"sdpo", "vllm", "ray", "deepspeed", "wandb", "trl"}))
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    imported = done.stdout.split()
    assert "sdpo.losses.linear" in imported
    counted = {"sdpo", "sdpo.learner", "sdpo.learner.arithmetic"}
    assert all(name in counted or name.startswith("sdpo.losses") for name in imported), imported


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_reward_functions(tmp_path):
    record = run("reward_functions", tmp_path / "r.json")
    assert set(record["samples"]) == {"alone", "attacked"} and record["ratio"] > 0
