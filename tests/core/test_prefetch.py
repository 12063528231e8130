"""Batches prefetch of the learner: how many, begun when, ended how."""

from __future__ import annotations

import asyncio

import pytest

from sdpo.training.prefetch import Prefetch

pytestmark = pytest.mark.asyncio


class Maker:
    """Makes a batch when it is told to."""

    def __init__(self):
        self.begun, self.cancelled = [], []
        self.finish = asyncio.Event()

    async def make(self, step, on_response):
        self.begun.append(step)
        on_response(2)
        try:
            await self.finish.wait()
        except asyncio.CancelledError:
            self.cancelled.append(step)
            raise
        on_response(3)
        return f"batch {step}"


async def take(prefetch, maker, step):
    seen = []
    task = asyncio.ensure_future(prefetch.take(step, seen.append))
    await asyncio.sleep(0.01)
    begun = list(maker.begun)
    maker.finish.set()
    return await task, begun, seen


@pytest.mark.parametrize(
    ("bound", "begun"),
    [(0, [[1], [1, 2], [1, 2, 3]]), (1, [[1, 2], [1, 2, 3], [1, 2, 3]]), (2, [[1, 2, 3]] * 3)],
)
async def test_a_batch_is_begun_no_earlier_than_the_bound_allows(bound, begun):
    maker = Maker()
    prefetch = Prefetch(maker.make, bound, last=3)
    for step in (1, 2, 3):
        batch, now, _ = await take(prefetch, maker, step)
        assert batch == f"batch {step}" and now == begun[step - 1]


async def test_progress_is_of_the_batch_that_is_waited_for():
    maker = Maker()
    prefetch = Prefetch(maker.make, 1, last=3)
    assert (await take(prefetch, maker, 1))[2] == [0, 2, 5]
    await asyncio.sleep(0.01)  # the second batch is complete before it is asked for
    assert (await take(prefetch, maker, 2))[2] == [5]


async def test_a_cancelled_wait_leaves_the_batch_alone_and_close_ends_it():
    maker = Maker()
    prefetch = Prefetch(maker.make, 1, last=9)
    task = asyncio.ensure_future(prefetch.take(1, lambda done: None))
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert maker.cancelled == []
    await prefetch.close()
    assert sorted(maker.cancelled) == [1, 2]


async def test_a_failure_reaches_the_one_who_waits():
    async def fails(step, on_response):
        raise ConnectionError("the engine died")

    with pytest.raises(ConnectionError, match="the engine died"):
        await Prefetch(fails, 1, last=9).take(1, lambda done: None)
