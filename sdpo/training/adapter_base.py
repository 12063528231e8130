"""The base of an adapter: by name and content beside the adapter, and both merged into one model folder."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sdpo.checkpoints.durable import write_file
from sdpo.config.paths import locate
from sdpo.config.sections import ModelSettings
from sdpo.config.terminal import say
from sdpo.errors import UserError
from sdpo.training import inputs
from sdpo.training.checkpoints import is_adapter

NAME = "base.json"
_MODEL = "model/"


def name_base(policy: Path, model: ModelSettings, run: Path) -> None:
    """Write beside the adapter of a run what its base is: path, dtype, and the checksums that the run began with."""
    noted = inputs.read(run / inputs.NAME)
    files = {name.removeprefix(_MODEL): found for name, found in noted.items() if name.startswith(_MODEL)}
    content = {"path": model.path, "dtype": model.dtype, "files": files}
    write_file(policy / NAME, json.dumps(content, indent=1).encode() + b"\n")


@contextmanager
def whole_model(policy: Path) -> Iterator[Path]:
    """The policy's folder; of an adapter a temporary one with base and adapter merged."""
    if not is_adapter(policy):
        yield policy
        return
    with tempfile.TemporaryDirectory(prefix="sdpo-merged-") as folder:
        say(f"Merging {policy} with its base …")
        merge(policy, Path(folder))
        yield Path(folder)


def merge(policy: Path, out: Path) -> None:
    """Write the base of an adapter's folder with the adapter in its weights, and the tokenizer, as a model folder.

    The weights are those that the engines had.  Raises UserError if the base is not there, or not the same any more.
    """
    from sdpo.learner.merging import merged_model  # brings torch

    note = policy / NAME
    if not note.is_file():
        raise UserError(f"{policy} does not say what its base is ({NAME}). PEFT can merge it: merge_and_unload().")
    base = json.loads(note.read_bytes())
    found = inputs.model_files(base["path"])
    if changed := inputs.differences(base["files"], found):
        name, (old, new) = next(iter(changed.items()))
        raise UserError(
            f"{policy} is an adapter for {base['path']}, whose {name} is another one now ({old} → {new}). Bring back "
            "the model that the run began with."
        )
    merged_model(policy, locate(base["path"]), base["dtype"], out)
