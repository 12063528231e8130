"""Every part of a run killed and stopped in every phase: the run goes on by itself, and its weights are the same."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from contextlib import contextmanager

import numpy as np
import psutil
import pytest
from safetensors.numpy import load_file

from sdpo.training.supervision import Supervision
from sdpo.training.trainer import Trainer
from tests.helpers.training import make_recipe, run

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(3000), pytest.mark.slow]

KILL, STOP = signal.SIGKILL, signal.SIGSTOP
CORE, ACTOR, RANK_0, RANK_1 = "its vLLM core", "its actor", "learner rank 0", "learner rank 1"
# step → (phase, whom, how, seconds after the phase began)
ENGINES = {
    1: ("generate", CORE, KILL, 0.3),
    2: ("generate", CORE, STOP, 0.3),
    3: ("generate", ACTOR, KILL, 0.3),
    4: ("update", CORE, KILL, 0.1),
    5: ("update", ACTOR, STOP, 0.1),
    6: ("publish", CORE, KILL, 0.0),
    7: ("publish", CORE, STOP, 0.0),
    8: ("publish", ACTOR, KILL, 0.02),
}
RANKS = {
    1: ("generate", RANK_1, KILL, 0.3),
    2: ("update", RANK_1, KILL, 0.1),
    3: ("update", RANK_0, STOP, 0.1),
    4: ("checkpoint", RANK_1, KILL, 0.0),
    5: ("publish", RANK_0, KILL, 0.01),
    6: ("publish", RANK_1, STOP, 0.0),
}


class StruckTrainer(Trainer):
    """Strikes each blow of `blows` once, when its phase of its step begins."""

    blows: dict = {}

    def __init__(self, *parts):
        super().__init__(*parts)
        self.left, self.struck = dict(self.blows), []
        whole = self.tracker.phase

        @contextmanager
        def phase(name, *args, **kwargs):
            step = self.state.step + (name not in ("checkpoint",))
            if step in self.left and self.left[step][0] == name:
                _, whom, how, delay = self.left.pop(step)
                asyncio.get_running_loop().call_later(delay, self.strike, whom, how)
            with whole(name, *args, **kwargs) as shown:
                yield shown

        self.tracker.phase = phase

    def strike(self, whom, how):
        parts = [*self.pool.parts, *self.learner.parts]
        found = [pid for part in parts for pid, role in part.processes.items() if whom in (part.name, role)]
        if not found:  # the one before is being replaced
            asyncio.get_running_loop().call_later(0.05, self.strike, whom, how)
            return
        [number] = found
        os.kill(number, how)
        self.struck.append((time.monotonic(), number))


async def train(recipe, path, workers, learner_for, blows):
    kind = type("Struck", (StruckTrainer,), {"blows": blows})
    pool, learner = workers
    async with Supervision(recipe.supervision, pool, learner, print):
        return await run(recipe, path, workers, learner_for, kind)


def weights(folder):
    return load_file(folder.checkpoints / "last" / "policy" / "model.safetensors")


@pytest.mark.parametrize("blows", [RANKS, ENGINES], ids=["ranks", "engines"])
async def test_a_struck_run_ends_with_the_weights_of_an_undisturbed_one(blows, workers, learner_for, tmp_path):
    recipe = make_recipe("sdpo", f"run.steps={len(blows) + 1}", "tracking.wandb=disabled")
    _, whole = await train(recipe, tmp_path / "whole", workers, learner_for, {})
    trainer, struck = await train(recipe, tmp_path / "struck", workers, learner_for, blows)
    assert not trainer.left and len(trainer.struck) == len(blows)
    assert not any(psutil.pid_exists(number) for _, number in trainer.struck)
    expected, found = weights(whole), weights(struck)
    assert expected.keys() == found.keys()
    for name, value in expected.items():
        np.testing.assert_array_equal(value, found[name], err_msg=name)
    assert [row["step"] for row in struck.metrics] == [row["step"] for row in whole.metrics]
    losses = ("learner/loss", "learner/grad_norm", "response/tokens")
    for ours, theirs in zip(struck.metrics, whole.metrics, strict=True):
        assert {name: ours.get(name) for name in losses} == {name: theirs.get(name) for name in losses}
    events = json.loads((struck.path / "run.json").read_text())["events"]
    assert len(events) == len(blows), events
    for event, (_, whom, how, _) in zip(events, blows.values(), strict=True):
        assert whom in (event["part"], event["cause"][: len(whom)]), event
        assert ("SIGKILL" if how == KILL else "stopped") in event["cause"], event
