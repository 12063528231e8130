"""Everything around the loop: start of Ray, engines, learner and tracking, and the orderly end."""

from __future__ import annotations

import asyncio
import errno
import os
import re
import signal
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import psutil
import ray

from sdpo.algorithms import Algorithm
from sdpo.config.files import compare_command
from sdpo.config.hub import why_offline
from sdpo.config.paths import locate, logs_folder
from sdpo.config.schema import Recipe
from sdpo.envs import Environment
from sdpo.errors import PartFailed, UserError
from sdpo.learner.group import Learner
from sdpo.report import run_report
from sdpo.rollout.pool import EnginePool
from sdpo.supervision.part import retrieved
from sdpo.tracking import FINISHED, INTERRUPTED, Console, RunFolder, Tracker
from sdpo.training.guard import GUARDED
from sdpo.training.interrupt import STOPPED, Interrupt, Signals
from sdpo.training.mirroring import Mirroring
from sdpo.training.parts import Parts, check_numbers, read_parts
from sdpo.training.private_folder import ray_folder
from sdpo.training.resume import begin, resume
from sdpo.training.sinks import check_sinks, make_sinks
from sdpo.training.trainer import Trainer
from sdpo.training.workers import workers

P = ParamSpec("P")
T = TypeVar("T")
RAY_STARTS = 3  # on a busy machine a start may outlast Ray's own time limit, which cannot be set


async def train(
    recipe: Recipe,
    algorithm: Algorithm,
    environment: Environment,
    folder: RunFolder,
    console: Console,
    mirroring: Mirroring,
    source: Path | None = None,
) -> int:
    """Train or resume the run of `folder`; `source`: the run from whose checkpoint a new one goes on.

    What takes long at the start and at the end goes on side by side: while Ray starts and engines import vLLM, the
    tasks are read, the model is checked and the run's folder begun; sinks are opened while the learner starts; they are
    closed, and the page is written, while the parts end.

    Returns the exit status: 0 finished, 130 stopped by a signal, 3 by its guard.
    """
    check_sinks(recipe.tracking)
    with _settled_environment(recipe), ExitStack() as sinks:
        beginning = beside(_begun, recipe, environment, folder, console, source)
        opening = asyncio.ensure_future(_opened(beginning, recipe, folder, console, sinks))
        others: list[asyncio.Future[Any]] = [beginning, opening]
        try:
            async with cluster(console) as resources:
                async with workers(recipe, algorithm.plan, resources, console, beginning) as (pool, learner):
                    parts, tracker = await beginning, await opening
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
                    others += beside(tracker.finish, *ended), beside(_report, folder)
        finally:
            for found in await asyncio.gather(*others, return_exceptions=True):
                if isinstance(found, BaseException):
                    raise found
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


@contextmanager
def _settled_environment(recipe: Recipe) -> Iterator[None]:
    """What the checks of a run would set in its environment is set before, since Ray's processes are handed it while
    they go on: the accelerator of DeepSpeed for the time of the run, and whether the hub answers."""
    if not Path(locate(recipe.model.path)).is_dir():
        why_offline()
    given = recipe.profile == "cpu" and "DS_ACCELERATOR" not in os.environ
    if given:
        os.environ["DS_ACCELERATOR"] = "cpu"
    try:
        yield
    finally:
        if given:
            del os.environ["DS_ACCELERATOR"]


def beside(work: Callable[P, T], *given: P.args, **named: P.kwargs) -> asyncio.Future[T]:
    """Begin it now, in a thread; nobody need ask how it ended where something else went wrong before."""
    begun = asyncio.get_running_loop().run_in_executor(None, partial(work, *given, **named))
    begun.add_done_callback(retrieved)
    return begun


def _begun(recipe: Recipe, environment: Environment, folder: RunFolder, console: Console, source: Path | None) -> Parts:
    """What the run is made of, checked; its folder says that it has begun, or goes on.  Raises UserError."""
    parts = read_parts(recipe, environment, console)
    with console.phase("checking the model", announce=True):
        note = check_numbers(recipe)
    if note is not None:
        console.message(note)
    if folder.info is None:
        begin(recipe, parts.dataset, folder, console, source)
    else:
        resume(recipe, parts.dataset, folder, console)
    return parts


async def _opened(
    beginning: Awaitable[Parts], recipe: Recipe, folder: RunFolder, console: Console, sinks: ExitStack
) -> Tracker:
    """What records the run, once that has begun; `sinks` closes it."""
    await beginning
    return sinks.enter_context(Tracker(folder, console, await beside(make_sinks, recipe, folder, console)))


def _report(folder: RunFolder) -> None:
    if folder.metrics:
        run_report(folder.path)


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
