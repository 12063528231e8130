"""The page and its verdicts, from records whose numbers can be worked out by hand."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from sdpo.config.paths import PROJECT
from sdpo.report.bounds import Bound
from studies.evidence.evidence import Evidence
from studies.evidence.layout import DATA, Layout
from studies.evidence.page import compose, png_of, write_page
from studies.evidence.record import dump
from studies.evidence.sections import claims, comparison, single_world
from studies.evidence.spread import further_run, two_runs
from studies.evidence.studies import load_studies, specs
from tests.helpers.records import record

# pass counts of 6 problems of 4 samples, one row per evaluation (5 steps, 320 generations)
FAST = [[0] * 6, [2] * 6, [4] * 6, [4] * 6]  # .5 at 320
SLOW = [[0] * 6, [1] * 6, [2] * 6, [3] * 6]  # .5 at 640
NEVER = [[0] * 6, [0] * 6, [1] * 6, [1] * 6]
CHOSEN = {"sdpo": (), "grpo": ()}
AT_TURNS = {
    "train/pass_rate/turn_1": [0.1, 0.3], "train/pass_rate/turn_2": [0.4, 0.4], "train/pass_rate/turn_3": [0.5, 0.5],
    "distillation/loss/turn_1": [0.03, 0.05], "distillation/loss/turn_2": [0.01, 0.01],
    "distillation/loss/turn_3": [None, 0.02], "distillation/teacher_gain/turn_1": [-1.5, -0.5],
    "distillation/teacher_gain/turn_2": [0.0, 0.0], "distillation/teacher_gain/turn_3": [0.25, 0.25],
}  # fmt: skip
ORIGIN = {"hardware": "a processor, 2 cores, 8 GiB memory", "commit": "0123456789ab"}


def skills(policy: str, algorithm: str | None, worlds: list[int], rate: int) -> dict:
    counts = {
        c: {"n": [8, 8], "passed": [rate, 8]} for c in ("first try", "with feedback", "with solution", "known words")
    }
    own = {
        str(w): {d: {"passed": [rate, 8], "distinct": [4, 2]} for d in ("train", "held_out")} | {"conditions": counts}
        for w in worlds
    }
    other = {"minicode": counts, "minicode-texts": counts}
    return {"format": 1, **ORIGIN, "policy": policy, "algorithm": algorithm, "samples": 8, "other": other, "own": own}


def teacher(world: int) -> dict:
    checkpoint = {
        "step": 0,
        "student": 0.25,
        "with_context": {"all": [100, 0.1, 0.8], "failed": [90, 0.0, 0.7], "feedback": [100, 0.1, 0.8]},
        "classes": {"operation": [10, 6.0, 8, 4], "name": [10, 3.0, 8, 2], "boilerplate": [80, 1.0, 70, 0]},
        "agreement": {
            "problem": ["a", "a", *"bcdefghij"], "precision": [1.0, 0.0, *9 * [1.0]], "chance": 11 * [0.1],
            "auc": 11 * [0.9], "own_precision": 11 * [0.3], "own_auc": 11 * [0.6],
        },
        "examples": [
            {"problem": "a", "statement": "Print the `zorp`.", "told": "feedback",
             "tokens": ["print(", "max", "(x)\n```"], "gap": [0.1, 5.0, -0.2], "wrong": [0, 1, 0]}
        ],
    }  # fmt: skip
    return {
        "format": 1,
        **ORIGIN,
        "run": f"comparison/sdpo-world{world}",
        "world": world,
        "checkpoints": [checkpoint] * 2,
    }


@pytest.fixture(scope="module")
def layout(tmp_path_factory) -> Layout:
    """The bundled studies, all of them run: SDPO is fast everywhere, GRPO slow, on world 2 it never gets there."""
    layout = Layout(tmp_path_factory.mktemp("evidence"), Path("runs"))
    studies = load_studies()
    for part in studies.parts:
        for spec in specs(studies, part, CHOSEN):
            rows = FAST if spec.algorithm == "sdpo" else NEVER if spec.world == 2 else SLOW
            if spec.variant in ("teacher-live", "sibling-of-2"):
                rows = [*FAST[:3], NEVER[3]] if spec.variant == "teacher-live" else NEVER
            if spec.variant == "sdpo-continuous":
                rows = SLOW
            if spec.id != "noise/noise-30-world0":
                failed = spec.id == "worlds/grpo-world14"
                falls = [2.0 - i / 15 for i in range(15)]
                half = {f"train/{name}": [0.5] * 15 for name in ("taught_fraction", "groups_with_success")}
                train = {**half, **{metric: falls for metric in single_world.CLIPPED}}
                data = {"train": rows, "held_out": rows}
                if part.startswith("sequence"):
                    forgets = [*FAST[:3], NEVER[3]] if spec.algorithm == "sft" else FAST
                    data = {
                        f"{task}_{d}": forgets if task == "lists" else SLOW for task in ("lists", "texts") for d in data
                    } | ({"known_words": SLOW} if part == "sequence-tuning" else {})
                record(
                    spec.id,
                    data,
                    algorithm=spec.algorithm,
                    world=spec.world,
                    status="failed" if failed else "finished",
                    train=train | (AT_TURNS if part == "hints" else {}),
                    tokens=20 if spec.variant.endswith("-multi") else 10,
                ).save(layout.record(spec.id))
    for tuning in studies.tunings:
        chosen = {a: {"run": f"{tuning}/{a}-world0", "set": []} for a in CHOSEN}
        layout.settings_of(tuning).write_text(
            yaml.safe_dump({"rule": "The best.", "made": {"at": "2026-01-01T00:00", "commit": "abc"}, "chosen": chosen})
        )
    measured = {f"{a}-world{w}": skills(f"{a}-world{w}", a, [w], 4) for a in CHOSEN for w in range(3)}
    measured["before"] = skills("before", None, [0, 1, 2], 0)
    for folder, contents in ((layout.skills, measured), (layout.teacher, {"sdpo-world0": teacher(0)})):
        folder.mkdir()
        for name, content in contents.items():
            (folder / f"{name}.json").write_text(dump(content))
    return layout


@pytest.fixture(scope="module")
def composed(layout: Layout):
    return compose(Evidence.load(load_studies(), layout))


@pytest.fixture(scope="module")
def page(composed) -> str:
    return composed[0]


def part(page: str, title: str) -> str:
    return page.split(f"\n## {title}\n")[1].split("\n## ")[0]


def test_the_comparison_counts_generations_and_ratios(page):
    text = part(page, "SDPO and GRPO")
    assert "| 0.5 | 0 | 320 [320, 320] | 640 [640, 640] | 2.0 [2.0, 2.0] |" in text
    assert "| 0.5 | 2 | 320 [320, 320] | > 960 [> 960] | > 3.0 [> 3.0] |" in text
    assert (
        "world 0: 2.0, world 1: 2.0, world 2: > 3.0; median 2.00 [2.00, 2.00]. On every world: yes; in the median: no."
        in text
    )
    assert "| 0 | GRPO | .75 [.75, .75] | 1.00 [1.00, 1.00] |" in text
    # the ceiling: of 8 samples 0 and 8 passed; at the end of fine-tuning .75 of each problem's
    told, tuned = " | ".join(3 * [".50 [.00, 1.00]"]), " | ".join(2 * [".75 [.75, .75]"])
    assert f"| 0 | {told} | {tuned} |" in text


def test_what_is_missing_and_what_failed_is_said(page):
    fresh = part(page, "Worlds that nobody tuned on")
    assert "*9 of 10 runs are finished.* `make results PARTS=worlds` goes on." in fresh
    assert (
        "*worlds/grpo-world14 failed:* exit status 2: error: it broke" in fresh
        and "world 14" not in fresh.split("\n\n")[3]
    )
    assert "*2 of 3 runs are finished.*" in part(page, "Wrong feedback")
    assert "| [worlds/grpo-world14](runs/worlds/grpo-world14.json) | failed |" in page


def test_where_grpo_is_as_good_is_found_by_the_numbers(page):
    text = part(page, "Where SDPO does not help")
    assert "is above SDPO with sibling only, pairs (.12)** (world 0" in text
    assert "| SDPO, sibling only, pairs | .50 → .50 | .50 → .50 | 1.70 → 1.20 → 1.37 |" in text


def test_methods_are_compared_at_equal_groups(page):
    # SDPO reaches .5 after 320 samples, GRPO after 640
    assert "for both: 2: 2.0 [2.0, 2.0]; 4: 2.0 [2.0, 2.0];" in part(page, "Responses per problem")


def test_modes_are_compared_by_the_mean_of_their_seeds(page):
    text = part(page, "Continuous generation")
    assert "| continuous, staleness 4 | 3 | .38 (.38 … .38) | .75 (.75 … .75) | .75 (.75 … .75) |" in text
    assert "synchronous, staleness 1: +.00; continuous, staleness 4: −.29. Two synchronous runs" in text


def test_relatives_stand_in_the_order_of_their_results(page):
    text = part(page, "Relatives")
    # SDPO: area of 0, .5, 1, 1; the others 0, .25, .5, .75, on world 2 0, 0, .25, .25
    order = "| SDPO | 3 | .667 | 1.00 | 1.00 |", "| SDPO, recipe's settings | 3 |", "| GRPO | 3 | .292 | .58 | .58 |"
    assert -1 < text.find(order[0]) < text.find(order[1]) < text.find(order[2])
    assert "| OPSD, version 1, world 2 | > 960 | > 960 | > 960 | > 960 | .12 |" in text


def test_what_was_learned_and_lost_in_sequence(page):
    text = part(page, "Two tasks in sequence")
    assert "| SFT | lists (first) | held-out | .00 | 1.00 | .25 | .75 |" in text
    assert "| SDFT | lists (first) | held-out | .00 | 1.00 | 1.00 | .00 |" in text
    assert "| SFT, world 1 | texts (second) | training | .00 [.00, .00] | .50 [.50, .50] | .75 [.75, .75] |" in text


def test_what_tuned_runs_learned_and_forgot(page):
    text = part(page, "What SDFT and SFT forget")
    assert "| SFT | learning rate 1e-3 | 1.00 | .25 | .75 | .75 | .00 | .75 |" in text
    assert "| SDFT | reverse KL | 1.00 | 1.00 | .00 | .75 | .00 | .75 |" in text
    alike = "| reverse KL | the recipe's own | 1.00 / 1.00 | .00 / .75 | .75 / .75 | .75 / .75 |"
    assert alike in text.split("Runs that had learned the first task alike")[1]


def test_measurements_are_shown(page):
    lost = part(page, "What is lost")
    assert "| SDPO, world 1 | training | .50 → .75 | .50 → 1.00 | .00 → .25 | 3.0 → 3.0 |" in lost
    knows = part(page, "What the teacher knows")
    assert "at least 10 of them: world 0: .70 of 90 at step 0 → .70 of 90 at step 0" in knows
    assert "| 0 | 0 | .25 | .10 → .80 (100) | .70 (90) | .60 (.60; wrong .50) |" in knows
    # of ten problems, a: .5 and the others 1
    assert "| 0 | 0 | 10 | .95 [.85, 1.00] | .30 [.30, .30] | .10 [.10, .10] | .90 [.90, .90] | .60" in knows


def test_runs_of_one_turn_and_of_three_are_compared_at_equal_tokens(page):
    text = part(page, "Several turns")
    # one turn: 960 rollouts of 10 tokens, three turns: of 20; so three turns stand at 480 of their 960 rollouts
    assert "pass@1 at 9,600 (world 0), 9,600 (world 1) and 9,600 (world 2) generated tokens" in text
    assert "| SDPO, one turn | **.50** (.50, .50, .50) | **1.00** (1.00, 1.00, 1.00) |" in text
    assert "| SDPO, three turns | **.38** (.38, .38, .38) | **.75** (.75, .75, .75) |" in text
    assert "| GRPO, three turns | **.15** (.19, .19, .06) | **.29** (.38, .38, .12) |" in text
    assert "| GRPO, three turns | 2 | 15 | 960 | 19,200 | .12 | .25 | .12 | .25 |" in text


def test_the_teacher_at_each_turn_is_the_mean_over_steps(page):
    text = part(page, "The teacher at each turn")
    assert "| feedback | the first message | .040 | .010 | .020 | -1.000 | .000 | .250 |" in text
    assert (
        "Solved by the policy at the first turn, within two and within three: .20, .40 and .50 (960 rollouts)" in text
    )


def test_tool_calls_are_tuned_and_compared_by_themselves(page):
    text = part(page, "Tool calls")
    assert "**Seen: 2.0, 2.0 and > 3.0 (median 2.00 [2.00, 2.00]). On every world: yes.**" in text
    assert "* Tool calls, to held-out pass@1 0.5: 2.0, 2.0 and > 3.0 (median 2.00 [2.00, 2.00]) times." in page
    assert "Fixed at 2026-01-01T00:00 (commit abc) in [tools-settings.yaml]" in part(page, "Tool calls: tuning")


def test_verdicts_follow_their_rules(page):
    rows = {row.split(" | ")[0].lstrip("| "): row for row in part(page, "Published claims").splitlines() if "**" in row}
    verdict = {claim: re.search(r"\*\*(.*?)\*\*", row)[1] for claim, row in rows.items()}
    assert verdict["SDPO ends above GRPO (LiveCodeBench v6 48.8 against 41.2)"] == "reproduced in small"
    # GRPO's generations to its last .75, .75 and .25 (960, 960, 640) / SDPO's (480, 480, 160)
    fewer = "SDPO reaches GRPO's final accuracy with 4 times fewer generations"
    assert verdict[fewer] == "not reproduced" and "2.0, 2.0, 4.0 times; median 2.0" in rows[fewer]
    assert verdict["With live weights training eventually diverges"] == "reproduced in small"
    assert verdict["Logit > token > sequence credit (.49, .48, .46)"] == "no difference seen"  # all alike
    live = "Live weights are the worst teacher (36.1; frozen 48.8, moving average 49.3, trust region 50.6)"
    assert verdict[live] == "reproduced in small"
    assert verdict["Style tokens carry 6 to 13 times the divergence of content tokens"] == "not reproduced"
    assert verdict["SRPO ends above GRPO, and GRPO above SDPO (77.4, 74.0, 71.1)"] == "not reproduced"
    assert verdict["Learning from oneself forgets less than supervised fine-tuning"] == "reproduced in small"
    assert verdict["Entropy and diversity shrink"] == "not run yet"  # fewer than 20 steps
    assert verdict["At test time, one hard question is solved with fewer attempts"] == "not testable here"


def test_every_claim_has_a_rule_or_a_reason():
    declared = yaml.safe_load((PROJECT / "studies/evidence/sections/claims.yaml").read_text())
    for claim in declared["claims"]:
        assert claim["source"] in declared["sources"]
        assert ("untestable" in claim) != (claim.get("find") in claims.FINDERS)
    assert set(claims.FINDERS) == {claim["find"] for claim in declared["claims"] if "find" in claim}


def test_links_lead_to_records_and_figures(layout, composed):
    page, sections = composed
    names = {f"{picture.name}.png" for section in sections for picture in section.pictures}
    for target in re.findall(r"\]\(([^)#]+)\)", page):
        there = any((folder / target).exists() for folder in (layout.data, PROJECT / DATA))
        assert target.startswith("http") or target in names or there, target


@pytest.mark.parametrize("name", ["worlds", "teacher_tokens"])
def test_figures_are_drawn_and_say_where_they_come_from(composed, name):
    section = next(s for s in composed[1] if name in {p.name for p in s.pictures})
    png = png_of(next(p for p in section.pictures if p.name == name), section)
    assert png.startswith(b"\x89PNG") and b"a processor, 2 cores, 8 GiB memory. Commit: 0123456789ab" in png


def test_a_page_without_data_says_how_to_get_them(tmp_path):
    layout = Layout(tmp_path / "data", tmp_path / "runs")
    write_page(Evidence.load(load_studies(), layout), layout)
    page = layout.page.read_text()
    assert page.count("*Not run yet.*") == len(load_studies().parts) + 2 and "`make results PARTS=noise`" in page


def test_a_part_that_has_only_begun_has_no_empty_figure(tmp_path):
    layout = Layout(tmp_path, Path("runs"))
    layout.settings.write_text(
        yaml.safe_dump({"chosen": {a: {"run": f"tuning/{a}-world0", "set": []} for a in CHOSEN}})
    )
    for run in ("adapters/sdpo-adapter-world0", "noise/noise-10-world0", "worlds/sdpo-world10", "limits/grpo-world0"):
        record(run, {"train": FAST, "held_out": FAST}).save(layout.record(run))
    write_page(Evidence.load(load_studies(), layout), layout)
    text = layout.page.read_text()
    assert set(re.findall(r"\]\((\w+\.png)\)", text)) == {path.name for path in tmp_path.glob("*.png")}
    assert "*1 of 15 runs are finished.*" in part(text, "An adapter instead of the whole model")


def test_bounds_decide_only_what_they_can():
    assert comparison.at_least(Bound.above(4.2), 4) == "yes"
    assert comparison.at_least(Bound(0.0, 3.9), 4) == "no"
    assert comparison.at_least(Bound.above(3.0), 4) == "undecided"


def test_a_further_run_is_expected_within_the_prediction_interval():
    # s = .1, n = 3: 4.30 · .1 · √(4/3)
    assert further_run([0.4, 0.5, 0.6]) == pytest.approx(4.30 * 0.1 * (4 / 3) ** 0.5)
    assert two_runs([0.4, 0.5, 0.6]) == pytest.approx(4.30 * 0.1 * 2**0.5)
