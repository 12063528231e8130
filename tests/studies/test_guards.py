"""The part on alarms: which runs it draws, and what it reads off their records."""

from __future__ import annotations

import pytest

from sdpo.config.files import find_recipe, load_recipe
from studies.evidence.evidence import Evidence
from studies.evidence.index import Index
from studies.evidence.sections import guards, relatives
from studies.evidence.studies import AGAIN, load_studies, specs
from tests.helpers.records import record

CHOSEN = {"sdpo": ("learner.lr=2e-3",), "grpo": ("reference.coefficient=0.01",)}
ROSE = [0.1 + 0.02 * i for i in range(20)]
SETTINGS = {"tuning": {"chosen": {"sdpo": {"set": []}, "grpo": {"set": []}}}}


def drawn(part="guards"):
    return [spec for spec in specs(load_studies(), part, CHOSEN) if spec.group == AGAIN]


def test_ten_runs_of_other_parts_are_drawn_once_each_and_always_the_same():
    runs = drawn()
    assert [spec.id for spec in drawn()] == [spec.id for spec in runs] and len(runs) == 10
    own = {s.id: s for part in ("comparison", "worlds", "repeats") for s in specs(load_studies(), part, CHOSEN)}
    for spec in runs:
        there = own[spec.label]
        assert (spec.name, spec.algorithm, spec.seed, spec.world) == (
            there.id.replace("/", "-"), there.algorithm, there.seed, there.world,
        )  # fmt: skip
        assert set(spec.overrides) == {*there.overrides, "probe.every=5"}
    assert len({(spec.algorithm, spec.seed, spec.world) for spec in runs}) == 10  # repeats has two of the comparison
    assert {spec.label.split("/")[0] for spec in runs} == {"comparison", "worlds", "repeats"}


@pytest.mark.parametrize("part", ["guards", "claims", "variants"])
def test_every_declared_run_is_a_recipe(part):
    for spec in specs(load_studies(), part, CHOSEN):
        recipe = load_recipe(find_recipe(spec.recipe, spec.algorithm), spec.profile, (*spec.common, *spec.overrides))
        assert recipe.probe.every == (5 if part == "guards" else 10) and recipe.guard.action in ("warn", "rollback")


def shown(part, section, **records):
    made = [record(f"{part}/{name}", {d: [[0] * 6, [3] * 6] for d in ("train", "held_out")}, **how)
            for name, how in records.items()]  # fmt: skip
    return section(Evidence(load_studies(), Index(made), SETTINGS)).text


def steps(rates, **more):
    count = len(rates)
    clock = {name: list(range(1, count + 1)) for name in ("step", "generations", "wall_clock_s")}
    return {**clock, "train/pass_rate": rates, "response/length_mean": [20.0] * count, **more}


def test_a_fall_and_when_it_was_noticed():
    fallen = steps([*ROSE, *[0.0] * 10], **{"probe/gap": [0.4, *[None] * 28, -0.1]})
    lone = drawn()[0].name
    text = shown(
        "guards", guards.section,
        **{"live-world0": {"train": fallen}, "wrong-feedback-world0": {"train": steps([0.1] * 45), "status": "failed"},
           lone: {"train": steps(ROSE)}},
    )  # fmt: skip
    # Means of five: .44 at step 20, .28 at 22, .19 at 23; the alarm comes with the fifth one below half of .44.
    assert "| live teacher | finished | 23 | collapse: 27 | – | .40 → -.10 | .75 [.75, .75] |" in text
    assert "| feedback only, all of it wrong | failed | – | no_progress: 40 | – | – |" in text
    assert "**Of 1 runs that were drawn, none raised an alarm.**" in text and "2 of 14 runs are finished" in text


def test_another_problems_demonstration_beside_its_own():
    text = shown("claims", relatives.other_problem, **{f"{n}-world0": {} for n in ("sdpo", "sdpo-other", "opsd-other")})
    assert "| SDPO, another problem | 1 |" in text and "| OPSD, another problem, world 0 |" in text
