"""Commands of the package that lies beside the studies: that is the one that is measured."""

from __future__ import annotations

import os

from sdpo.config.paths import PROJECT


def environment(**more: str) -> dict[str, str]:
    """Of a process in which `sdpo` and `studies` are those of this checkout, wherever another copy is installed."""
    path = os.pathsep.join(filter(None, [str(PROJECT), os.environ.get("PYTHONPATH")]))
    return {**os.environ, "PYTHONPATH": path, "PYTHONUNBUFFERED": "1", **more}
