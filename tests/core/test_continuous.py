"""Continuous generation: what is begun when, what a step learns from, and that no response gains by being short."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass, field
from functools import cache

import numpy as np
import pytest

from benchmarks.simulated import SimulatedEngine, simulate
from sdpo.training.continuous import Continuous
from sdpo.training.prefetch import Prefetch

pytestmark = pytest.mark.timeout(120)

RESPONSES = 4


@dataclass
class Token:
    """One of a response's, and the version that sampled it."""

    group: int
    version: int


@dataclass
class Run:
    """A learner that takes `update` seconds a step, and engines that sample responses of these lengths."""

    lengths: np.ndarray  # [groups, RESPONSES], tokens
    size: int
    bound: int
    steps: int
    update: float = 3.0
    engines: int = 2
    slots: int = 16
    at_once: int = 0  # 0: a batch's
    mode: str = "continuous"
    version: int = 1
    learned: list[list[int]] = field(default_factory=list)  # numbers of the groups, step by step
    tokens: list[Token] = field(default_factory=list)
    begun: Counter = field(default_factory=Counter)
    ended: dict[int, float] = field(default_factory=dict)
    most: int = 0  # responses under way at once
    clock: list[float] = field(default_factory=list)  # when a step had its batch
    waits_begun: int = 0  # groups that began while the learner worked

    async def main(self) -> Run:
        self.pool = [SimulatedEngine(0.01, 0.001, self.slots) for _ in range(self.engines)]
        at_once = self.at_once or self.size * RESPONSES
        made: Continuous[int] | Prefetch[list[int]]
        if self.mode == "continuous":
            settings = {"size": self.size, "responses": RESPONSES, "at_once": at_once, "bound": self.bound}
            made = Continuous(self.group, **settings, done=0, last=self.steps)
        else:
            made = Prefetch(self.batch, self.bound, self.steps)
        for step in range(1, self.steps + 1):
            self.learned.append(await made.take(step, lambda done: None))
            self.clock.append(asyncio.get_running_loop().time())
            before = len(self.begun)
            await asyncio.sleep(self.update)
            self.waits_begun += len(self.begun) - before
            self.version += 1
        await made.close()
        return self

    async def batch(self, step: int, on_response) -> list[int]:
        numbers = range((step - 1) * self.size, step * self.size)
        return await asyncio.gather(*(self.group(number, on_response) for number in numbers))

    async def group(self, number: int, on_response) -> int:
        self.begun[number] += 1
        engine = min(self.pool, key=lambda each: each.load)
        sampled = [engine.generate(int(tokens)) for tokens in self.lengths[number]]
        await asyncio.gather(*(self.response(number, one, on_response) for one in sampled))
        self.ended[number] = asyncio.get_running_loop().time()
        return number

    async def response(self, number: int, sampling: asyncio.Future[float], on_response) -> None:
        self.tokens.append(Token(number, self.version))
        while not sampling.done():
            await asyncio.wait((sampling,), timeout=0.2)
            self.most = max(self.most, sum(each.load for each in self.pool) + sampling.done())
            self.tokens.append(Token(number, self.version))
        on_response(1)


def long_tailed(groups: int, seed: int) -> np.ndarray:
    """Log-normal, cut at 20 × the median."""
    drawn = np.exp(np.random.default_rng(seed).normal(0, 1.1, (groups, RESPONSES)))
    return np.minimum(20 * drawn, 20 * 20).astype(int).clip(1)


@cache
def made(size=6, bound=3, steps=12, seed=0, **options) -> Run:
    run = Run(long_tailed(size * steps, seed), size, bound, steps, **options)
    return simulate(run.main)


SETTINGS = [
    {"bound": 1},
    {"bound": 2, "update": 0.1},
    {"bound": 3, "update": 20.0},
    {"bound": 8, "seed": 1},
    {"bound": 3, "at_once": 8, "seed": 2},
    {"bound": 3, "at_once": 10_000, "seed": 3},
    {"bound": 2, "slots": 3, "seed": 4},
    {"bound": 5, "size": 1, "steps": 20, "seed": 5},
    {"bound": 40, "steps": 10},
]


@pytest.mark.parametrize("options", SETTINGS, ids=str)
def test_every_group_is_begun_and_learned_from_exactly_once(options):
    run = made(**options)
    assert all(len(batch) == run.size for batch in run.learned)
    learned = Counter(number for batch in run.learned for number in batch)
    assert learned == run.begun == Counter(range(run.size * run.steps))


@pytest.mark.parametrize("options", SETTINGS, ids=str)
def test_no_token_lags_by_more_versions_than_the_bound(options):
    run = made(**options)
    step = {number: step for step, batch in enumerate(run.learned, 1) for number in batch}
    lags = [step[token.group] - token.version for token in run.tokens]
    assert 0 <= min(lags) and max(lags) <= run.bound
    assert max(lags) == min(run.bound, run.steps - 1) or run.bound > 3  # … and it is made use of


def test_responses_as_long_as_in_synchronous_runs_are_learned_from():
    """The same ones, and at any time of the run as many long ones."""
    size, steps = 8, 80
    runs = {mode: made(size, 8, steps, mode=mode) for mode in ("continuous", "synchronous")}
    lengths = {mode: [run.lengths[batch].ravel() for batch in run.learned] for mode, run in runs.items()}
    assert sorted(np.concatenate(lengths["continuous"])) == sorted(np.concatenate(lengths["synchronous"]))
    settled = slice(16, 64)  # the first steps learn from what is ready first, the last ones from what is left
    means = {mode: np.concatenate(found[settled]).mean() for mode, found in lengths.items()}
    tails = {mode: np.mean(np.concatenate(found[settled]) > 100) for mode, found in lengths.items()}
    assert means["continuous"] == pytest.approx(means["synchronous"], rel=0.05)
    assert tails["continuous"] == pytest.approx(tails["synchronous"], rel=0.15)


def one_long(bound: int, **options) -> Run:
    """Group 2 takes as long as hundreds of others."""
    lengths = np.full((4 * 12, RESPONSES), 10)
    lengths[2, 1] = 5000
    return simulate(Run(lengths, 4, bound, 12, engines=1, **options).main)


@pytest.mark.parametrize("bound", [1, 3, 6])
def test_the_learner_goes_on_without_a_long_group_until_its_last_step(bound):
    run = one_long(bound)
    assert [step for step, batch in enumerate(run.learned, 1) if 2 in batch] == [1 + bound]
    assert run.clock[bound - 1] < run.ended[2] <= run.clock[bound]


def test_a_batch_is_what_got_ready_first_in_the_order_of_numbers():
    run = one_long(3)
    assert run.learned[0] == [0, 1, 3, 4] and run.learned[3][0] == 2
    assert all(batch == sorted(batch) for batch in run.learned)


def test_groups_begin_where_others_have_left_room():
    run = made(size=6, bound=20, update=5.0)
    assert run.most <= run.size * RESPONSES < run.engines * run.slots
    assert run.waits_begun > run.steps  # in the middle of steps
    assert made(size=6, bound=20, at_once=8).most == 8
    assert made(size=6, bound=20, at_once=1).most == RESPONSES  # a group at least


def test_where_the_learner_is_slower_no_more_waits_for_it_than_was_under_way_beside_a_batch():
    run = made(size=6, bound=20, steps=24, update=500.0)
    step = {number: step for step, batch in enumerate(run.learned, 1) for number in batch}
    lags = [step[token.group] - token.version for token in run.tokens]
    assert max(lags) <= 4 and np.mean(lags) < 2.5


def test_engines_sample_more_at_the_same_bound_than_batch_by_batch():
    run, other = (made(8, 8, 60, mode=mode, update=0.5) for mode in ("continuous", "synchronous"))
    busy = [sum(engine.busy_seconds for engine in each.pool) / len(each.pool) / each.clock[-1] for each in (run, other)]
    assert busy[0] > busy[1]


# --------------------------------------------------------------------------------------------- waits, failures, the end


class Maker:
    """Makes a group when it is told to."""

    def __init__(self):
        self.cancelled = []
        self.finish: dict[int, asyncio.Event] = {}

    @property
    def begun(self) -> list[int]:
        return list(self.finish)

    async def make(self, number, on_response):
        self.finish[number] = asyncio.Event()
        try:
            await self.finish[number].wait()
        except asyncio.CancelledError:
            self.cancelled.append(number)
            raise
        on_response(RESPONSES)
        return number

    def continuous(self, bound=2, done=0, last=9, at_once=100) -> Continuous[int]:
        settings = {"size": 2, "responses": RESPONSES, "at_once": at_once, "bound": bound}
        return Continuous(self.make, **settings, done=done, last=last)

    async def end(self, *numbers: int):
        for number in numbers:
            self.finish[number].set()
            await asyncio.sleep(0.001)


def asked(continuous, step, progress=lambda done: None):
    return asyncio.ensure_future(continuous.take(step, progress))


@pytest.mark.asyncio
async def test_so_many_begin_as_can_be_learned_from_in_time():
    maker = Maker()
    continuous = maker.continuous()
    batch = asked(continuous, 1)
    await asyncio.sleep(0.001)
    assert maker.begun == [0, 1, 2, 3, 4, 5]  # of steps 1, 2 and 3
    await maker.end(4, 1)
    assert await batch == [1, 4] and len(maker.begun) == 6
    batch = asked(continuous, 2)
    await asyncio.sleep(0.001)
    assert maker.begun == [0, 1, 2, 3, 4, 5, 6, 7]
    await maker.end(7, 6, 5)
    assert not batch.done()  # 0, 2, 3 and 5 fill the steps 2 and 3, which are their last ones
    await maker.end(0)
    assert await batch == [0, 5]
    assert continuous.unlearned(2) == [2, 3, 6, 7] and continuous.unlearned(1) == [0, 2, 3, 5, 6, 7]
    await continuous.close()
    assert sorted(maker.cancelled) == [2, 3]


@pytest.mark.asyncio
async def test_the_last_steps_begin_nothing_that_no_step_would_learn_from():
    maker = Maker()
    continuous = maker.continuous(bound=3, done=6, last=8)
    batch = asked(continuous, 7)
    await asyncio.sleep(0.001)
    assert maker.begun == [12, 13, 14, 15]
    await maker.end(12, 13, 14, 15)
    assert await batch == [12, 13] and await continuous.take(8, lambda done: None) == [14, 15]
    assert continuous.unlearned(8) == []


@pytest.mark.asyncio
async def test_progress_is_the_responses_that_are_there():
    maker, seen = Maker(), []
    continuous = maker.continuous()
    batch = asked(continuous, 1, seen.append)
    await asyncio.sleep(0.001)
    await maker.end(3, 0)
    await batch
    assert seen[0] == 0 and sorted(set(seen)) == [0, 4, 8]


@pytest.mark.asyncio
async def test_a_cancelled_wait_leaves_the_groups_alone():
    maker = Maker()
    continuous = maker.continuous()
    batch = asked(continuous, 1)
    await asyncio.sleep(0.001)
    batch.cancel()
    with pytest.raises(asyncio.CancelledError):
        await batch
    assert maker.cancelled == [] and continuous.unlearned(0) == [0, 1, 2, 3, 4, 5]
    await maker.end(5, 2)
    assert await continuous.take(1, lambda done: None) == [2, 5]
    await continuous.close()


@pytest.mark.asyncio
async def test_nothing_begins_between_settled_and_the_next_batch():
    maker = Maker()
    continuous = maker.continuous(at_once=2 * RESPONSES)
    batch = asked(continuous, 1)
    await asyncio.sleep(0.001)
    await maker.end(0, 1)
    await batch
    await asyncio.sleep(0.001)
    assert maker.begun == [0, 1, 2, 3]
    settled = asyncio.ensure_future(continuous.settled())
    await asyncio.sleep(0.001)
    await maker.end(2)
    assert not settled.done()
    await maker.end(3)
    await settled
    assert maker.begun == [0, 1, 2, 3]
    assert await continuous.take(2, lambda done: None) == [2, 3]
    await asyncio.sleep(0.001)
    assert maker.begun == [0, 1, 2, 3, 4, 5]
    await continuous.close()


@pytest.mark.asyncio
@pytest.mark.parametrize("waits", [True, False])
async def test_a_failure_reaches_the_one_who_waits(waits):
    events = [asyncio.Event() for _ in range(6)]

    async def fails(number, on_response):
        await events[number].wait()
        if number == 3:
            raise ConnectionError("the engine died")
        return number

    continuous = Continuous(fails, size=2, responses=RESPONSES, at_once=100, bound=2, done=0, last=9)
    batch = asked(continuous, 1)
    await asyncio.sleep(0.001)
    if not waits:
        events[0].set()
        events[1].set()
        assert await batch == [0, 1]
    events[3].set()
    await asyncio.sleep(0.001)
    with pytest.raises(ConnectionError, match="the engine died"):
        await (batch if waits else continuous.take(2, lambda done: None))
    await continuous.close()
