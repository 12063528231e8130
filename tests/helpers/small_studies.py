"""Studies of a few tiny runs, and the program that makes them."""

from __future__ import annotations

import sys
from pathlib import Path

TINY = (sys.executable, str(Path(__file__).parents[1] / "studies" / "tiny_run.py"))
STUDIES = {
    "recipe": "livecodebench",
    "profile": "cpu",
    "common": ["evaluation.every=2", "run.steps=4", "tracking.wandb=disabled"],
    "parts": {
        "tuning": {
            "title": "Tuning",
            "question": "Which?",
            "worlds": [0],
            "runs": {
                "sdpo": {"algorithm": "sdpo"},
                "sdpo-fast": {"algorithm": "sdpo", "set": ["learner.lr=2e-3"]},
                "grpo": {"algorithm": "grpo"},
            },
        },
        "comparison": {
            "title": "Comparison",
            "question": "How many?",
            "base": "chosen",
            "worlds": [0, 1],
            "runs": {"sdpo": {"algorithm": "sdpo"}, "grpo": {"algorithm": "grpo"}},
        },
    },
}
