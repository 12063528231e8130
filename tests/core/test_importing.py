"""Imports of large packages go on without the search for garbage, which goes on afterwards."""

from __future__ import annotations

import gc
import subprocess
import sys

import pytest

from sdpo.config.importing import uncollected


def test_it_goes_on_afterwards_as_before():
    with uncollected():
        assert not gc.isenabled()
        with uncollected():
            pass
        assert not gc.isenabled()
    assert gc.isenabled()
    with pytest.raises(ImportError), uncollected():
        import no_such_module  # noqa: F401
    assert gc.isenabled()
    gc.disable()
    try:
        with uncollected():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()


IMPORTS = {
    "a learner's rank": "from sdpo.learner.rank import LearnerRank; LearnerRank(recipe, None, 0)",
    "the tokenizer": "from sdpo.config.model_files import load_tokenizer; load_tokenizer(recipe)",
}


@pytest.mark.parametrize("name", IMPORTS)
def test_what_takes_longest_is_imported_so(name):
    code = f"""
import gc, os, sys
os.environ["DS_ACCELERATOR"] = "cpu"
from sdpo.config.files import find_recipe, load_recipe
recipe = load_recipe(find_recipe("livecodebench", "sdpo"), "cpu")
seen = []

class Watch:
    def find_spec(self, name, path=None, target=None):
        if name == "torch":
            seen.append(gc.isenabled())

sys.meta_path.insert(0, Watch())
{IMPORTS[name]}
print(set(seen), gc.isenabled())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "{False} True"


def test_what_starts_a_run_is_imported_without_them():
    """The driver's part of the start; large packages come when something needs them."""
    code = "import sys, sdpo.cli.train, sdpo.training.launch; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    found = {name.split(".")[0] for name in done.stdout.split()}
    assert "ray" in found
    assert not found & {"torch", "transformers", "deepspeed", "vllm", "wandb", "matplotlib", "sandbox"}
