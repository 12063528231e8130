"""data.json: everything that a comparison shows, for other programs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from sdpo.report.bounds import Bound
from sdpo.report.figures import Figure
from sdpo.report.runs import Run
from sdpo.report.tables import ScoreTable
from sdpo.tracking import provenance
from sdpo.tracking.metrics_file import finite
from sdpo.tracking.run_info import now


def comparison_data(
    runs: Sequence[Run], figures: Sequence[Figure], content: dict[str, Any], scores: Sequence[ScoreTable]
) -> bytes:
    """The file's content; NaN is null, and an open end of a bound is null."""
    reach = [
        {
            "dataset": table.dataset,
            "metric": table.metric,
            "rows": [
                {
                    "threshold": row.threshold,
                    "generations": {label: bound.as_json() for label, bound in row.reached.items()},
                    "generations_by_seed": {
                        label: {str(seed): bound.as_json() for seed, bound in seeds.items()}
                        for label, seeds in row.seeds.items()
                    },
                    "ratio_to": table.labels[0],
                    "ratio": {label: bound.as_json() for label, bound in row.ratios.items()},
                    "ratio_by_seed": {
                        label: {str(seed): bound.as_json() for seed, bound in seeds.items()}
                        for label, seeds in row.ratio_seeds.items()
                    },
                    "ratio_interval": {label: Bound(*ends).as_json() for label, ends in row.intervals.items()},
                }
                for row in table.rows
            ],
        }
        for table in content["reach"]
    ]
    data = {
        "title": content["title"],
        "made": now(),
        "made_by": provenance.command(),
        "runs": [
            {
                "name": run.name,
                "label": run.label,
                "steps": run.steps,
                "generations": run.generations,
                "wall_clock_s": run.wall_clock_s,
                **asdict(run.info),
                "settings": run.recipe,
            }
            for run in runs
        ],
        "warnings": content["warnings"],
        "kept_apart": [asdict(each) for each in content["apart"]],
        "figures": [asdict(figure) for figure in figures],
        "generations_to_reach": reach,
        "scores": [asdict(table) for table in scores],
        "settings": asdict(content["settings"]),
    }
    return json.dumps(finite(data), indent=1, allow_nan=False, ensure_ascii=False, default=str).encode() + b"\n"
