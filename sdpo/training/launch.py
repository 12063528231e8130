"""Everything around the loop: start of Ray, engines, learner and tracking, and the orderly end."""

from __future__ import annotations

import asyncio
import errno
import os
import re
import signal
import threading
from collections.abc import AsyncIterator, Awaitable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
import ray
from ray.util.placement_group import PlacementGroup, placement_group

from sdpo.algorithms import Algorithm, LossPlan
from sdpo.config.files import compare_command
from sdpo.config.paths import logs_folder
from sdpo.config.schema import Recipe
from sdpo.errors import PartFailed, UserError
from sdpo.learner.group import Learner
from sdpo.learner.rank import for_a_rank
from sdpo.learner.teacher_pool import TeacherPool
from sdpo.report import run_report
from sdpo.rollout.places import ROOM_SECONDS
from sdpo.rollout.pool import EnginePool
from sdpo.tracking import FINISHED, INTERRUPTED, Console, RunFolder, Tracker
from sdpo.training.guard import GUARDED
from sdpo.training.interrupt import STOPPED, Interrupt, Signals
from sdpo.training.mirroring import Mirroring
from sdpo.training.parts import Parts, as_computed
from sdpo.training.placement import Placement, engine_options, plan_placement
from sdpo.training.private_folder import ray_folder
from sdpo.training.resume import begin, resume
from sdpo.training.sinks import check_sinks, make_sinks
from sdpo.training.supervision import RayLost, Supervision
from sdpo.training.trainer import Trainer

RAY_STARTS = 3  # on a busy machine a start may outlast Ray's own time limit, which cannot be set


async def train(
    recipe: Recipe,
    algorithm: Algorithm,
    parts: Parts,
    folder: RunFolder,
    console: Console,
    mirroring: Mirroring,
    source: Path | None = None,
) -> int:
    """Train or resume the run of `folder`; `source`: the run from whose checkpoint a new one goes on.

    Returns the exit status: 0 finished, 130 stopped by a signal, 3 by its guard.
    """
    check_sinks(recipe.tracking)
    if folder.info is None:
        begin(recipe, parts.dataset, folder, console, source)
    else:
        resume(recipe, parts.dataset, folder, console)
    with Tracker(folder, console, make_sinks(recipe, folder, console)) as tracker:
        async with (
            cluster(console) as resources,
            workers(recipe, algorithm.plan, resources, console) as (pool, learner),
        ):
            with Interrupt(console.message, recipe.run.stop_limit_s) as interrupt:
                trainer = make_trainer(recipe, algorithm, parts, pool, learner, folder, tracker, interrupt)
                mirroring.start(trainer.checkpoints, console.message)
                finished = await trainer.run()
                saved = trainer.saved_step
                at = f"after step {saved}" if saved > 0 else "before its first step was complete"
                alarm = trainer.guard.stopped
                by = f"its guard: {alarm};" if alarm else interrupt.signal
                ended = (FINISHED, "") if finished else (INTERRUPTED, f"stopped by {by} {at}")
                folder.set_status(*ended)  # true from now on, however the parts end
                status = 0 if finished else GUARDED if alarm else STOPPED
                interrupt.over(status)
        tracker.finish(*ended)
    if folder.metrics:
        run_report(folder.path)
    if finished:
        console.message(
            f"Finished. Compare with: {compare_command(recipe, make=True)} ({compare_command(recipe)}). "
            f"The run's page: {folder.report}"
        )
        return 0
    where = f"step {saved} is saved in {folder.path}" if saved > 0 else "no step was complete yet"
    if alarm:
        console.message(
            f"Stopped by guard.action={recipe.guard.action}: {where}. The same command goes on from there, and says "
            "nothing more of what it has found; docs/guards.md says what may help."
        )
        return status
    console.message(f"Stopped: {where}. The same command goes on from there.")
    return status


def make_trainer(
    recipe: Recipe,
    algorithm: Algorithm,
    parts: Parts,
    pool: EnginePool,
    learner: Learner,
    folder: RunFolder,
    tracker: Tracker,
    interrupt: Interrupt,
) -> Trainer:
    given = parts.environment, algorithm, parts.dataset, parts.tokenizer
    return Trainer(recipe, *given, pool, learner, folder, tracker, interrupt)


@asynccontextmanager
async def workers(
    recipe: Recipe, plan: LossPlan, resources: dict[str, float], console: Console, policies: int = 1
) -> AsyncIterator[tuple[EnginePool, Learner]]:
    """Engines and learner ranks, started side by side and ended in order.

    policies: whose adapters engines have room for, where they load adapters.
    """
    placement = plan_placement(recipe, resources["CPU"], resources.get("GPU", 0))
    console.message(f"Placement: {placement.description}.")
    group = await reserved(placement.bundles)
    learner = Learner(
        as_computed(recipe)[0], plan, placement.learner, group, make_teachers(recipe, plan, placement.teacher)
    )
    pool = make_pool(recipe, placement, group, policies)
    try:
        async with Supervision(recipe.supervision, pool, learner):
            if recipe.rollout.colocated:  # an engine measures its GPU's free memory while it starts
                await announced(console, "starting vLLM engines", pool.start(console.message))
                await pool.sleep()  # its weights are the learner's first publication
            await together(
                announced(console, "starting vLLM engines", pool.start(console.message)),
                announced(console, "starting DeepSpeed ranks", learner.start()),
            )
            yield pool, learner
    except RayLost:
        learner.abandon()
        pool.abandon()
        raise
    finally:
        learner.shutdown()
        await pool.shutdown()


async def reserved(bundles: tuple[dict[str, float], ...]) -> PlacementGroup | None:
    """The places that engines and ranks share, for which Ray would wait without end.  Raises UserError."""
    if not bundles:
        return None
    group = placement_group(list(bundles), strategy="PACK")
    if not await asyncio.to_thread(group.wait, ROOM_SECONDS):
        each = ", ".join(f"{amount:g} {name}" for name, amount in bundles[0].items())
        raise UserError(
            f"Ray has had no room for {len(bundles)} × ({each}) for {ROOM_SECONDS:.0f} s. Each must be on one machine: "
            "see `ray status` for what is free, end what takes it, or lower learner.ranks and rollout.engines."
        )
    return group


async def announced(console: Console, name: str, work) -> None:
    with console.phase(name, announce=True):
        await work


async def together(*work: Awaitable[None]) -> None:
    """Run side by side; if one fails or the user stops, none is left running behind this call."""
    tasks = [asyncio.ensure_future(w) for w in work]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def make_pool(
    recipe: Recipe, placement: Placement, group: PlacementGroup | None = None, policies: int = 1
) -> EnginePool:
    return EnginePool(
        engine_options(recipe, policies),
        recipe.rollout.engines,
        cpus_per_engine=placement.engine_cpus,
        gpus_per_engine=placement.engine_gpus,
        group=group,
    )


def make_teachers(recipe: Recipe, plan: LossPlan, options: dict[str, Any] | None) -> TeacherPool | None:
    """The ranks of a teacher of its own, if it has some; `options`: resources of one."""
    if options is None or not recipe.teacher_ranks:
        return None
    return TeacherPool(for_a_rank(as_computed(recipe.of_teacher())[0], plan)[0], options)


@asynccontextmanager
async def cluster(console: Console) -> AsyncIterator[dict[str, float]]:
    """Ray on this machine, or the cluster of RAY_ADDRESS.  Yields its resources; what is started in it ends with it."""
    address = os.environ.get("RAY_ADDRESS")
    with console.phase(f"connecting to Ray at {address}" if address else "starting Ray", announce=True):
        context = _start_ray(address, console)
    if Signals.active is not None:
        Signals.active.claim()
    logs = Path(context.address_info["session_dir"]) / "logs" if address else Path(logs_folder())
    try:
        yield ray.cluster_resources()
    except PartFailed as error:  # while the parts start, or where nobody restarts them
        raise UserError(
            f"{error}. The workers' logs are in {logs}. The same command goes on from the last checkpoint."
        ) from error
    except ray.exceptions.RayError as error:
        raise UserError(_explain(error, logs)) from error
    finally:
        with _terminated():
            ray.shutdown()


def _start_ray(address: str | None, console: Console):
    options = {"log_to_driver": False, "logging_level": "ERROR"}
    if address:
        try:
            return ray.init(address=address, **options)
        except ConnectionError as error:
            raise UserError(
                f"No Ray cluster answers at RAY_ADDRESS={address} ({error}). Start one (`ray start --head`), correct "
                "the address, or unset RAY_ADDRESS to use this machine. A cluster with token authentication also "
                "needs RAY_AUTH_MODE=token and its token here; `sdpo doctor` tells which it is."
            ) from None
    for left in reversed(range(RAY_STARTS)):
        try:
            # Ray ends its processes with the thread that started them, so that this must be the main thread.
            return ray.init(address="local", include_dashboard=False, _temp_dir=ray_folder(), **options)
        except Exception as error:  # Ray raises a plain Exception when its processes are not up within 30 s
            ray.shutdown()
            if not left or "timed out" not in str(error):
                raise UserError(
                    f"Ray did not start on this machine ({str(error).strip().splitlines()[0]}). If the machine is "
                    f"busy, try again when it is quieter; Ray's logs are in {logs_folder()}."
                ) from error
            console.message("Ray's processes were not up within its 30 s; trying again.")


@contextmanager
def _terminated() -> Iterator[None]:
    """SIGTERM ends Ray's own processes, although they block it (`Signals`): to whom it was sent, SIGKILL goes as well.

    Without this, Ray waits a second for each of them.
    """
    done = threading.Event()

    def watch() -> None:
        while not done.wait(0.05):
            for child in psutil.Process().children():
                with suppress(psutil.Error, OSError):
                    pending = re.search(r"^ShdPnd:\s*(\w+)", Path(f"/proc/{child.pid}/status").read_text(), re.M)
                    if pending and int(pending[1], 16) >> (signal.SIGTERM - 1) & 1:
                        child.kill()

    thread = threading.Thread(target=watch, daemon=True)
    if Signals.active is not None and Path("/proc/self/status").exists():
        thread.start()
    try:
        yield
    finally:
        done.set()


def _explain(error: ray.exceptions.RayError, logs: Path) -> str:
    """A UserError raised in an actor speaks for itself; anything else is named with the place of its full log."""
    cause = getattr(error, "cause", None) or error
    if isinstance(cause, UserError):
        return str(cause)
    if isinstance(cause, OSError) and cause.errno in (errno.ENOSPC, errno.EDQUOT):
        return (
            f"The disk is full ({cause.filename or cause}). Free some space and run the same command: the run goes on "
            "from its last complete checkpoint."
        )
    first = str(cause).strip().splitlines()[0] if str(cause).strip() else ""
    resumes = f"The workers' logs are in {logs}. The same command goes on from the last checkpoint."
    if isinstance(error, ray.exceptions.OutOfMemoryError):
        return (
            f"Ray ended a worker process, because the machine ran out of memory: {first} Close other programs, or "
            f"lower learner.micro_batch_tokens and rollout.max_num_seqs. {resumes}"
        )
    if isinstance(error, ray.exceptions.RayActorError):
        return f"A worker process died: {first} {resumes}"
    return f"{type(cause).__name__} in a worker: {first} The whole traceback is in {logs}."
