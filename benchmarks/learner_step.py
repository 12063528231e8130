"""One step of the learner: SDPO beside GRPO on the same responses, beside what their arithmetic lets one expect.

The bundled policy answers bundled problems and the sandbox judges; both algorithms then train on these responses, each
in a DeepSpeed engine of its own in this process, in turn.  The teacher adds one forward pass over its longer prompt;
where it has ranks of its own (`teacher.placement=own`), the learner only projects what they have said beforehand.
"""

from __future__ import annotations

import sys
from dataclasses import replace

import torch

from benchmarks.common import Record, interleave, median_ratio, medians, parser, timed
from benchmarks.learner import dealt, start_worker, step
from benchmarks.responses import sampled_groups, samples_of
from sdpo.config.files import find_recipe, load_recipe
from sdpo.config.model_files import load_config
from sdpo.config.schema import Recipe
from sdpo.learner.arithmetic import Forward, packed, step_flops
from sdpo.learner.packing import fill, pack
from sdpo.learner.rows import Row
from sdpo.types import Sample

BOUND = 1.15  # measured ratio, of the predicted one
ELSEWHERE = 1.05  # measured ratio to GRPO of a step whose teacher is computed elsewhere
SIDES = {
    "sdpo": ("sdpo", "SDPO"),
    "own": ("sdpo", "SDPO, teacher of its own", "teacher.placement=own"),
    "grpo": ("grpo", "GRPO"),
}


def main() -> int:
    options = parser(__doc__, repeats=11)
    options.add_argument("--threads", type=int, default=2, help="threads of the learner")
    args = options.parse_args()
    record = Record("learner_step", args)
    recipes = {name: _recipe(side[0], args.threads, *side[2:]) for name, side in SIDES.items()}
    questions, responses = (2, 2) if args.small else (16, 4)
    groups = sampled_groups(recipes["sdpo"], questions, responses)
    samples = {name: samples_of(recipe, groups) for name, recipe in recipes.items()}
    counted, sides, steps = {}, {}, {}
    for name, recipe in recipes.items():
        worker, (micro_batches,) = start_worker(recipe), dealt(recipe, samples[name])
        counted[name] = arithmetic(recipe, micro_batches)
        if recipe.teacher_ranks:
            micro_batches = _scored(recipe, worker, micro_batches)
        steps[name] = lambda worker=worker, batches=micro_batches: step(worker, batches)
        steps[name]()
        sides[name] = lambda work=steps[name]: timed(work)
    measured = interleave(sides, args.repeats)
    predicted = counted["sdpo"]["total"] / counted["grpo"]["total"]
    ratio, elsewhere = (median_ratio(measured, name, "grpo") for name in ("sdpo", "own"))
    processor = median_ratio(measured, "sdpo", "grpo", "processor_seconds")
    middle = medians(measured)
    rows = [
        [
            SIDES[name][1],
            f"{counted[name]['total'] / 1e9:.1f}",
            f"{1000 * middle[name]['seconds']:.0f}",
            f"{1000 * middle[name]['processor_seconds']:.0f}",
            f"{counted[name]['total'] / middle[name]['seconds'] / 1e9:.1f}",
        ]
        for name in SIDES
    ]
    rows.append(["SDPO ÷ GRPO", f"{predicted:.3f}", f"{ratio:.3f}", f"{processor:.3f}", ""])
    apart = counted["own"]["total"] / counted["grpo"]["total"]
    by_processor = median_ratio(measured, "own", "grpo", "processor_seconds")
    rows.append(["teacher of its own ÷ GRPO", f"{apart:.3f}", f"{elsewhere:.3f}", f"{by_processor:.3f}", ""])
    record.finish(
        ["step", "counted GFLOP", "ms", "processor ms", "GFLOP/s"],
        rows,
        [
            f"Measured ÷ counted: {ratio / predicted:.3f} (bound {BOUND:g}), by processor time "
            f"{processor / predicted:.3f}.",
            f"A teacher of its own ÷ GRPO: {elsewhere:.3f} (bound {ELSEWHERE:g}), without what its ranks compute, and "
            "without what travels.",
            _what(samples),
        ],
        counted=counted,
        predicted_ratio=predicted,
        measured_ratio=ratio,
        measured_ratio_processor=processor,
        bound_met=ratio <= BOUND * predicted,
        elsewhere_ratio=elsewhere,
        elsewhere_bound_met=elsewhere <= ELSEWHERE,
        samples=measured,
        where_the_difference_goes=_difference(steps),
    )
    return 0


def _recipe(algorithm: str, threads: int, *overrides: str) -> Recipe:
    return load_recipe(find_recipe("livecodebench", algorithm), "cpu", (f"learner.cpu_threads={threads}", *overrides))


def _scored(recipe: Recipe, worker, micro_batches: list[list[Row]]) -> list[list[Row]]:
    """The rows with what a teacher of its own says of them, as the learner's ranks get them."""
    from sdpo.learner.scorer import Scorer

    scorer = Scorer(recipe)
    worker.take_head(scorer.head())
    told = [row for rows in micro_batches for row in rows if row.teacher_prompt_ids is not None]
    states = iter(scorer.score([(row.teacher_prompt_ids, row.response_ids) for row in told]))
    return [
        [row if row.teacher_prompt_ids is None else replace(row, told=next(states)) for row in rows]
        for rows in micro_batches
    ]


def arithmetic(recipe: Recipe, micro_batches: list[list[Row]]) -> dict[str, float]:
    """Of the packs that the learner makes of these rows."""
    student, teacher, cpu = [], [], torch.device("cpu")
    for rows in micro_batches:
        student.append(pack([row.prompt_ids for row in rows], [row.response_ids for row in rows], cpu))
        taught = [row for row in rows if row.teacher_prompt_ids is not None]
        prompts, responses = [row.teacher_prompt_ids for row in taught], [row.response_ids for row in taught]
        for members in fill(prompts, [len(r) for r in responses], recipe.learner.micro_batch_tokens):
            teacher.append(pack([prompts[i] for i in members], [responses[i] for i in members], cpu))
    theirs = packed(teacher)
    if recipe.teacher_ranks:
        theirs = Forward((), theirs.projected)
    return step_flops(load_config(recipe), packed(student), theirs)


def _what(samples: dict[str, list[Sample]]) -> str:
    rows = samples["sdpo"]
    taught = [s for s in rows if s.teacher is not None]
    mean = {
        "prompt": sum(len(s.prompt_ids) for s in rows) / len(rows),
        "response": sum(len(s.response_ids) for s in rows) / len(rows),
        "teacher's prompt": sum(len(s.teacher.prompt_ids) for s in taught) / max(1, len(taught)),
    }
    lengths = ", ".join(f"{name} {value:.0f}" for name, value in mean.items())
    return f"{len(rows)} responses, {len(taught)} with a teacher's prompt; mean tokens: {lengths}."


def _difference(steps) -> list[dict[str, float | str]]:
    """Operators by the milliseconds that SDPO spends in them beyond GRPO (torch.profiler, one step each)."""
    from torch.profiler import ProfilerActivity, profile

    spent: dict[str, dict[str, float]] = {}
    for name, work in steps.items():
        with profile(activities=[ProfilerActivity.CPU]) as trace:
            work()
        for event in trace.key_averages():
            spent.setdefault(event.key, {})[name] = event.self_cpu_time_total / 1000
    rows = [{"operator": key, **{a: round(ms.get(a, 0.0), 2) for a in SIDES}} for key, ms in spent.items()]
    return sorted(rows, key=lambda r: r["grpo"] - r["sdpo"])[:15]


if __name__ == "__main__":
    sys.exit(main())
