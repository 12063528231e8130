"""Records with numbers that can be checked by hand."""

from __future__ import annotations

from studies.evidence.record import PassCounts, Record


def record(
    run: str,
    passed: dict[str, list[list[int]]],
    *,
    n: int = 4,
    every: int = 320,
    algorithm: str = "",
    world: int = 0,
    used_by: list[str] | None = None,
    status: str = "finished",
    seconds_per_step: float = 2.0,
    train: dict[str, list[float]] | None = None,
    tokens: int = 10,
) -> Record:
    """`passed[dataset][e][p]` of n samples at evaluation e, `every` generations (5 steps) apart.

    tokens: of a generation.  First turns pass half as often as the end.
    """
    evaluations = max((len(rows) for rows in passed.values()), default=0)
    steps = [5 * e for e in range(evaluations)]
    columns = {
        "step": steps,
        "generations": [every * e for e in range(evaluations)],
        "wall_clock_s": [seconds_per_step * step for step in steps],
        "generated_tokens": [tokens * every * e for e in range(evaluations)],
    }
    problems = {}
    for dataset, rows in passed.items():
        ids = [f"{dataset}-{world}-{p}" for p in range(len(rows[0]))]
        difficulty = [("easy", "medium", "hard")[p % 3] for p in range(len(rows[0]))]
        problems[dataset] = PassCounts(ids, difficulty, n, steps, rows)
        columns[f"eval/{dataset}/pass@1"] = [sum(row) / (n * len(row)) for row in rows]
        columns[f"eval/{dataset}/first_turn/pass@1"] = [sum(row) / (2 * n * len(row)) for row in rows]
    last = steps[-1] if steps else 0
    own = {"step": list(range(1, last + 1)), "generations": [64 * s for s in range(1, last + 1)]}
    own["wall_clock_s"] = [seconds_per_step * s for s in own["step"]]
    return Record(
        run=run,
        algorithm=algorithm or ("grpo" if "grpo" in run else "sdpo"),
        world=world,
        seed=world,
        command=f"sdpo train livecodebench name={run.replace('/', '-')}",
        commit="0123456789ab",
        changes=[],
        hardware="a processor, 2 cores, 8 GiB memory",
        started="2026-01-01T00:00:00.000+00:00",
        ended="2026-01-01T00:04:00.000+00:00",
        elapsed_s=240.0,
        status=status,
        reason="" if status == "finished" else "exit status 2: error: it broke",
        settings={"rollout": {"responses": 4}},
        attempts=[],
        train={**own, **(train or {})},
        eval=columns,
        problems=problems,
        used_by=used_by or [run],
    )
