"""The public face: a context manager that judges programs, from any thread or from asyncio."""

from __future__ import annotations

import asyncio
import os
import resource
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import as_completed, wait
from types import TracebackType

from . import linux
from .engine import WARM_SHARE, Engine
from .levels import LEVELS
from .types import Job, Judgement, Limits, Stop, TestCase
from .zygote import Zygote

_POOL_PER_WORKER = 16
_DESCRIPTORS_PER_CHILD = 5
PACKAGES = (
    "numpy", "numpy.libs", "scipy", "scipy.libs", "sympy", "mpmath", "networkx", "sortedcontainers", "more_itertools"
)  # fmt: skip


class Sandbox:
    """Runs and judges untrusted Python programs.

    workers: programs that run at the same time (default: the CPUs that this process may use).
    isolation: "auto" takes "namespaces" or else "landlock" and refuses to start where this machine offers neither; a
        named level that the machine does not offer is refused (`IsolationUnavailable`).  At "seccomp" programs read
        what your user can read (except memory: this process can then not be traced any more); "none" is no protection.
    outer: a command to put before the fork server, as one more wall: `["bwrap", …]`.  It must start what follows it on
        this machine with its descriptors; see docs/sandbox.md for one that was tried.
    packages: what programs may import beside the standard library, where it is installed.
    pool: children kept ready (default: 16 per worker); each costs about 3 MB and 5 of half the descriptors that this
        process may open (`ulimit -n`), which bounds their number.

    Create it before or after heavy imports, use it from several threads and asyncio loops at once.  Raises
    `SandboxError` where the fork server cannot start.
    """

    def __init__(
        self,
        workers: int | None = None,
        isolation: str = "auto",
        pool: int | None = None,
        packages: Sequence[str] = PACKAGES,
        outer: Sequence[str] = (),
    ) -> None:
        if isolation != "auto" and isolation not in LEVELS:
            raise ValueError(f"isolation must be one of {('auto', *LEVELS)}, it is {isolation!r}")
        for name, number in (("workers", workers), ("pool", pool)):
            if number is not None and number < 1:
                raise ValueError(f"{name} must be at least 1, it is {number}; None chooses by the machine")
        self.workers = workers or len(os.sched_getaffinity(0))
        most = resource.getrlimit(resource.RLIMIT_NOFILE)[0] // (2 * _DESCRIPTORS_PER_CHILD)  # the rest is the caller's
        most -= most // (WARM_SHARE + 1)  # for children with numpy
        self._engine = Engine(
            self.workers,
            min(pool or _POOL_PER_WORKER * self.workers, max(most, 1)),
            lambda numpy=False: Zygote(isolation, tuple(packages), tuple(outer), numpy),
        )
        self.report = self._engine.started.result()
        if self.report["level"] == "seccomp":  # programs of the same user could read the expected outputs in memory
            linux.prctl(linux.PR_SET_DUMPABLE, 0)

    @property
    def idle(self) -> int:
        """Children that wait for a program right now."""
        return self._engine.idle

    @property
    def warm(self) -> bool:
        """Whether a server that has numpy is there: the first program that imports it has one started."""
        return self._engine.warm

    @property
    def counts(self) -> dict[str, int]:
        """`judged`: programs so far; `sandbox_errors`: those among them on which the sandbox itself failed."""
        return dict(self._engine.tally.counts)

    def __enter__(self) -> Sandbox:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End every process of the sandbox.  Judgements still under way raise `SandboxError`."""
        self._engine.close()

    def judge(
        self,
        code: str | None,
        tests: Sequence[TestCase],
        limits: Limits | None = None,
        files: Mapping[str, str] | None = None,
        stop: Stop = "first_failure",
        truncated: bool = False,
    ) -> Judgement:
        """Judge one program; None for `code` means that the response held none.

        stop: "first_failure" is enough for a reward, "all" runs every test for feedback; a time-out always ends it.
        Raises `BadTests` for tests that cannot be used.
        """
        return self._engine.submit(Job(code, tests, limits or Limits(), files, stop, truncated)).result()

    async def ajudge(
        self,
        code: str | None,
        tests: Sequence[TestCase],
        limits: Limits | None = None,
        files: Mapping[str, str] | None = None,
        stop: Stop = "first_failure",
        truncated: bool = False,
    ) -> Judgement:
        """`judge` for asyncio: any number of calls may wait at once."""
        job = Job(code, tests, limits or Limits(), files, stop, truncated)
        return await asyncio.wrap_future(self._engine.submit(job))

    def judge_many(
        self, jobs: Sequence[Job], progress: Callable[[int, Judgement], None] | None = None
    ) -> list[Judgement]:
        """Judge many programs at once; results in the order of `jobs`.

        progress: called as `progress(index, judgement)` in this thread whenever one is done.
        """
        futures = [self._engine.submit(job) for job in jobs]
        try:
            if progress is not None:
                positions = {future: index for index, future in enumerate(futures)}
                for future in as_completed(positions):
                    progress(positions[future], future.result())
            wait(futures)  # one wake-up for all of them
            return [future.result() for future in futures]
        except BaseException:
            for future in futures:
                future.cancel()
            raise

    async def ajudge_many(self, jobs: Sequence[Job]) -> list[Judgement]:
        """`judge_many` for asyncio."""
        return list(await asyncio.gather(*(asyncio.wrap_future(self._engine.submit(job)) for job in jobs)))
