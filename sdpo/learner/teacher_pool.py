"""The driver's side of a teacher of its own: its ranks, started as Ray actors, and what they say of responses."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

import numpy as np
import ray
from ray.actor import ActorHandle
from ray.exceptions import RayActorError, RayTaskError

from sdpo.config.schema import Recipe
from sdpo.errors import PartFailed, UserError
from sdpo.learner.packing import sorted_prompts
from sdpo.learner.teacher_rank import TeacherRank
from sdpo.supervision.part import Part, answered, retrieved
from sdpo.supervision.recovery import Recovery
from sdpo.supervision.watch import Watch

Pair = tuple[np.ndarray, np.ndarray]  # prompt int64 [P], response int64 [R]
Key = bytes


@dataclass
class _Place:
    """The place of a rank; whoever stands in it is replaced when it is lost."""

    index: int
    handle: ActorHandle
    part: Part
    load: int = 0  # tokens under way
    replacing: asyncio.Task[None] | None = None


class TeacherPool:
    """Ranks that score pairs of a prompt and a response, each pair once.

    What is scored stays in Ray's object store, as one object per pair, which the learner's ranks fetch: the driver
    holds references only.  They outlive the rank that scored.
    """

    def __init__(self, recipe: Recipe, actor_options: dict[str, Any]) -> None:
        """recipe: as the ranks are to have it (`sdpo.learner.rank.for_a_rank`); actor_options: resources of one."""
        self.recipe, self.watch = recipe, Watch()
        self.version = 0  # of the weights that ranks must hold
        self._options = actor_options
        self._longest: dict[str, float] = {}
        self._recovery: Recovery | None = None
        self._answers: dict[Key, asyncio.Task[dict[Key, Any]]] = {}
        self._steps: dict[Key, int] = {}  # the latest batch that asks for it
        self._seen: dict[int, dict[str, float]] = {}
        self._places = [_Place(index, *self._rank(index)) for index in range(recipe.teacher_ranks)]

    @property
    def parts(self) -> list[Part]:
        return [place.part for place in self._places]

    @property
    def handles(self) -> list[ActorHandle]:
        """The ranks that serve now."""
        return [place.handle for place in self._places if place.replacing is None]

    def supervise(self, recovery: Recovery) -> None:
        """From now on a rank that is lost is replaced, and what it had not finished is scored again."""
        self._recovery = recovery

    # ---- what it says ----

    async def ask(self, pairs: Iterable[Pair], step: int = 0) -> None:
        """Have all these scored that are not yet, and wait for all of them.  Cancelled, it leaves the work going on.

        step: whose batch they belong to, where that is not over before `forget` is told of a step.
        """
        wanted = {key_of(*pair): pair for pair in pairs}
        new = [pair for key, pair in wanted.items() if key not in self._answers]
        for piece in pieces(new, self.recipe.learner.pass_tokens, len(self._places)):
            task = asyncio.ensure_future(self._scored(piece))
            task.add_done_callback(retrieved)
            self._answers |= {key_of(*pair): task for pair in piece}
        self._steps |= {key: max(step, self._steps.get(key, step)) for key in wanted}
        tasks = {self._answers[key] for key in wanted}
        if tasks:
            await asyncio.gather(*(asyncio.shield(task) for task in tasks))

    def answer(self, prompt: np.ndarray, response: np.ndarray) -> Any:
        """The reference to a pair's hidden states, once it was asked for."""
        key = key_of(prompt, response)
        return self._answers[key].result()[key]

    def forget(self, step: int | None = None) -> None:
        """Drop what was asked for batches up to this step, None: all, also what is still being scored."""
        dropped = {key for key, of in self._steps.items() if step is None or of <= step}
        tasks = {self._answers.pop(key) for key in dropped}
        for key in dropped:
            del self._steps[key]
        for task in tasks - set(self._answers.values()):
            task.cancel()

    async def _scored(self, pairs: Sequence[Pair]) -> dict[Key, Any]:
        tokens = sum(len(prompt) + len(response) for prompt, response in pairs)
        while True:
            place = await self._serving()
            part = place.part
            place.load += tokens
            try:
                call = place.handle.score.options(num_returns=len(pairs) + 1).remote(pairs, self.version)
                self._seen[place.index] = await self._answer(place, "score", call[-1])
                return {key_of(*pair): ref for pair, ref in zip(pairs, call[:-1], strict=True)}
            except PartFailed:
                if self._stands(place, part):
                    raise
            finally:
                place.load -= tokens

    async def head(self) -> Any:
        """The reference to the output projection of the weights that all ranks hold."""
        while True:
            place = await self._serving()
            part = place.part
            head, there = place.handle.head.options(num_returns=2).remote()
            try:
                await self._answer(place, "head", there)
                return head
            except PartFailed:
                if self._stands(place, part):
                    raise

    @staticmethod
    def _stands(place: _Place, part: Part) -> bool:
        """Whether nobody replaces, or has replaced, what has failed."""
        return place.replacing is None and place.part is part

    def usage(self) -> dict[str, float]:
        """Seconds at work and bytes of memory, as they last told them: of each the maximum over the ranks."""
        names = {name for seen in self._seen.values() for name in seen}
        return {name: max(seen.get(name, 0.0) for seen in self._seen.values()) for name in names}

    # ---- life ----

    async def start(self) -> None:
        await asyncio.gather(*(self._started(place) for place in self._places))

    async def _started(self, place: _Place) -> None:
        node, process, logs = await self._answer(place, "identity", place.handle.identity.remote())
        place.part.runs_in(node, {process: "its process"}, complete=True, logs=logs)
        await self._answer(place, "start", place.handle.start.remote())

    def _rank(self, index: int) -> tuple[ActorHandle, Part]:
        part = Part(f"teacher rank {index}", self._longest)
        actor: Any = ray.remote(TeacherRank).options(**self._options)
        return actor.remote(self.recipe, part.name), part

    async def _serving(self) -> _Place:
        """The rank with the least to do; waited for where none serves.  Raises what keeps it from being replaced."""
        while not (serving := [place for place in self._places if place.replacing is None]):
            tasks = [place.replacing for place in self._places if place.replacing is not None]
            if not tasks:
                raise UserError("The teacher's ranks have been shut down.")
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        return min(serving, key=lambda place: place.load)

    async def _answer(self, place: _Place, phase: str, ref: Any) -> Any:
        """What a rank answers.  Raises PartFailed where it is lost; a supervised one is being replaced by then."""
        part = place.part
        try:
            return await answered([part], phase, ref)
        except (PartFailed, RayActorError, RayTaskError) as error:
            cause = error.cause if isinstance(error, RayTaskError) else error
            if isinstance(error, RayTaskError) and not isinstance(cause, PartFailed):
                raise (cause if isinstance(cause, UserError) else error) from None
            failure = await self._lost(part, cause, phase)
            if place.part is part:
                self.lose(part, failure)
            raise failure from error

    async def _lost(self, part: Part, error: BaseException, phase: str) -> PartFailed:
        """With what the kernel says, where it says something."""
        known = part.failure if part.failure is not None else error
        if isinstance(known, PartFailed):
            return known
        causes = await self.watch.explain([part])
        died = f"its process died ({str(error).splitlines()[0]})"
        return PartFailed(part.name, causes.get(part, died), phase)

    def lose(self, part: Part, failure: Exception) -> None:
        """Give a rank up, whoever noticed.  One that is supervised is replaced, unless that has begun."""
        place = next((place for place in self._places if place.part is part), None)
        if place is None or place.replacing is not None or self._recovery is None:
            return
        known = failure if isinstance(failure, PartFailed) else PartFailed(part.name, str(failure), part.phase)
        place.replacing = asyncio.ensure_future(self._replace(place, known))
        place.replacing.add_done_callback(retrieved)  # whoever waits for the rank raises it
        part.fail(known.cause)

    async def _replace(self, place: _Place, failure: PartFailed) -> None:
        assert self._recovery is not None
        while True:
            self._recovery.permit(failure)
            await self._kill(place)
            if "num_gpus" not in self._options:  # one that shares its cores fits wherever a machine is left
                self._options = self._options | {"num_cpus": 0}
            place.handle, place.part = self._rank(place.index)
            try:
                await self._started(place)
                taught = -1
                while taught != self.version:  # others may come meanwhile
                    taught = self.version
                    await self._recovery.give_weights(place.handle)
                break
            except PartFailed as another:
                failure = another
        place.replacing = None

    async def _kill(self, place: _Place) -> None:
        ray.kill(place.handle)
        await self.watch.kill(place.part)

    def abandon(self) -> None:
        """Kill what runs on this machine without asking Ray, which is gone."""
        self.watch.kill_here(self.parts)
        self._end()

    def shutdown(self) -> None:
        for place in self._end():
            ray.kill(place.handle)

    def _end(self) -> list[_Place]:
        places, self._places, self._recovery = self._places, [], None
        for place in places:
            if place.replacing is not None:
                place.replacing.cancel()
        self.forget()
        return places


def key_of(prompt: np.ndarray, response: np.ndarray) -> Key:
    """Says which tokens stand where, and how long the prompt is."""
    digest = blake2b(np.int64(len(prompt)).tobytes(), digest_size=16)
    digest.update(np.ascontiguousarray(prompt, np.int64).tobytes())
    digest.update(np.ascontiguousarray(response, np.int64).tobytes())
    return digest.digest()


def pieces(pairs: Sequence[Pair], pass_tokens: int, ranks: int) -> list[list[Pair]]:
    """The pairs in calls of about equal work, a call per rank, or fewer where that would not fill a pass.

    Prompts that begin alike stay together: they are computed once.
    """
    total = sum(len(prompt) + len(response) for prompt, response in pairs)
    size = max(min(pass_tokens, total), -(-total // max(ranks, 1)))
    cut: list[list[Pair]] = []
    filled = size
    for i in sorted_prompts([prompt for prompt, _ in pairs]):
        if filled >= size:
            cut.append([])
            filled = 0
        cut[-1].append(pairs[i])
        filled += len(pairs[i][0]) + len(pairs[i][1])
    return cut
