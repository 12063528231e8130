"""The committed records: each is still readable as a recipe, and is the answer to the runs that it says it answers."""

from __future__ import annotations

from pathlib import Path

import pytest

from sdpo.config.files import validate
from sdpo.config.paths import PROJECT
from studies.evidence.evidence import Evidence
from studies.evidence.identity import identity, identity_of
from studies.evidence.layout import Layout
from studies.evidence.record import load_records
from studies.evidence.runner import resolve
from studies.evidence.studies import RunSpec, load_studies

LAYOUT = Layout(PROJECT / "docs" / "results" / "evidence", Path("runs"))
RECORDS = load_records(LAYOUT.records)
# Declared for whoever has the hours; the page says that they are not run.
NEVER_MADE = {
    "combined": 2,
    "longer": 3,
    "sizes": 4,
    "turns": 8,
}


def declared() -> list[RunSpec]:
    evidence = Evidence.load(load_studies(), LAYOUT)
    return [spec for part in evidence.studies.parts for spec in evidence.specs(part)]


def test_there_are_as_many_as_ever():
    assert len(RECORDS) == 184 and all(record.finished for record in RECORDS)


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: record.run)
def test_a_record_reads_as_a_recipe_and_says_what_it_said(record):
    recipe = validate(record.settings, record.run, resolved=True)
    assert identity_of(record) == identity(recipe)
    assert recipe.data.world_seed == record.world
    kept = recipe.model_dump(mode="json")
    changed = {}
    for section, options in record.settings.items():
        if isinstance(options, dict):
            kept_options = kept[section] or {}
            changed |= {f"{section}.{k}": v for k, v in options.items() if kept_options.get(k, None) != v}
        elif kept[section] != options:
            changed[section] = options
    # What other names have taken the place of, and nothing else.
    old = {
        "policy_gradient.variant": "grpo",
        "context.template": ("sdft", "opsd"),
        "context.feedback_noise": (0.0, 0.1, 0.3, 1.0),
        "data.families": (["minicode"], ["minicode", "minicode-texts"]),
        "algorithm.name": "sdpo",
        "algorithm.entropy_beta": None,
        "data.world_seed": None,
    }
    for path, value in changed.items():
        assert path in old, path
        assert value == old[path] or (isinstance(old[path], tuple) and value in old[path]), path


def test_every_declared_run_has_its_record_but_those_never_made():
    """As the runner looks for it: by the settings, whatever the record was made for."""
    by_run = {run: record for record in RECORDS for run in record.used_by}
    known = [identity_of(record) for record in RECORDS]
    missing: dict[str, int] = {}
    for spec in declared():
        wanted = identity(resolve(spec, LAYOUT))
        if spec.id in by_run:
            assert identity_of(by_run[spec.id]) == wanted, spec.id
        elif wanted not in known:
            missing[spec.part] = missing.get(spec.part, 0) + 1
    assert missing == NEVER_MADE
