"""Ray's worker process of an engine: imports vLLM and forks its core before Ray brings threads (`core_process`).

Ray runs it in the place of Python (`py_executable`), with its own script and that one's arguments behind.  It is named
by its path, since a worker finds packages by what the driver tells it, which is later.
"""

from __future__ import annotations

import os
import runpy
import shlex
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sdpo.rollout.config import EngineConfig

PATIENCE = "RAY_worker_register_timeout_seconds"  # how long a raylet waits for a worker to say that it is there


def of_engine(config: EngineConfig) -> dict[str, str]:
    """What belongs into the runtime environment of an engine's actor; nothing where it is started as ever.

    That is where GPUs are, whose drivers a fork may disturb; on a cluster, whose machines have this file elsewhere; and
    with a Ray that has not been told to be patient with a worker that imports before it says that it is there.
    """
    elsewhere = os.environ.get("RAY_ADDRESS") or PATIENCE not in os.environ
    if config.device != "cpu" or elsewhere or not Path("/proc/self/task").is_dir():
        return {}
    # -P keeps this folder, whose modules have common names, out of the path.
    return {"py_executable": shlex.join([sys.executable, "-P", __file__])}


def main() -> None:
    script, *arguments = sys.argv[1:]
    sys.path.insert(0, root := str(Path(__file__).resolve().parents[2]))
    try:
        from sdpo.rollout import core_process

        core_process.prepare()
    except Exception:  # noqa: BLE001 — the engine meets it again and says what it means
        traceback.print_exc()
    sys.path.remove(root)
    sys.argv = [script, *arguments]
    runpy.run_path(script, run_name="__main__")


if __name__ == "__main__":
    main()
