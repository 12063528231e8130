"""What a guard does with an alarm, where a run goes back to, and which options make sense together."""

from __future__ import annotations

import json

import pytest

from sdpo.config.files import find_recipe, load_recipe
from sdpo.config.guards import GuardSettings
from sdpo.config.identity import configuration
from sdpo.config.resume import refused
from sdpo.errors import UserError
from sdpo.tracking import Console, RunFolder, RunInfo, Tracker
from sdpo.training.alarms import Alarm
from sdpo.training.checkpoints import Checkpoints
from sdpo.training.guard import Guard, RollBack, StoppedByGuard
from sdpo.training.interrupt import Stopped
from tests.helpers.checkpoints import names, write

ACTIONS = ("off", "warn", "stop", "rollback")
ROSE, FELL = [0.1, 0.1, 0.2, 0.3, 0.4, 0.5, 0.5, 0.5], [0.0] * 9
LIVE = ("teacher.kind=live", "teacher.rate=null", "teacher.clock=null")
FROZEN = ("teacher.kind=frozen", "teacher.rate=null", "teacher.clock=null")


@pytest.fixture
def tracker(tmp_path):
    with RunFolder(tmp_path / "run") as folder, Console("run", 10, plain=True) as console:
        folder.create(RunInfo.collect(recipe="r", algorithm="sdpo", seed=0, profile="cpu"), {})
        yield Tracker(folder, console)


def step(rate):
    return {"train/pass_rate": rate, "response/length_mean": 20.0, "policy/entropy": 0.3, "weights/bytes": 7.0}


def seen(guard, rates, rollbacks=0):
    """The guard's numbers after each step."""
    begun = len(guard.rows)
    return [guard.look(begun + i, step(rate), rollbacks) for i, rate in enumerate(rates, start=1)]


def events(tmp_path):
    return json.loads((tmp_path / "run" / "run.json").read_text())["events"]


def test_an_alarm_is_told_once_and_counted_as_long_as_it_stands(tracker, tmp_path, capsys):
    guard = Guard(GuardSettings(), tracker)
    numbers = seen(guard, [*ROSE, *FELL, *[0.6] * 6])
    counts = [row["guard/alarms"] for row in numbers]
    assert set(counts) == {0, 1} and counts[-1] == 0 and sum(counts) >= 3
    [event] = events(tmp_path)
    assert (event["part"], event["step"]) == ("guard", counts.index(1) + 1)
    assert event["cause"].startswith("The training pass rate has fallen") and event["action"].startswith(
        "try a teacher"
    )
    assert capsys.readouterr().out.count("The training pass rate has fallen") == 1
    assert numbers[-1]["drift/entropy"] == 1.0 and "guard/rollbacks" not in numbers[-1]
    guard.act(0)  # warn: nothing


def test_without_alarms_there_are_none(tracker, tmp_path):
    numbers = seen(Guard(GuardSettings(action="off"), tracker), [*ROSE, *FELL])
    assert "guard/alarms" not in numbers[-1] and events(tmp_path) == []


def test_a_harmful_alarm_stops_the_run(tracker):
    guard = Guard(GuardSettings(action="stop"), tracker)
    for rate in ROSE:
        seen(guard, [rate])
        guard.act(0)
    with pytest.raises(StoppedByGuard) as stop:
        for rate in FELL:
            seen(guard, [rate])
            guard.act(0)
    assert isinstance(stop.value, Stopped) and "pass rate has fallen" in guard.stopped


def test_a_run_without_progress_is_not_stopped(tracker, tmp_path):
    guard = Guard(GuardSettings(action="stop"), tracker)
    for _ in range(60):
        seen(guard, [0.1])
        guard.act(0)
    assert [event["cause"][:20] for event in events(tmp_path)] == ["Nothing is learned: "]


def test_it_goes_back_so_often_and_then_stops(tracker, tmp_path):
    guard = Guard(GuardSettings(action="rollback", rollbacks=2), tracker)
    for number in range(3):
        guard.begin([])
        numbers = seen(guard, [*ROSE, *FELL], rollbacks=number)
        assert numbers[-1]["guard/rollbacks"] == number
        with pytest.raises(RollBack if number < 2 else StoppedByGuard) as wanted:
            guard.act(number)
        if number < 2:
            assert (wanted.value.alarm.rule, wanted.value.alarm.good) == ("collapse", len(ROSE))
            guard.rolled_back(wanted.value.alarm, 17, 8, "freeze", number + 1)
    actions = [event["action"] for event in events(tmp_path)]
    assert [a for a in actions if "rollback" in a] == [
        f"rollback {n} of 2: back to step 8, the teacher moves no more" for n in (1, 2)
    ]


def test_a_run_that_goes_on_is_not_told_again(tracker, tmp_path):
    rows = [{"step": i + 1, **step(rate)} for i, rate in enumerate([*ROSE, *FELL])]
    guard = Guard(GuardSettings(action="stop"), tracker)
    guard.begin([{"step": 0, "eval/held_out/pass@1": 0.1}, *rows])
    guard.look(len(rows) + 1, step(0.0), 0)
    guard.act(0)
    assert events(tmp_path) == []


# --- where to --------------------------------------------------------------------------------------------------------
def back(checkpoints, good, since):
    found = checkpoints.go_back(good, since, pytest.fail)
    return found.name if found else None


@pytest.fixture
def three(tmp_path):
    """Steps 10, 15 (the best) and 20."""
    checkpoints = Checkpoints(tmp_path / "checkpoints", keep=3)
    for number in (10, 15, 20):
        write(checkpoints, number, best=number == 15, best_step=15 if number == 20 else 0)
    return checkpoints


@pytest.mark.parametrize(
    ("good", "since", "found"),
    [
        (20, 24, "step-000020"),
        (17, 24, "step-000015"),
        (13, 24, "step-000015"),  # the best one, measured before the fall
        (13, 15, "step-000010"),  # measured in it
        (9, 12, None),
    ],
)
def test_the_last_good_checkpoint(three, good, since, found):
    assert back(three, good, since) == found
    left = [name for name in ("step-000010", "step-000015", "step-000020") if found and name <= found]
    assert names(three) == left
    last = three.folder / "last"
    assert last.resolve().name == found if found else not last.is_symlink()
    assert (three.folder / "best").exists() == (found in ("step-000015", "step-000020"))


def test_after_going_back_the_same_step_can_be_written_again(three):
    assert back(three, 13, 24) == "step-000015"
    write(three, 15, best_step=15)
    assert back(three, 15, 99) == "step-000015" and names(three) == ["step-000010", "step-000015"]
    assert (three.folder / "best").resolve().name == "step-000015"


# --- options ---------------------------------------------------------------------------------------------------------
def recipe(*overrides, algorithm="sdpo"):
    return load_recipe(find_recipe("livecodebench", algorithm), "cpu", overrides)


@pytest.mark.parametrize(
    ("algorithm", "overrides", "said"),
    [
        ("grpo", ("guard.action=rollback",), "set guard.action=stop"),
        ("sdpo", (*LIVE, "guard.action=rollback", "guard.teacher=refresh"), "has no effect with teacher.kind=live"),
        ("sdpo", (*FROZEN, "guard.action=rollback", "guard.teacher=freeze"), "has no effect with teacher.kind=frozen"),
        ("sdpo", ("guard.rollbacks=3",), "unless guard.action=rollback"),
        ("sdpo", ("guard.action=stop", "guard.teacher=freeze"), "unless guard.action=rollback"),
        ("sdpo", ("probe.every=0", "probe.tasks=3"), "without probes"),
        ("sdpo", ("teacher.refresh=probe",), "teacher.refresh has no effect with teacher.kind=ema"),
        ("sdpo", (*FROZEN, "teacher.refresh=probe", "probe.every=0"), "needs probes: set probe.every"),
        ("opsd", ("teacher.refresh=reward",), "needs the rewards of training responses"),
    ],
)
def test_what_contradicts_itself_is_refused(algorithm, overrides, said):
    with pytest.raises(UserError, match=said):
        recipe(*overrides, algorithm=algorithm)


def test_what_the_teacher_becomes():
    assert recipe("guard.action=rollback").teacher_after_rollback == "freeze"
    assert recipe(*FROZEN, "guard.action=rollback").teacher_after_rollback == "refresh"
    assert recipe("guard.action=rollback", "guard.teacher=refresh").teacher_after_rollback == "refresh"
    assert not recipe().teacher_is_replaced and recipe(*FROZEN, "teacher.refresh=reward").teacher_is_replaced


@pytest.mark.parametrize("profile", ["cpu", "gpu"])
@pytest.mark.parametrize("algorithm", ["sdpo", "grpo", "opsd"])
def test_a_probe_is_cheap(profile, algorithm):
    made = load_recipe(find_recipe("livecodebench", algorithm), profile)
    answers = made.probe_tasks * made.probe.samples * (1 if made.teacher is None else 2)
    assert 0 < answers < 0.03 * made.probe.every * made.samples_per_step
    assert made.model_copy(update={"probe": made.probe.model_copy(update={"tasks": 7})}).probe_tasks == 7


def test_a_run_may_go_on_with_another_guard_but_for_rollbacks():
    old = recipe()
    assert refused(old, recipe("guard.action=stop")) == []
    assert refused(old, recipe("guard.action=rollback")) == ["guard.action: warn → rollback"]
    alike = [configuration(recipe(f"guard.action={action}").model_dump(mode="json")) for action in ACTIONS]
    assert alike[0] == alike[1] == alike[2] != alike[3]


def test_an_alarm_reads_as_a_sentence():
    alarm = Alarm("rule", "Something is wrong", 7, "try this", 3, harmful=True)
    assert str(alarm) == "Something is wrong, since step 7" and str(RollBack(alarm)) == str(alarm)
