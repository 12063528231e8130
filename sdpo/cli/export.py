"""`sdpo export`: a run's policy as a Hugging Face folder."""

from __future__ import annotations

import shutil
from pathlib import Path

from sdpo.config.terminal import say
from sdpo.errors import UserError
from sdpo.training.checkpoints import find_policy


def run(options) -> int:
    policy, out = find_policy(options.run), Path(options.out)
    if out.exists() and any(out.iterdir() if out.is_dir() else [out]):
        raise UserError(f"{out} exists and is not empty; give a new folder.")
    shutil.copytree(policy, out, dirs_exist_ok=True)
    say(f"Copied {policy} to {out}")
    return 0
