"""The rules against every published run, and against steps that are made up; when a teacher is to be refreshed."""

from __future__ import annotations

import json
import re
from functools import cache
from itertools import takewhile

import numpy as np
import pytest

from sdpo.config.paths import PROJECT
from sdpo.training.alarms import SLOW, WINDOW, alarms, drift
from sdpo.training.ngrams import copied, repeated
from sdpo.training.refresh import APART, refresh_reason

RUNS = PROJECT / "docs" / "results" / "evidence" / "runs"


def steps_of(path):
    """A record's metrics, step by step."""
    columns = json.loads(path.read_text())["train"]
    return [{key: values[i] for key, values in columns.items()} for i in range(len(columns["step"]))]


@cache
def first_alarms():
    """(run, rule) → the step after which the alarm is raised for the first time, and since when it says."""
    found = {}
    for path in sorted(RUNS.glob("*/*.json")):
        rows = steps_of(path)
        for end in range(1, len(rows) + 1):
            for alarm in alarms(rows[:end]):
                found.setdefault((f"{path.parent.name}/{path.stem}", alarm.rule), (rows[end - 1]["step"], alarm.since))
    return found


def made(**columns):
    """Steps with these numbers; a number alone is that of every step."""
    count = max(len(values) for values in columns.values() if not isinstance(values, float))
    rows = [{"step": i + 1, "response/length_mean": 20.0, "response/length_max": 30.0} for i in range(count)]
    for name, values in columns.items():
        for i, row in enumerate(rows):
            row[name.replace("__", "/")] = values if isinstance(values, float) else values[i]
    return rows


def rules(rows):
    return {alarm.rule for alarm in alarms(rows)}


def test_what_is_found_in_the_published_runs_is_on_the_page():
    page = (PROJECT / "docs" / "guards.md").read_text()
    table = page.split("<!-- alarms -->")[1].split("<!-- end -->")[0]
    listed = re.findall(r"^\| ([\w/-]+) \| (\w+) \| (\d+) \| (\d+) \|$", table, re.MULTILINE)
    assert {(run, rule): (int(step), int(since)) for run, rule, step, since in listed} == first_alarms()


@pytest.mark.parametrize("part", ["comparison", "worlds", "repeats"])
def test_no_run_that_learns_raises_an_alarm(part):
    assert len(list((RUNS / part).glob("*.json"))) >= 4
    assert not [run for run, _ in first_alarms() if run.startswith(f"{part}/")]


def test_the_collapse_of_a_live_teacher_is_seen_within_ten_steps():
    rates = [row["train/pass_rate"] for row in steps_of(RUNS / "ablations" / "teacher-live-world0.json")]
    means = [np.mean(rates[end - WINDOW : end]) for end in range(WINDOW, len(rates) + 1)]
    low = [mean < max(means[: i + 1]) / 2 for i, mean in enumerate(means)]
    stays = WINDOW + len(low) - len(list(takewhile(bool, reversed(low))))
    caught = [first_alarms()["ablations/teacher-live-world0", rule][0] for rule in ("collapse", "truncated_fraction")]
    assert stays == 24 and max(caught) <= stays + 10


def test_a_fall_has_to_last_and_says_when_all_was_well():
    rates = [0.1 + 0.02 * i for i in range(20)]
    assert rules(made(train__pass_rate=[*rates, *[0.0] * 6])) == set()
    [alarm] = alarms(made(train__pass_rate=[*rates, *[0.0] * 8]))
    assert (alarm.rule, alarm.good, alarm.since, alarm.harmful) == ("collapse", 20, 23, True)
    assert "0.00, less than half of the 0.44 of step 20, since step 23" in str(alarm)
    assert rules(made(train__pass_rate=[*rates, *[0.0] * 8, *[0.3] * 10])) == set()


def test_a_rate_that_is_not_known_is_no_fall():
    rates = [0.5] * 20 + [None, float("nan")] * 10
    assert rules(made(train__pass_rate=rates)) == set()


@pytest.mark.parametrize("key", ["response__truncated_fraction", "response__repetition"])
def test_degenerate_text_is_what_was_not_there_at_the_start(key):
    assert rules(made(**{key: [0.9] * 30})) == set()
    [alarm] = alarms(made(**{key: [0.1] * 20 + [0.7] * 6}))
    assert alarm.rule == key.split("__")[1] and alarm.harmful
    assert (alarm.since, alarm.good) == (25, 20)
    assert rules(made(**{key: [0.1] * 20 + [0.7] * 6 + [0.1] * 5})) == set()


def test_no_progress_is_noticed_late_and_not_in_a_slow_run():
    assert rules(made(train__pass_rate=[0.12] * (SLOW - 1))) == set()
    [alarm] = alarms(made(train__pass_rate=[0.12] * 5 + [0.11] * (SLOW - 5)))
    assert alarm.rule == "no_progress" and not alarm.harmful
    assert rules(made(train__pass_rate=[0.12] * 5 + [0.15] * SLOW)) == set()


def test_a_teacher_is_useless_where_the_policy_does_without():
    def probed(gap, rate):
        rows = made(train__pass_rate=[0.2 + 0.01 * i for i in range(31)])
        for row in rows[::10]:
            row |= {"probe/gap": gap, "probe/student/pass@1": rate}
        return rules(rows)

    assert probed(-0.05, 0.2) == {"useless_teacher"}
    assert probed(0.3, 0.2) == probed(-0.05, 0.9) == set()
    assert alarms(made(train__pass_rate=[0.2] * 3)) == []


def test_engines_that_sample_something_else_are_noticed_at_once():
    [alarm] = alarms(made(policy__kl_sampler=[0.01, 1e30]))
    assert (alarm.rule, alarm.since, alarm.good, alarm.harmful) == ("other_sampler", 2, 1, False)
    assert "differ by 1e+30 nats on average" in str(alarm)
    assert rules(made(policy__kl_sampler=[-5.0, 0.2, float("nan"), None])) == set()


def test_drift_compares_with_the_start():
    rows = made(policy__entropy=[0.2] * 5 + [0.3] * 5, distillation__loss=0.5)
    assert drift(rows[:4]) == {}
    assert drift(rows) == pytest.approx({"drift/entropy": 1.5, "drift/divergence": 1.0, "drift/length": 1.0})


# --- repetition ------------------------------------------------------------------------------------------------------
def test_repeated_and_copied_ngrams_are_counted():
    rng = np.random.default_rng(0)
    for _ in range(50):
        ids, source = rng.integers(0, 4, rng.integers(0, 40)), rng.integers(0, 4, 30)
        grams = [tuple(ids[i : i + 4]) for i in range(len(ids) - 3)]
        there = {tuple(source[i : i + 4]) for i in range(len(source) - 3)}
        assert repeated(ids.tolist()) == pytest.approx(1 - len(set(grams)) / len(grams) if grams else 0)
        assert copied(ids.tolist(), source.tolist()) == pytest.approx(
            np.mean([gram in there for gram in grams]) if grams else 0
        )
    assert repeated([7] * 48) == pytest.approx(44 / 45) and repeated(range(150_000, 150_040)) == 0


# --- teachers --------------------------------------------------------------------------------------------------------
RISING = [0.1] * 5 + [0.2] * 5


def test_the_reward_must_have_risen_since_the_last_copy():
    rows = made(train__pass_rate=RISING, response__truncated_fraction=0.0)
    assert refresh_reason("reward", rows, 0, {}) == "the pass rate has risen from 0.10 to 0.20"
    assert refresh_reason("reward", rows[: APART - 1], 0, {}) == ""
    assert refresh_reason("reward", rows, 1, {}) == ""  # too early after the copy
    assert refresh_reason("reward", made(train__pass_rate=[0.1] * 20), 0, {}) == ""


@pytest.mark.parametrize(
    "tail", [{"response__truncated_fraction": [0.0] * 5 + [0.1] * 5}, {"response__length_max": [30.0] * 5 + [50.0] * 5}]
)
def test_a_longer_tail_forbids_the_copy(tail):
    assert refresh_reason("reward", made(train__pass_rate=RISING, **tail), 0, {}) == ""


@pytest.mark.parametrize(("policy", "teacher", "copied"), [(0.8, 0.8, True), (0.9, 0.8, True), (0.7, 0.8, False)])
def test_a_candidate_that_is_no_worse_becomes_the_teacher(policy, teacher, copied):
    rows = made(train__pass_rate=RISING)
    probe = {"probe/candidate/pass@1": policy, "probe/teacher/pass@1": teacher}
    assert bool(refresh_reason("probe", rows, 5, probe)) == copied
    assert refresh_reason("probe", rows, 10, probe) == ""  # it is the teacher
    assert refresh_reason("probe", rows, 5, {}) == refresh_reason("probe", [], 0, probe) == ""
