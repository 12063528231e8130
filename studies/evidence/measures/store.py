"""Files of measurements: one JSON per policy or run, with what is needed to know where it came from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from sdpo.errors import UserError
from sdpo.tracking import provenance
from sdpo.tracking.disk import atomic_write
from sdpo.tracking.run_info import now
from studies.evidence.attempt import changed_files
from studies.evidence.record import dump

FORMAT = 1


def save(path: Path, seconds: float, content: dict[str, Any]) -> None:
    origin = {
        "format": FORMAT,
        "made": now(),
        "command": provenance.command(),
        "commit": provenance.commit().split()[0],
        "changes": changed_files(),
        "hardware": provenance.hardware(),
        "elapsed_s": round(seconds, 1),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic_write(path, (dump(origin | content) + "\n").encode())


def load_all(folder: Path) -> dict[str, dict[str, Any]]:
    """File name without ending → content.  Raises UserError for a file that is none of `save`'s."""
    found = {}
    for path in sorted(folder.glob("*.json")):
        try:
            content = json.loads(path.read_text())
            if content["format"] != FORMAT:
                raise ValueError(f"format {content['format']}")
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(f"{path} is not a measurement ({error!r}); take it from git again.") from error
        found[path.stem] = content
    return found
