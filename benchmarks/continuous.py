"""Engines that wait for a batch's longest response, beside engines that do not (`rollout.mode`).

Two parts, each with all modes in one run and a record of its own:

* In simulated time (`benchmarks.simulated`), for 8, 64 and 512 engines with a learner that grows with them: the
  package's own `Prefetch` and `Continuous`, response lengths that are log-normal and cut at 20 × the median, and the
  phase times of a run on a GPU (docs/results/gpu/sized-sdpo): seconds of a decoding pass, of an update per token, of a
  publication.  A pass takes as long for one response as for 64.
* On this machine, cpu profile: the same training run in each mode, whose responses have such lengths, as tokens per
  second.  The bundled policy never ends a response here; each gets a limit that is drawn by its seed.

    python -m benchmarks.continuous [--only simulation|cpu]
"""

from __future__ import annotations

import asyncio
import json
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from transformers import AutoTokenizer

from benchmarks.common import RESULTS, Record, median_ratio, medians, parser, progress
from benchmarks.responses import LONGEST, SIGMA, lengths
from benchmarks.simulated import SimulatedEngine, simulate
from sdpo.algorithms import build_algorithm
from sdpo.config.files import find_recipe, load_recipe
from sdpo.config.paths import locate
from sdpo.rollout.pool import EnginePool
from sdpo.rollout.requests import Sampling
from sdpo.tracking import Console, RunFolder, RunInfo, Tracker
from sdpo.training.continuous import Continuous
from sdpo.training.interrupt import Interrupt
from sdpo.training.launch import cluster, make_trainer
from sdpo.training.parts import prepared
from sdpo.training.prefetch import Prefetch
from sdpo.training.private_folder import private_folder
from sdpo.training.workers import workers
from sdpo.types import Turn

RESPONSES = 8
AT_ONCE = 64  # responses of an engine
MANY = 64  # engines
# Of 3,200 responses of a published run 14.6 % had 2,048 tokens or more, and with twice that limit 3.6 % had 4,096
# (marin-community/marin, issue 8936): a log-normal distribution of this median and sigma.
PUBLISHED = {"longest": 4096, "median": 768, "sigma": 0.93}


@dataclass(frozen=True)
class Side:
    mode: str
    staleness: int

    def __str__(self) -> str:
        return f"{self.mode}, staleness {self.staleness}"


SIDES = [Side("synchronous", staleness) for staleness in (0, 1, 4, 16)]
SIDES += [Side("continuous", staleness) for staleness in (1, 4, 8, 16)]
FEW_SIDES = [side for side in SIDES if side.staleness in (0, 16)]  # where a simulation takes minutes
CPU_SIDES = [Side("synchronous", 0), Side("synchronous", 1), Side("continuous", 4), Side("continuous", 16)]


def main() -> int:
    options = parser(__doc__, repeats=3)
    options.add_argument("--only", choices=("simulation", "cpu"), help="one of the two parts")
    options.add_argument("--steps", type=int, default=60, help="of a simulated run (default 60)")
    args = options.parse_args()
    if args.output is not None and args.only is None:
        options.error("--output takes one record; add --only")
    columns = ["", "s per step", "tokens/s ÷ staleness 0", "engine time idle", "slots empty"]
    columns += ["lag of a token, versions", "of the oldest"]
    if args.only != "cpu":
        record = Record("continuous_simulation", args)
        rows, notes, phases = simulation((2,) if args.small else (8, 64, 512), 24 if args.small else args.steps)
        record.finish(columns, rows, notes, phases=phases)
    if args.only != "simulation":
        record = Record("continuous_cpu", args)
        rows, notes, samples = on_this_machine(1 if args.small else args.repeats, args.small)
        record.finish(columns, rows, notes, samples=samples)
    return 0


# ---- in simulated time ----


@dataclass(frozen=True)
class Phases:
    """Seconds, as measured: of a decoding pass, of an update by token and engine, of a publication; and lengths."""

    decode: float
    update: float
    publish: float
    longest: int = 8192  # tokens
    median: float | None = None
    sigma: float = SIGMA

    def lengths(self, rng: np.random.Generator, size: tuple[int, ...]) -> np.ndarray:
        return lengths(rng, size, self.longest, self.median, self.sigma)

    @classmethod
    def measured(cls) -> Phases:
        """Of docs/results/gpu/sized-sdpo: one engine, one rank, 64 responses of 1,024 tokens at most."""
        lines = (RESULTS / "gpu" / "sized-sdpo" / "metrics.jsonl").read_text().splitlines()
        steps = [row for row in map(json.loads, lines) if "time/update" in row]
        return cls(
            decode=statistics.median(row["time/generate"] / row["response/length_max"] for row in steps),
            update=statistics.median(row["time/update"] / row["response/tokens"] for row in steps),
            publish=statistics.median(row["time/publish"] for row in steps),
        )


@dataclass
class SimulatedRun:
    """Measured from a third of the run to three quarters: neither its beginning nor its end."""

    side: Side
    engines: int
    steps: int
    phases: Phases
    lives: dict[int, list[tuple[float, float, int]]] = field(default_factory=dict)  # began, ended, tokens
    published: list[float] = field(default_factory=lambda: [0.0])
    lags: list[np.ndarray] = field(default_factory=list)  # [responses, 3]: tokens, and their lag's mean and largest
    marks: list[tuple[float, float, float, int]] = field(default_factory=list)  # time, busy, sequences, tokens learned

    async def main(self) -> dict[str, float]:
        size = self.engines * AT_ONCE // RESPONSES
        rng = np.random.default_rng(0)
        self.lengths = self.phases.lengths(rng, (size * self.steps, RESPONSES))
        self.pool = [SimulatedEngine(self.phases.decode, 0.0, AT_ONCE) for _ in range(self.engines)]
        source = self.source(size)
        first, last = self.steps // 3, self.steps * 3 // 4
        learned = 0
        for step in range(1, self.steps + 1):
            groups = await source.take(step, lambda done: None)
            if first < step <= last:
                self.note_lags(groups, step)
            tokens = int(self.lengths[groups].sum())
            learned += tokens
            await asyncio.sleep(self.phases.update * tokens / self.engines)
            for engine in self.pool:
                engine.pause()
            await asyncio.sleep(self.phases.publish)
            for engine in self.pool:
                engine.resume()
            self.published.append(asyncio.get_running_loop().time())
            if step in (first, last):
                self.mark(learned)
        await source.close()
        seconds, busy, sequences, tokens = (b - a for a, b in zip(*self.marks, strict=True))
        share = np.concatenate(self.lags)
        return {
            "step_s": seconds / (last - first),
            "tokens_per_s": tokens / seconds,
            "idle": max(0.0, 1 - busy / seconds / self.engines),
            "sequences": sequences / seconds / self.engines,
            "lag": float((share[:, 0] * share[:, 1]).sum() / share[:, 0].sum()),
            "oldest": float(share[:, 2].max()),
        }

    def source(self, size: int) -> Continuous[int] | Prefetch[list[int]]:
        async def batch(step: int, on_response: Callable[[int], None]) -> list[int]:
            numbers = range((step - 1) * size, step * size)
            return await asyncio.gather(*(self.group(number, on_response) for number in numbers))

        if self.side.mode == "synchronous":
            return Prefetch(batch, self.side.staleness, self.steps)
        return Continuous(
            self.group,
            size=size,
            responses=RESPONSES,
            at_once=size * RESPONSES,
            bound=self.side.staleness,
            done=0,
            last=self.steps,
        )

    async def group(self, number: int, on_response: Callable[[int], None]) -> int:
        engine = min(self.pool, key=lambda each: each.load)
        lives = self.lives[number] = []
        loop = asyncio.get_running_loop()

        def ended(tokens: int, sampling: asyncio.Future[float]) -> None:
            lives.append((sampling.result(), loop.time(), tokens))
            on_response(1)

        sampled = [engine.generate(int(tokens)) for tokens in self.lengths[number]]
        for tokens, sampling in zip(self.lengths[number], sampled, strict=True):
            sampling.add_done_callback(partial(ended, int(tokens)))
        await asyncio.gather(*sampled)
        return number

    def note_lags(self, groups: Sequence[int], step: int) -> None:
        lives = np.array([life for number in groups for life in self.lives.pop(number)])  # [responses, 3]
        within = np.linspace(lives[:, 0], lives[:, 1], 9, axis=1)
        lags = step - np.searchsorted(self.published, within.ravel(), side="right").reshape(within.shape)
        self.lags.append(np.stack([lives[:, 2], lags.mean(axis=1), lags.max(axis=1)], axis=1))

    def mark(self, learned: int) -> None:
        for engine in self.pool:
            engine.settle()
        busy, sequences = (sum(getattr(e, name) for e in self.pool) for name in ("busy_seconds", "sequence_seconds"))
        self.marks.append((asyncio.get_running_loop().time(), busy, sequences, learned))


def simulation(engines: Sequence[int], steps: int) -> tuple[list[list[str]], list[str], dict[str, Any]]:
    phases, rows, found = Phases.measured(), [], {}
    published = replace(phases, **PUBLISHED)
    for count, given in [*((count, phases) for count in engines), *((count, published) for count in engines)]:
        name = f"{count} engines{', published lengths' * (given is published)}"
        own = {}
        for side in SIDES if count <= MANY and given is phases else FEW_SIDES:
            progress(f"simulating {name}: {side}")
            own[f"{name}, {side}"] = simulate(SimulatedRun(side, count, steps, given).main)
        base = own[f"{name}, {SIDES[0]}"]["tokens_per_s"]
        rows += [_row(label, one, base) for label, one in own.items()]
        rows.append(_limit(name, count, given, base))
        found |= own
    progress("")
    notes = [
        f"In simulated time: {AT_ONCE} responses for each engine and step in groups of {RESPONSES}, of "
        f"{phases.longest // LONGEST} tokens at the median and {phases.longest:,} at most; a decoding pass "
        f"{phases.decode * 1e3:.2f} ms, an update {phases.update * 1e6:.0f} µs per token of an engine, a publication "
        f"{phases.publish:.2f} s. Idle: no response under way; empty: of {AT_ONCE} an engine. Limit: all slots always "
        "full, or the learner never waits, whichever takes longer. Published lengths: "
        f"{PUBLISHED['median']} tokens at the median, {PUBLISHED['longest']:,} at most, sigma {PUBLISHED['sigma']} "
        "(from the shares of responses at two limits, marin-community/marin issue 8936).",
    ]
    return rows, notes, {"measured": vars(phases), "simulated": found}


def _limit(name: str, engines: int, phases: Phases, base: float) -> list[str]:
    """What no mode can exceed: an engine's share of a batch decoded all at once, and the learner that never waits."""
    mean = phases.lengths(np.random.default_rng(1), (100_000,)).mean()
    decode, learner = mean * phases.decode, mean * AT_ONCE * phases.update + phases.publish
    step = max(decode + phases.publish, learner)
    rate = engines * AT_ONCE * mean / step
    return [f"{name}, limit", f"{step:.2f}", f"{rate / base:.2f}", "0%", f"{1 - decode / step:.0%}", "", ""]


def _row(name: str, found: dict[str, float], base: float) -> list[str]:
    return [
        name,
        f"{found['step_s']:.2f}",
        f"{found['tokens_per_s'] / base:.2f}",
        f"{found['idle']:.0%}",
        f"{max(0.0, 1 - found['sequences'] / AT_ONCE):.0%}",
        f"{found['lag']:.2f}",
        f"{found['oldest']:.0f}",
    ]


# ---- on this machine ----


class LongTailed:
    """A pool whose responses end by a limit of their own, which their group's seed draws."""

    def __init__(self, pool: EnginePool) -> None:
        self._pool = pool

    def generate(
        self,
        prompt_ids: Sequence[int],
        n: int,
        sampling: Sampling,
        seed: int,
        engine: int | None = None,
        slot: int = 0,
    ) -> list[asyncio.Future[Turn]]:
        drawn = lengths(np.random.default_rng(seed), (n,), sampling.max_tokens)
        limited = [replace(sampling, max_tokens=int(tokens)) for tokens in drawn]
        return [self._pool.generate(prompt_ids, 1, each, seed + i, engine, slot)[0] for i, each in enumerate(limited)]


def on_this_machine(repeats: int, small: bool) -> tuple[list[list[str]], list[str], dict[str, Any]]:
    with tempfile.TemporaryDirectory(prefix="continuous-") as name:
        folder = Path(name)
        policy = endless_policy(folder / "policy")
        steps, longest = (2, 40) if small else (16, 480)
        common = (
            f"model.path={policy}",
            f"rollout.max_response_tokens={longest}",
            f"run.steps={steps}",
            "run.questions=8",
            "rollout.responses=4",
            "evaluation.samples=1",
            "evaluation.ks=[1]",
            "probe.every=0",  # a probe waits for all that is under way
            "tracking.wandb=disabled",
        )
        sides = CPU_SIDES[::2] if small else CPU_SIDES
        samples = asyncio.run(_measured(sides, common, folder, repeats, steps))
    typical = medians(samples)
    base = next(iter(samples))
    rows = []
    for name, found in typical.items():
        ratio = median_ratio(samples, name, base, "tokens_per_s")
        cells = [f"cpu profile, {name}", f"{found['step_s']:.2f}", f"{ratio:.2f}", f"{found['idle']:.0%}"]
        rows.append([*cells, f"{1 - found['sequences'] / 32:.0%}", f"{found['lag']:.2f}", f"{found['oldest']:.0f}"])
    notes = [
        f"On this machine: one engine, {steps} steps of 8 questions × 4 responses, of {longest // LONGEST} tokens at "
        f"the median and {longest} at most; slots: the 32 of a batch. All modes sample and learn from the same groups, "
        "from the first one's beginning to the last step's end. Engine and learner share the cores. Medians of "
        f"{repeats} runs of each mode, in turn; the ratio is to {base} "
        f"({typical[base]['tokens_per_s']:,.0f} tokens/s).",
    ]
    return rows, notes, samples


def endless_policy(folder: Path) -> Path:
    """The bundled policy, for which another token ends a response: one that it never writes."""
    shutil.copytree(locate("policies/minicode"), folder)
    token = "<|system|>"
    number = AutoTokenizer.from_pretrained(folder).convert_tokens_to_ids(token)
    for name, values in {
        "config.json": {"eos_token_id": number},
        "generation_config.json": {"eos_token_id": number},
        "tokenizer_config.json": {"eos_token": token},
    }.items():
        content = json.loads((folder / name).read_text())
        (folder / name).write_text(json.dumps(content | values))
    return folder


async def _measured(
    sides: Sequence[Side], common: tuple[str, ...], folder: Path, repeats: int, steps: int
) -> dict[str, list[dict[str, float]]]:
    """All runs on the same engine and learner."""
    recipes = {}
    for side in sides:
        modes = (f"rollout.mode={side.mode}", f"rollout.staleness={side.staleness}")
        recipes[side] = load_recipe(find_recipe("livecodebench", "sdpo"), "cpu", (*common, *modes))
    recipe = next(iter(recipes.values()))
    algorithm = build_algorithm(recipe)
    samples: dict[str, list[dict[str, float]]] = {str(side): [] for side in sides}
    with (
        Console("continuous", steps, plain=True) as console,
        private_folder(None, console.message),
        prepared(recipe, console) as parts,
    ):
        async with (
            cluster(console) as resources,
            workers(recipe, algorithm.plan, resources, console) as (pool, learner),
        ):
            for number in range(repeats):
                for side, own in recipes.items():
                    with RunFolder(folder / f"{side.mode}-{side.staleness}-{number}") as run:
                        run.create(RunInfo.collect(recipe="", algorithm="sdpo", seed=0, profile="cpu"), {})
                        tracker, interrupt = Tracker(run, console), Interrupt(console.message)
                        given = build_algorithm(own), parts, pool, learner, run, tracker, interrupt
                        trainer = make_trainer(own, *given)
                        trainer.generation.pool = LongTailed(pool)  # type: ignore[assignment]
                        await trainer.start()
                        began = time.monotonic()
                        try:
                            for _ in range(steps):
                                await trainer.step()
                        finally:
                            await trainer.batches.close()
                        samples[str(side)].append(_read(run, time.monotonic() - began))
    return samples


def _read(run: RunFolder, seconds: float) -> dict[str, float]:
    rows = [row for row in run.metrics if "response/tokens" in row]
    tokens = np.array([row["response/tokens"] for row in rows])
    clock = np.diff([0.0, *(row["wall_clock_s"] for row in rows)])

    def mean(key: str, weights: np.ndarray) -> float:
        return float(np.average([row[key] for row in rows], weights=weights))

    return {
        "tokens_per_s": float(tokens.sum() / seconds),
        "step_s": seconds / len(rows),
        "idle": 1 - mean("utilization/engines", clock),
        "sequences": mean("utilization/engines_sequences", clock),
        "lag": mean("response/token_staleness_mean", tokens),
        "oldest": max(row["response/token_staleness_max"] for row in rows),
    }


if __name__ == "__main__":
    sys.exit(main())
