"""Ten unlike runs in one folder: what is compared with what, what it is called, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sdpo.cli import main
from sdpo.errors import UserError
from sdpo.report.compare import Comparison, compare
from sdpo.report.groups import comparable, differences, group
from sdpo.report.labels import labels
from sdpo.report.runs import Run, load_run
from sdpo.report.select import choose
from tests.helpers.compared import ten_unlike_runs, write_run


@pytest.fixture(scope="module")
def ten(tmp_path_factory: pytest.TempPathFactory) -> Path:
    runs_dir = tmp_path_factory.mktemp("ten")
    ten_unlike_runs(runs_dir)
    return runs_dir


def found(runs_dir: Path, *words: str) -> tuple[list[dict[str, list[str]]], list[str], list[list[Run]]]:
    """Label → names of its runs, for each set of what can be compared; the notes; the first run of each set."""
    chosen = choose(words, runs_dir)
    runs = [load_run(each.path, each.label) for each in chosen]
    groups, notes = group(runs, [each.path for each in chosen if each.by_name])
    sets = comparable(groups)
    named = [
        {label: [run.name for run in one.runs] for one, label in zip(members, labels(members), strict=True)}
        for members in sets
    ]
    return named, notes, [[one.first for one in members] for members in sets]


def test_groups_are_those_that_a_person_would_make(ten: Path):
    named, notes, firsts = found(ten, "livecodebench")
    assert named[0] == {
        "sdpo": ["sdpo-seed0", "sdpo-seed1", "sdpo-seed2"],
        "SDPO, teacher.kind=trust_region, teacher.rate=0.05": ["trust"],
        "grpo": ["grpo-seed0", "grpo-seed1"],
    }
    apart = {one["sdpo"][0]: differences(first[0], firsts[0][0]) for one, first in zip(named, firsts, strict=True)}
    assert apart == {
        "sdpo-seed0": [],
        "smoke": ["budget (generations) 256 instead of 5120"],
        "other-model": ["model.path policies/minitools instead of policies/minicode"],
        "other-data": ["data.world_seed 5 instead of 0"],
    }
    assert notes == ["broken-off (interrupted) is left out: sdpo-seed2, of the same configuration, is finished."]


def test_what_has_another_name_and_the_same_content_is_the_same(tmp_path: Path):
    """The model's folder was moved, and the ranks are others: neither decides about a number."""
    write_run(tmp_path, "a", created=1)
    write_run(tmp_path, "b", "seed=1", "model.path=/elsewhere/minicode", "learner.ranks=2", created=2)
    assert found(tmp_path, "a", "b")[0] == [{"sdpo": ["a", "b"]}]


def test_other_content_under_the_same_name_is_something_else(tmp_path: Path):
    write_run(tmp_path, "a", created=2)
    write_run(tmp_path, "b", inputs={"model/model.safetensors": "zz"}, created=1)
    named, _, firsts = found(tmp_path, "a", "b")
    assert named == [{"sdpo": ["a"]}, {"sdpo": ["b"]}]
    assert differences(firsts[1][0], firsts[0][0]) == ["model: other content of the same name (inputs.json)"]
    for name in ("Qwen/Qwen3-0.6B", "Qwen/Qwen3-8B"):  # a commit alone names no model
        write_run(tmp_path, name[5:], f"model.path={name}", "seed=1")
        (tmp_path / name[5:] / "inputs.json").write_text('{"model/commit": "None"}')
    assert len(found(tmp_path, "Qwen*")[0]) == 2
    write_run(tmp_path, "c", inputs={"code/rewards.py": "1"}, created=3)
    assert list(found(tmp_path, "a", "c")[0][0]) == ["sdpo", "SDPO, other code/rewards.py"]


def test_tasks_that_the_seed_draws_do_not_part_the_seeds(tmp_path: Path):
    hashed = ("data.source=mbpp", "data.path=rows.jsonl", "data.problem_split=hash")
    for seed in (0, 1):
        write_run(tmp_path, f"s{seed}", f"seed={seed}", *hashed, inputs={"tasks/training": f"8 tasks, {seed}"})
    assert found(tmp_path, "s*")[0] == [{"sdpo": ["s0", "s1"]}]


def test_an_unfinished_run_is_shown_where_no_other_is_or_where_it_is_named(tmp_path: Path):
    write_run(tmp_path, "half", until=40, created=1)
    write_run(tmp_path, "less", until=20, created=2)
    named, notes, _ = found(tmp_path, "livecodebench")
    assert named == [{"sdpo": ["less"]}]
    assert notes == ["half is left out: less is newer, of the same configuration and seed."]
    write_run(tmp_path, "whole", "seed=1", created=3)
    assert found(tmp_path, "livecodebench")[0] == [{"sdpo": ["whole"]}]
    assert found(tmp_path, "livecodebench", "half")[0] == [{"sdpo": ["half", "whole"]}]


def test_labels_are_given_by_hand(ten: Path):
    named, _, _ = found(ten, "sdpo-seed*:ours", "grpo-seed0", "trust:frozen")
    assert named == [{"ours": ["sdpo-seed0", "sdpo-seed1", "sdpo-seed2"], "frozen": ["trust"], "grpo": ["grpo-seed0"]}]
    named, _, _ = found(ten, "sdpo-seed0:x", "trust:x")  # one label for two configurations
    assert named == [{"x": ["sdpo-seed0"], "x, teacher.kind=trust_region, teacher.rate=0.05": ["trust"]}]


def test_long_differences_are_cut_and_labels_stay_apart(tmp_path: Path):
    more = ("learner.lr=2e-3", "learner.warmup_steps=3", "teacher.rate=0.5")
    write_run(tmp_path, "plain", created=4)
    write_run(tmp_path, "a", *more, "rollout.temperature=0.9", created=1)
    write_run(tmp_path, "b", *more, "rollout.temperature=0.8", created=2)
    write_run(tmp_path, "c", "distillation.alpha=1", "distillation.top_k=20", created=3)
    names = {runs[0]: label for label, runs in found(tmp_path, "*")[0][0].items()}
    assert names["plain"] == "sdpo"  # though it is the newest: it has the recipe's own settings
    assert names["c"] == "SDPO, distillation.alpha=1, distillation.top_k=20"
    assert names["a"] != names["b"] and "rollout.temperature=0.9" in names["a"]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["sdpo-sed0"], "Did you mean sdpo-seed"),
        (["nothing*"], "matches 'nothing*'. Runs there: broken-off, grpo-seed0"),
        (["sdpo-seed0:a", "sdpo-seed*:b"], "sdpo-seed0 is given the labels 'a' and 'b'"),
    ],
)
def test_words_that_mean_nothing_or_two_things_are_refused(ten: Path, words, says):
    with pytest.raises(UserError) as error:
        choose(words, ten)
    assert says in str(error.value)


def test_two_runs_of_one_configuration_and_seed_need_labels(tmp_path: Path):
    write_run(tmp_path, "a", created=1)
    write_run(tmp_path, "b", created=2)
    with pytest.raises(UserError, match="a and b have the same configuration and seed 0.*give each a label"):
        found(tmp_path, "a", "b")
    assert found(tmp_path, "a:first", "b:second")[0] == [{"first": ["a"], "second": ["b"]}]


@pytest.fixture(scope="module")
def pages(ten: Path) -> list[Comparison]:
    return compare(choose(["livecodebench"], ten), ten / "compare" / "x")


def test_the_page_of_ten_unlike_runs(ten: Path, pages: list[Comparison]):
    first, *others = pages
    assert first.page == ten / "compare" / "x" / "index.html" and len(others) == 3
    text = first.page.read_text()
    for other in others:
        assert other.page.is_file() and other.apart is not None
        assert f'href="{other.apart.page}"' in text and "; ".join(other.apart.differs) in text
        assert f"Kept apart from {first.title}" in other.page.read_text()
    assert "broken-off (interrupted) is left out" in text
    data = json.loads((first.page.parent / "data.json").read_text())
    assert [each["runs"] for each in data["kept_apart"]] == [[run.name for run in other.runs] for other in others]
    curve = next(f for f in data["figures"] if f["name"] == "pass_at_k_generations")["panels"][0]["lines"]
    mean = next(line for line in curve if (line["label"], line["seed"]) == ("sdpo", None))
    seeds = [line["points"] for line in curve if line["label"] == "sdpo" and line["seed"] is not None]
    at = [[points[i][1] for points in seeds] for i in range(5)]
    assert mean["low"] == pytest.approx([min(ys) for ys in at]) and mean["high"] == pytest.approx([max(y) for y in at])
    differ = dict(first.settings.different)
    assert first.settings.labels == ["SDPO", "SDPO, teacher.kind=trust_region, teacher.rate=0.05", "GRPO"]
    assert differ["teacher.kind"][:2] == ["ema", "trust_region"]
    assert "run.steps" not in differ


def test_the_ratio_is_the_headline_with_its_interval(pages: list[Comparison]):
    (text,) = pages[0].sentences
    row = next(row for row in pages[0].reach[0].rows if row.threshold == 0.5)
    low, high = row.intervals["grpo"]
    value = row.ratios["grpo"].low
    assert 0 < low <= value <= high and f"({value:.1f} [{low:.1f}, {high:.1f}] times as many" in text
    data = json.loads((pages[0].page.parent / "data.json").read_text())["generations_to_reach"][0]["rows"][1]
    assert data["ratio_interval"]["grpo"] == {"low": low, "high": high}


def test_every_task_has_a_row_and_every_evaluation_a_column(pages: list[Comparison]):
    figure = next(figure for figure in pages[0].figures if figure.name == "tasks_train")
    assert [panel.title for panel in figure.panels][:1] == ["SDPO"]
    lines = figure.panels[0].lines
    ease = [sum(y for _, y in line.points) for line in lines]
    assert ease == sorted(ease, reverse=True) and len(lines) == 8  # easy ones first, the same order in every panel
    assert all([line.label for line in panel.lines] == [line.label for line in lines] for panel in figure.panels)
    assert [x for x, _ in lines[0].points] == [0, 20, 40, 60, 80]
    runs = [run for run in pages[0].runs if run.label == "sdpo"]
    passed = [next(p for p in run.results["train"][20].problems if p.id == lines[0].label) for run in runs]
    assert lines[0].points[1][1] == pytest.approx(sum(p.c / p.n for p in passed) / 3)


def test_the_command_prints_the_headline_and_what_is_kept_apart(tmp_path: Path, capsys):
    write_run(tmp_path, "a", rate=600)
    write_run(tmp_path, "b", algorithm="grpo", rate=2400)
    write_run(tmp_path, "smoke", "run.steps=4", created=3)
    assert main(["compare", "a:ours", "b", "smoke", "--runs", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert "ours reaches pass@1 0.5 after" in said and "] times as many" in said
    assert "Kept apart: smoke (budget (generations) 256 instead of 5120)" in said
    assert (tmp_path / "compare" / "a+b+smoke" / "apart-1" / "index.html").is_file()
    assert main(["compare", "a", "--runs", str(tmp_path), "--out", str(tmp_path / "compare" / "a+b+smoke")]) == 0
    assert not (tmp_path / "compare" / "a+b+smoke" / "apart-1").exists()  # of an earlier comparison
