"""A look at the processes of parts, wherever they run."""

from __future__ import annotations

import asyncio
import os
from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from sdpo.supervision.logs import last_words, own_logs
from sdpo.supervision.part import Part
from sdpo.supervision.processes import ProcessTable

_START_S = 120.0  # until the watcher of another machine must have answered for the first time


class Watch:
    """One `ProcessTable` per machine: here directly, elsewhere as a small Ray actor.

    patience: seconds after which a machine that does not answer counts as lost.
    """

    def __init__(self, patience: float = 25.0) -> None:
        self.patience = patience
        self._here = ProcessTable()
        self._elsewhere: dict[str, Any] = {}
        self._known: set[str] = set()  # machines that have answered

    async def look(self, parts: Iterable[Part]) -> dict[Part, str]:
        """What is wrong with whom, in words."""
        by_node: dict[str, list[Part]] = defaultdict(list)
        for part in parts:
            if part.processes:
                by_node[part.node].append(part)
        found = await asyncio.gather(*(self._look(node, on_it) for node, on_it in by_node.items()))
        return {part: cause for causes in found for part, cause in causes.items()}

    async def _look(self, node: str, parts: list[Part]) -> dict[Part, str]:
        numbers = [number for part in parts for number in part.processes]
        growing = [number for part in parts if part.growing for number in part.processes]
        if node == _this_node():
            trouble = self._here.look(numbers, growing)
        else:
            try:
                patience = self.patience if node in self._known else _START_S
                answer = self._table(node).look.remote(numbers, growing)
                trouble = await asyncio.wait_for(answer, patience)
                self._known.add(node)
            except (RayError, TimeoutError):
                self._elsewhere.pop(node, None)
                return {part: f"its machine (Ray node {node[:8]}) is lost" for part in parts}
        causes = {}
        for part in parts:
            for number, role in part.processes.items():
                if number in trouble:  # the first that is named took the others with it
                    causes.setdefault(part, f"{role} (process {number}) {trouble[number]}{_why(part, trouble[number])}")
        for number in set(trouble) - set(numbers):  # a child of one that starts; only what is stopped is a fault
            if "stopped" in trouble[number]:
                for part in parts:
                    if part.growing:
                        causes.setdefault(part, f"a process of it (process {number}) {trouble[number]}")
        return causes

    async def explain(self, parts: Iterable[Part]) -> dict[Part, str]:
        """`look`, soon after something went wrong: who died may not be reaped yet."""
        parts = list(parts)
        for _ in range(10):
            if causes := await self.look(parts):
                return causes
            await asyncio.sleep(0.1)
        return {}

    async def kill(self, part: Part) -> None:
        """End its processes, stopped ones too."""
        if not part.processes:
            return
        if part.node == _this_node():
            self._here.kill(part.processes)
            self._here.forget(part.processes)
        elif part.node in self._elsewhere:
            try:
                call = self._elsewhere[part.node].kill.remote(list(part.processes))
                await asyncio.wait_for(call, self.patience)
            except (RayError, TimeoutError):
                pass  # a machine that is lost has taken them with it

    def kill_here(self, parts: Iterable[Part]) -> None:
        """The same at once, without Ray, for what runs on this machine."""
        for part in parts:
            if part.node == _this_node():
                self._here.kill(part.processes)

    def _table(self, node: str) -> Any:
        if node not in self._elsewhere:
            where = NodeAffinitySchedulingStrategy(node, soft=False)
            self._elsewhere[node] = ray.remote(ProcessTable).options(num_cpus=0, scheduling_strategy=where).remote()
        return self._elsewhere[node]


def identity() -> tuple[str, int, tuple[str, ...]]:
    """Where this process is looked for: Ray's id of its machine, its process id, and its logs."""
    return _this_node(), os.getpid(), own_logs()


def _why(part: Part, trouble: str) -> str:
    """What it wrote before it died by itself; nobody who is killed from outside, or stopped, has written why."""
    if "SIGKILL" in trouble or "stopped" in trouble:
        return ""
    line, _ = last_words(part.logs)
    return f": {line}" if line else ""


def _this_node() -> str:
    return ray.get_runtime_context().get_node_id()
