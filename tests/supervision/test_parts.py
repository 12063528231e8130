"""Calls to parts: when they are given up, and when not."""

from __future__ import annotations

import asyncio
import gc

import pytest

from sdpo.errors import PartFailed
from sdpo.supervision.limits import Limits, own_share
from sdpo.supervision.part import Part, answered

LIMITS = Limits(floor=25, factor=10, first=1800)


@pytest.mark.parametrize("longest, limit", [(None, 1800), (0.0, 25), (2.4, 25), (2.6, 26), (100.0, 1000)])
def test_a_limit_follows_from_the_longest_call_of_its_kind(longest, limit):
    assert LIMITS.of(longest) == pytest.approx(limit)


@pytest.mark.parametrize(
    "runnable, cores, share", [(0, 2, 1), (1, 2, 1), (2, 2, 1), (8, 2, 0.25), (8, 8, 1), (1000, 2, 0.05)]
)
def test_a_busy_machine_slows_clocks_down(runnable, cores, share):
    assert own_share(runnable, cores) == share


async def test_an_answer_comes_through_and_is_measured():
    part = Part("a part", {})

    async def work():
        assert part.phase == "update"
        await asyncio.sleep(0.05)
        return 7

    assert await answered([part], "update", work()) == 7
    assert 0.05 <= part.longest["update"] < 10 and part.phase == ""


async def test_the_failure_of_one_part_ends_what_others_wait_for_too():
    first, second = Part("the first", {}), Part("the second", {})
    call = asyncio.ensure_future(answered([first, second], "publish", asyncio.Event().wait()))
    await asyncio.sleep(0)
    second.fail("its process 7 was killed by SIGKILL")
    with pytest.raises(PartFailed, match=r"the second: .* 7 was killed by SIGKILL \(in publish\)"):
        await call
    with pytest.raises(PartFailed):
        await answered([second], "publish", asyncio.sleep(0))
    assert await answered([first], "publish", asyncio.sleep(0, "alive")) == "alive"


async def test_work_that_is_given_up_at_once_leaves_no_traceback_behind():
    said = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: said.append(context))
    work = asyncio.gather(asyncio.Event().wait())
    call = asyncio.ensure_future(answered([Part("a part", {})], "", work))
    for _ in range(2):  # the second time while it waits for the work to end
        await asyncio.sleep(0)
        call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    await asyncio.sleep(0)
    assert work.done()
    del work, call
    gc.collect()
    assert not said


async def test_work_that_is_given_up_has_ended_when_the_failure_is_raised():
    part, lock = Part("a part", {}), asyncio.Lock()

    async def work():
        async with lock:
            await asyncio.Event().wait()

    call = asyncio.ensure_future(answered([part], "", work()))
    while not lock.locked():
        await asyncio.sleep(0)
    part.fail("stopped")
    with pytest.raises(PartFailed):
        await call
    assert not lock.locked()


async def test_errors_of_the_work_are_no_measurement():
    part = Part("a part", {})

    async def work():
        raise ConnectionError

    with pytest.raises(ConnectionError):
        await answered([part], "update", work())
    assert part.longest == {}


async def test_a_clock_begins_anew_with_every_answer():
    """A thousand requests wait in an engine that works; it hangs only when none of them ends any more."""
    part = Part("an engine", {})
    waiting = [asyncio.Event() for _ in range(5)]
    calls = [asyncio.ensure_future(answered([part], "generate", event.wait())) for event in waiting]
    for event, call in zip(waiting, calls, strict=True):
        await asyncio.sleep(0.05)
        event.set()
        await call
    clock = part.clocks["generate"]
    assert clock.open == 0
    assert part.longest["generate"] < 0.2  # of five gaps, though the last call took five times as long


async def test_time_that_the_machine_gave_to_others_does_not_count():
    part, event = Part("a rank", {}), asyncio.Event()
    call = asyncio.ensure_future(answered([part], "update", event.wait()))
    await asyncio.sleep(0)
    clock = part.clocks["update"]
    assert clock.elapsed(clock.since + 100) == 100
    clock.lost += 75
    assert clock.elapsed(clock.since + 100) == 25
    event.set()
    await call
