"""Engines in their places: started as Ray actors, watched, and replaced where one is lost."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import ray
from ray.actor import ActorHandle
from ray.exceptions import RayActorError, RayTaskError
from ray.util.placement_group import PlacementGroup
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from sdpo.errors import PartFailed, UserError
from sdpo.rollout import worker_process
from sdpo.rollout.config import EngineConfig, environment
from sdpo.rollout.engine import EngineInfo, RolloutEngine
from sdpo.rollout.requests import EngineError, EngineLost
from sdpo.supervision.part import Part, answered, retrieved
from sdpo.supervision.recovery import Recovery
from sdpo.supervision.watch import Watch

CONCURRENT_CALLS = 65536  # per engine: vLLM queues requests itself, and control calls must not wait behind them
POLL_SECONDS = 0.5
SHUTDOWN_SECONDS = 15.0
ROOM_SECONDS = 60.0  # for Ray to find the places of a run, or one for an engine that replaces another
MOMENTARY = ("running", "tokens_per_second", "memory_bytes")  # numbers of an engine that count nothing

Progress = Callable[[str], None]


@dataclass
class Place:
    """The place of an engine; whoever stands in it is replaced when it is lost."""

    index: int
    handle: ActorHandle
    ready: Any  # the Ray call that starts it
    part: Part
    load: int = 0  # responses under way
    info: EngineInfo | None = None
    replacing: asyncio.Task[None] | None = None
    seen: dict[str, float] = field(default_factory=dict)  # its counters when they were last asked for


class Places:
    """The engines of a pool.  `lose` is the one way by which an engine is given up, whoever noticed."""

    def __init__(
        self,
        config: EngineConfig,
        engines: int,
        *,
        cpus_per_engine: float = 0.0,
        gpus_per_engine: float | None = None,
        group: PlacementGroup | None = None,
    ) -> None:
        if engines < 1:
            raise UserError(f"{engines} rollout engines: at least 1 is needed.")
        self.config = config
        self.watch = Watch()
        self._places: list[Place] = []
        self._longest: dict[str, float] = {}
        self._gone: dict[str, float] = {}  # what engines had counted that were replaced
        self._recovery: Recovery | None = None
        self._awake = asyncio.Event()
        self._awake.set()
        self._ending = False
        self._count = engines
        self._cpus = cpus_per_engine
        self._gpus = gpus_per_engine
        if gpus_per_engine is None:
            self._gpus = float(config.tensor_parallel_size) if config.device == "cuda" else 0.0
        self._group = group

    @property
    def handles(self) -> list[ActorHandle]:
        """The engines that serve now."""
        return [place.handle for place in self._places if place.replacing is None]

    @property
    def awake(self) -> bool:
        return self._awake.is_set()

    @property
    def infos(self) -> list[EngineInfo]:
        return [place.info for place in self._places if place.info is not None]

    @property
    def parts(self) -> list[Part]:
        """What there is to be watched."""
        return [place.part for place in self._places]

    def supervise(self, recovery: Recovery) -> None:
        """From now on an engine that is lost is replaced, and its requests are made again."""
        self._recovery = recovery

    # ---- life ----

    def launch(self) -> None:
        """Ask Ray for the actors, without waiting for them.  The learner can start meanwhile."""
        if self._places:
            return
        self._check_resources()
        self._ending = False
        self._places = [Place(index, *self._engine(index)) for index in range(self._count)]

    def _engine(self, index: int) -> tuple[ActorHandle, Any, Part]:
        """A fresh engine: its actor, the call that starts it, and what to watch."""
        strategy: Any = "DEFAULT"
        if self._group is not None:
            strategy = PlacementGroupSchedulingStrategy(self._group, placement_group_bundle_index=index)
        config = dataclasses.replace(self.config, seed=self.config.seed + index)
        actor = ray.remote(RolloutEngine).options(
            num_cpus=self._cpus,
            num_gpus=self._gpus,
            max_concurrency=CONCURRENT_CALLS,
            runtime_env={"env_vars": environment(config)} | worker_process.of_engine(config),
            scheduling_strategy=strategy,
        )
        handle = actor.remote(config)
        return handle, handle.ready.remote(), Part(f"rollout engine {index}", self._longest)

    def _check_resources(self) -> None:
        """Ray waits without end for resources that no machine has.  Raises UserError instead."""
        total = ray.cluster_resources()
        for name, each in (("CPU", self._cpus), ("GPU", self._gpus)):
            if each * self._count > total.get(name, 0) + 1e-6:
                raise UserError(
                    f"{self._count} rollout engine(s) with {each:g} {name}(s) each do not fit into this Ray cluster, "
                    f"which has {total.get(name, 0):g}. Lower rollout.engines or rollout.tensor_parallel_size, or "
                    "connect to a larger cluster (RAY_ADDRESS)."
                )

    async def start(self, progress: Progress | None = None) -> list[EngineInfo]:
        """Wait until every engine serves; `progress` gets a line whenever there is something new to say.

        Raises:
            UserError: an engine did not start, with the cause and what to do.
        """
        self.launch()
        watcher = asyncio.create_task(self._watch(progress)) if progress else None
        try:
            await asyncio.gather(*(self._started(place) for place in self._places))
        except BaseException:
            await self.shutdown()
            raise
        finally:
            if watcher:
                watcher.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await watcher
        return self.infos

    async def _started(self, place: Place) -> None:
        if place.info is None:
            node, process, logs = await self._answer(place, "identity", place.handle.identity.remote())
            place.part.runs_in(node, {process: "its actor"}, complete=False, logs=logs)
            place.info = await self._answer(place, "start", place.ready)
            place.part.runs_in(node, place.info.processes, complete=True)

    async def _watch(self, progress: Progress) -> None:
        started = time.monotonic()
        phases = ["starting its process, importing vLLM"] * len(self._places)
        said: list[str] = []
        while True:
            for index, handle in enumerate(self.handles):
                try:
                    # An engine that is busy importing may not answer in time; then it is still where it was.
                    with contextlib.suppress(TimeoutError):
                        phases[index], _ = await asyncio.wait_for(_result(handle.progress.remote()), POLL_SECONDS)
                except (EngineError, RayActorError):
                    return  # `start` reports it
            if phases != said:
                lines = "; ".join(f"engine {index}: {phase}" for index, phase in enumerate(phases))
                progress(f"{lines} ({time.monotonic() - started:.0f} s)")
                said = list(phases)
            await asyncio.sleep(POLL_SECONDS)

    def abandon(self) -> None:
        """Kill what runs on this machine without asking Ray, which is gone."""
        self._ending = True
        self.watch.kill_here(self.parts)
        for place in self._places:
            if place.replacing is not None:
                place.replacing.cancel()
        self._places = []

    def kill(self) -> None:
        """End engines that nobody has used yet, and that may not listen before they have imported vLLM."""
        self._ending = True
        for place in self._places:
            ray.kill(place.handle)
        self._places = []

    async def shutdown(self) -> None:
        """Stop the engines and their processes; kills what does not stop by itself.  May be called twice."""
        self._ending = True
        places, self._places = self._places, []
        tasks = [place.replacing for place in places if place.replacing is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        handles = [place.handle for place in places if place.part.failure is None]
        calls = [asyncio.ensure_future(_result(handle.shutdown.remote())) for handle in handles]
        if calls:
            await asyncio.wait(calls, timeout=SHUTDOWN_SECONDS)
        for call in calls:
            if call.done():
                call.exception()  # retrieved: what a dying engine says does not matter any more
            else:
                call.cancel()
        for place in places:
            ray.kill(place.handle)
            await self.watch.kill(place.part)

    # ---- which one ----

    def _chosen(self, index: int | None = None) -> Place | None:
        """That engine if it serves, else the one with the fewest responses under way.  None: none serves."""
        if index is not None and self._places[index].replacing is None:
            return self._places[index]
        serving = [place for place in self._places if place.replacing is None]
        return min(serving, key=lambda place: place.load) if serving else None

    async def _serving(self) -> Place:
        """An engine that serves, waited for where none does.  Raises what keeps the last one from being replaced."""
        while (place := self._chosen()) is None:
            tasks = [place.replacing for place in self._places if place.replacing is not None]
            if not tasks:
                raise EngineError("The rollout engines have been shut down.")
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        return place

    # ---- losses ----

    async def _answer(self, place: Place, phase: str, ref: Any) -> Any:
        """What an engine answers.

        Raises EngineLost where it has died, is stopped, or takes too long, EngineError where it cannot serve.  If the
        engines are supervised, it is being replaced by then.
        """
        part = place.part
        try:
            return await answered([part], phase, _result(ref))
        except (EngineError, PartFailed, RayActorError) as error:
            plain = isinstance(error, EngineError) and not isinstance(error, PartFailed)
            failure = error if plain else await self._lost(part, error, phase)
            if place.part is part:
                self.lose(part, failure)
            raise failure from error

    async def _lost(self, part: Part, error: Exception, phase: str) -> EngineLost:
        """With what the kernel says, where it says something."""
        if part.failure is None and (found := (await self.watch.explain([part])).get(part)):
            return EngineLost(part.name, found, phase)
        if isinstance(part.failure, PartFailed):
            return EngineLost(part.name, part.failure.cause, phase)
        if isinstance(error, PartFailed):
            return EngineLost(part.name, error.cause, phase)
        return EngineLost(part.name, f"its process died ({str(error).splitlines()[0]})", phase)

    def lose(self, part: Part, failure: Exception) -> None:
        """Give an engine up.  One that is supervised is replaced, unless that has begun."""
        place = next((place for place in self._places if place.part is part), None)
        if place is None or place.replacing is not None or self._recovery is None or self._ending:
            return
        known = failure if isinstance(failure, PartFailed) else PartFailed(part.name, str(failure), part.phase)
        place.replacing = asyncio.ensure_future(self._replace(place, known))
        place.replacing.add_done_callback(retrieved)  # whoever waits for the engine raises it; nobody may
        part.fail(known.cause)

    async def _replace(self, place: Place, failure: PartFailed) -> None:
        assert self._recovery is not None
        for name in place.seen.keys() - set(MOMENTARY):
            self._gone[name] = self._gone.get(name, 0.0) + place.seen[name]
        while True:
            place.seen, place.info = {}, None
            self._recovery.permit(failure)
            ray.kill(place.handle)
            await self.watch.kill(place.part)
            await self._awake.wait()  # one that shares a GPU with the learner measures its free memory
            await self._make_room()
            place.handle, place.ready, place.part = self._engine(place.index)
            try:
                await self._started(place)
                await self._recovery.give_weights(place.handle)
                break
            except PartFailed as another:
                failure = another
            except EngineError as another:  # vLLM's own words, where its core died while it started
                failure = PartFailed(place.part.name, str(another), "start")
        place.replacing = None

    async def _make_room(self) -> None:
        """On CPUs, where engines and learner take turns, a fresh engine reserves nothing, and fits wherever a machine
        is left.  A GPU must be free.

        Raises UserError where there is none.
        """
        if self.config.device == "cpu":
            self._cpus = 0.0
            return
        for _ in range(int(ROOM_SECONDS)):
            if self._group is not None or ray.available_resources().get("GPU", 0.0) >= (self._gpus or 0.0) - 1e-6:
                return
            await asyncio.sleep(1.0)
        raise UserError(
            f"A lost rollout engine cannot be replaced: it needs {self._gpus:g} GPU(s), and what is left of the Ray "
            "cluster has not that many free. Bring the machine back, or lower rollout.engines; then the same command "
            "goes on from the last checkpoint."
        )

    async def _on(self, place: Place, method: str, *args: Any) -> Any:
        """A call to the engine of a place, made again of the next one where that is lost."""
        while True:
            if place.replacing is not None:
                await asyncio.shield(place.replacing)
            try:
                return await self._answer(place, method, getattr(place.handle, method).remote(*args))
            except EngineError:
                if place.replacing is None:
                    raise

    async def _each(self, method: str, *args: Any) -> list[tuple[Place, Any]]:
        """A call to all engines that serve; those that are lost on the way are left out, and replaced."""

        async def one(place: Place) -> list[tuple[Place, Any]]:
            try:
                return [(place, await self._answer(place, method, getattr(place.handle, method).remote(*args)))]
            except EngineError:
                if place.replacing is None:
                    raise
                return []

        found = await asyncio.gather(*(one(place) for place in self._places if place.replacing is None))
        return [answer for answers in found for answer in answers]

    async def confirm(self, version: int) -> None:
        """After a publication: replace every engine that does not hold it."""
        for place, held in await self._each("version"):
            if held != version and self._recovery is not None:
                causes = await self.watch.explain([place.part])
                cause = causes.get(place.part, f"it holds version {held} of the weights instead of {version}")
                self.lose(place.part, PartFailed(place.part.name, cause, "publish"))


async def _result(ref: Any) -> Any:
    """Await a Ray call; errors come out as what the actor raised, not as Ray's wrapping of it."""
    try:
        return await ref
    except RayTaskError as error:
        if isinstance(error.cause, UserError):
            raise error.cause from None
        raise
