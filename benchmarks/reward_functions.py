"""What faulty reward functions cost the others: throughput with and without attackers, and the delay of a step.

    python -m benchmarks.reward_functions

Throughput: calls per second in the pool of `environment.kind=function`, a fixed number of them in flight, over
interleaved repeats.  "attacked" is the same run, in which one call in ten loops without end, crashes, exits, writes
1 GB, forks, or returns NaN or a text; it is over when the last of the other calls is answered.  Delay: a step of calls
of which one in ten, or all but one, sleep 30 s under a limit of 2 s.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from pathlib import Path

from benchmarks.common import Record, interleave, median_ratio, medians, parser
from sdpo.envs.workers.pool import WorkerPool

FUNCTION = f"{Path(__file__).resolve()}:work"
ATTACKS = ("loop", "segfault", "exit", "write", "fork", "nan", "text")
IN_FLIGHT = 64
LIMIT_S = 2.0


def work(what: str, seconds: float) -> object:
    """The function under test: some computing, or an attack."""
    if what == "work":
        end = time.process_time() + seconds
        while time.process_time() < end:
            pass
        return 1.0
    return _attack(what)


def _attack(what: str) -> object:
    import ctypes
    import os

    if what == "loop":
        while True:
            pass
    elif what == "segfault":
        return ctypes.string_at(0)
    elif what == "exit":
        os._exit(1)
    elif what == "write":
        for _ in range(1024):
            print("x" * 2**20)
    elif what == "fork":
        if os.fork() == 0:
            while True:
                pass
    elif what == "sleep":
        time.sleep(30)
    return float("nan") if what == "nan" else "1.0"


class Bench:
    """A pool, and what its calls came to."""

    def __init__(self) -> None:
        self.pool = WorkerPool(FUNCTION, option="function", time_limit_s=LIMIT_S)
        self.pool.start()
        self.kinds: Counter[str] = Counter()

    def throughput(self, calls: int, seconds: float, attacked: bool) -> dict[str, float]:
        return asyncio.run(self._throughput(calls, seconds, attacked))

    async def _throughput(self, calls: int, seconds: float, attacked: bool) -> dict[str, float]:
        gate, attacks, useful = asyncio.Semaphore(IN_FLIGHT), [], []
        began = time.perf_counter()
        for number in range(calls):
            what = ATTACKS[number // 10 % len(ATTACKS)] if attacked and number % 10 == 5 else "work"
            if what != "work":  # one that hangs takes none of the places in flight, which are the driver's
                attacks.append((what, asyncio.create_task(self.pool.call(what, 0.0))))
                continue
            await gate.acquire()
            task = asyncio.create_task(self.pool.call(what, seconds))
            task.add_done_callback(lambda _: gate.release())
            useful.append(task)
        replies = await asyncio.gather(*useful)
        took = time.perf_counter() - began
        assert {reply.kind for reply in replies} == {"value"}, Counter(reply.kind for reply in replies)
        for what, task in attacks:
            self.kinds[f"{what}: {(await task).kind}"] += 1
        return {"seconds": took, "calls_per_second": calls / took}

    def step(self, calls: int, seconds: float, sleepers: int) -> dict[str, float]:
        """Seconds until the last call of a step is answered, `sleepers` of them spread over it."""
        return asyncio.run(self._step(calls, seconds, sleepers))

    async def _step(self, calls: int, seconds: float, sleepers: int) -> dict[str, float]:
        asleep = {round(k * calls / sleepers) for k in range(sleepers)} if sleepers else set()
        began = time.perf_counter()
        made = [self.pool.call("sleep" if k in asleep else "work", seconds) for k in range(calls)]
        kinds = Counter(reply.kind for reply in await asyncio.gather(*made))
        assert kinds == Counter({"value": calls - sleepers, "timeout": sleepers}), kinds
        return {"seconds": time.perf_counter() - began}


def main() -> None:
    args = parser(__doc__, repeats=3).parse_args()
    record = Record("reward_functions", args)
    calls, step = (200, 32) if args.small else (1000, 128)
    bench = Bench()
    bench.throughput(20, 0.001, attacked=False)  # what calls usually take is known from here on
    sides = {
        "alone": lambda: bench.throughput(calls, 0.01, attacked=False),
        "attacked": lambda: bench.throughput(calls, 0.01, attacked=True),
    }
    samples = interleave(sides, args.repeats)
    steps = interleave(
        {
            "no sleepers": lambda: bench.step(step, 0.01, 0),
            "1 in 10 sleeps": lambda: bench.step(step, 0.01, step // 10),
            "all but 1 sleep": lambda: bench.step(step, 0.01, step - 1),
        },
        args.repeats,
    )
    bench.pool.close()
    found, delays = medians(samples), medians(steps)
    ratio = median_ratio(samples, "attacked", "alone", "calls_per_second")
    rows = [[name, f"{values['calls_per_second']:.1f} calls/s", ""] for name, values in found.items()]
    plain = delays["no sleepers"]["seconds"]
    rows += [
        [f"a step of {step}, {name}", f"{v['seconds']:.2f} s", f"{v['seconds'] - plain:+.2f} s"]
        for name, v in delays.items()
    ]
    notes = [
        f"Calls of 10 ms, {IN_FLIGHT} in flight; attacked / alone: {ratio:.3f}; limit {LIMIT_S:g} s.",
        "Attacks and what became of them: " + ", ".join(f"{k} {n}" for k, n in sorted(bench.kinds.items())) + ".",
    ]
    record.finish(["", "", "longer by"], rows, notes, samples=samples, steps=steps, ratio=ratio)


if __name__ == "__main__":
    main()
