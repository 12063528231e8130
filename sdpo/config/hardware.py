"""Which profile a run takes: gpu where there are GPUs, else cpu; and why, in one line."""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess

from sdpo.errors import UserError


def count_gpus() -> int:
    """NVIDIA GPUs that may be used here, asked of the driver so that torch need not be imported for it."""
    if shutil.which("nvidia-smi") is None:
        return 0
    try:
        listing = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=20, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return 0
    present = sum(line.startswith("GPU ") for line in listing.splitlines())
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")  # of which the driver's list knows nothing
    if visible is None:
        return present
    ids = [word.strip() for word in visible.split(",")]
    usable = itertools.takewhile(lambda word: word and not word.startswith("-"), ids)  # CUDA stops at the first bad one
    return min(len(list(usable)), present)


def known_gpus(profile: str) -> int | None:
    """How many GPUs a run from here has; None: not known (on a cluster, in a plan on a machine without any)."""
    return None if profile != "gpu" or "RAY_ADDRESS" in os.environ else count_gpus() or None


def choose_profile(wanted: str | None, plan_only: bool = False) -> tuple[str, str]:
    """(profile, reason); a plan needs no devices.  Raises UserError for a profile that is unknown or cannot run."""
    cluster = os.environ.get("RAY_ADDRESS")
    if wanted not in (None, "cpu", "gpu"):
        raise UserError(f"There is no profile {wanted!r}; known: cpu, gpu.")
    if wanted == "cpu":
        return "cpu", "asked for"
    if cluster:
        return wanted or "gpu", f"{'asked for' if wanted else 'a cluster is named'} (RAY_ADDRESS={cluster})"
    gpus = count_gpus()
    if gpus:
        return "gpu", f"{gpus} NVIDIA GPU{'s' if gpus > 1 else ''} found"
    if wanted == "gpu" and plan_only:
        return "gpu", "asked for, to plan; this machine has no NVIDIA GPU"
    if wanted == "gpu":
        raise UserError(
            "Profile gpu was asked for, but this machine has no usable NVIDIA GPU (nvidia-smi lists none). "
            "Use PROFILE=cpu, name a Ray cluster with GPUs in RAY_ADDRESS, or repair the driver (`sdpo doctor`)."
        )
    return "cpu", "no NVIDIA GPU found"
