"""sdpo from Python: `train`, `evaluate`, `inspect` and `load_run`, as small as the commands.

import sdpo
run = sdpo.train("livecodebench", algorithm="sdpo", run={"steps": 20}, seed=1)
run.metrics().plot("step", "train/pass_rate")
"""

from sdpo.api.commands import evaluate, train
from sdpo.api.run import Run, inspect, load_run

__all__ = ["Run", "evaluate", "inspect", "load_run", "train"]
