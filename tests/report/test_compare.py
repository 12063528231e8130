from __future__ import annotations

import json
from html.parser import HTMLParser
from pathlib import Path

import pytest

from sdpo.errors import UserError
from sdpo.report import Chosen, choose, run_report
from sdpo.report import compare as compare_chosen
from sdpo.tracking import RunFolder


def compare(runs: list[Path], out: Path, labels: list[str] | None = None) -> Path:
    """The first page of runs that are named one by one."""
    given = zip(runs, labels or [None] * len(runs), strict=True)
    return compare_chosen([Chosen(run, label) for run, label in given], out)[0].page


VOID = {"meta", "img", "br", "hr", "input", "link"}


class Page(HTMLParser):
    """Tags, texts and tables of a page; fails on tags that are not closed in order."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict]] = []
        self.text = ""
        self.tables: dict[str, list[list[str]]] = {}
        self.notices: list[str] = []
        self._rows: list[list[str]] = []
        self.feed(path.read_text())
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attributes: list) -> None:
        self.tags.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "table":
            name = dict(attributes).get("class", "table")
            self._rows = self.tables.setdefault(name if name not in self.tables else f"{name} {len(self.tables)}", [])
        if tag == "tr":
            self._rows.append([])
        if tag in ("td", "th"):
            self._rows[-1].append("")
        if tag == "li":
            self.notices.append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" in self.open:
            return
        self.text += data
        if self.open and self.open[-1] in ("td", "th", "code", "span") and {"td", "th"} & set(self.open):
            self._rows[-1][-1] = " ".join(f"{self._rows[-1][-1]} {data}".split())
        if "li" in self.open:
            self.notices[-1] += data

    def pictures(self) -> list[str]:
        """What each figure is called."""
        tags = [*self.tags, ("h2", {})]
        figures = [i for i, (tag, _) in enumerate(tags) if tag == "figure"]
        assert all(any(tag == "path" for tag, _ in tags[i : i + 40]) for i in figures)
        return [next(a["id"] for tag, a in reversed(tags[:i]) if tag == "h2") for i in figures]


def _is_png(data: bytes) -> bool:
    return data.startswith(b"\x89PNG\r\n\x1a\n") and data.rstrip(b"\0")[-8:-4] == b"IEND"


@pytest.fixture(scope="module")
def out(two_algorithms: Path) -> Path:
    return two_algorithms / "compare" / "livecodebench"


@pytest.fixture(scope="module")
def page(two_algorithms: Path, out: Path) -> Page:
    return Page(compare_chosen(choose(["livecodebench"], two_algorithms), out)[0].page)


def test_the_page_shows_the_comparison(page: Page, out: Path):
    assert "SDPO and GRPO on livecodebench" in page.text
    assert (
        "SDPO reaches pass@1 0.5 after 214 generations, GRPO after 625 (2.9 times as many, median of 2 seeds)"
        in page.text
    )
    assert page.notices == []
    # settings: only what differs, side by side, and neither name nor seed
    assert page.tables["settings"] == [
        ["setting", "SDPO", "GRPO"],
        ["algorithm.name", "sdpo", "grpo"],
        ["learner.lr", "0.001", "0.0005"],
    ]
    # figures: in the page, and as files beside it
    names = {path.stem for path in out.glob("*.png")}
    assert {"pass_at_k_generations", "pass_at_k_wall_clock", "entropies", "response_length", "divergence"} <= names
    assert set(page.pictures()) == names
    assert all(_is_png(path.read_bytes()) for path in out.glob("*.png"))
    # nothing is fetched from elsewhere
    assert [a for tag, a in page.tags if tag in ("script", "link")] == []
    links = [value for _, a in page.tags for key, value in a.items() if key in ("src", "href", "xlink:href")]
    assert [link for link in links if not link.startswith(("#", "data:", "data.json"))] == []
    # where it came from
    assert "abc123" in page.text and "a processor, 2 cores" in page.text
    assert "sdpo train livecodebench algorithm=grpo seed=1" in page.text


def test_generations_to_a_pass_rate_and_their_ratio(page: Page):
    head, *rows = page.tables["reach"]
    assert head == ["pass@1", "SDPO", "GRPO", "GRPO ÷ SDPO"]
    by_rate = {row[0]: row[1:] for row in rows}
    assert list(by_rate) == ["0.3", "0.5", "0.65", "0.8"]
    # by hand: SDPO has .347 at 128 and .574 at 256 generations; GRPO .434 at 512 and .509 at 640
    assert by_rate["0.5"] == ["214 (214 · 214)", "625 (625 · 625)", "2.9 (2.9 · 2.9)"]
    assert by_rate["0.8"][1:] == ["> 1,280 (> 1,280 · > 1,280)", "> 2.6 (> 2.6 · > 2.6)"]


def test_best_and_last_with_intervals(page: Page):
    head, *rows = page.tables["scores"]
    assert head[1:] == ["seed", "generations", "pass@1 best", "pass@1 last", "pass@4 best", "pass@4 last"]
    assert [row[:3] for row in rows] == [
        ["SDPO", "0", "1,280"],
        ["SDPO", "1", "1,280"],
        ["SDPO", "mean", ""],
        ["GRPO", "0", "1,280"],
        ["GRPO", "1", "1,280"],
        ["GRPO", "mean", ""],
    ]
    assert rows[0][3:5] == ["0.99 [0.94, 1.00] at 1,280", "0.99 [0.94, 1.00]"]
    assert rows[5][3] == "0.76 (0.76 … 0.76)"


def test_data_json_holds_what_the_figures_show(page: Page, out: Path, two_algorithms: Path):
    data = json.loads((out / "data.json").read_text())
    assert [(run["label"], run["seed"]) for run in data["runs"]] == [("sdpo", 0), ("sdpo", 1), ("grpo", 0), ("grpo", 1)]
    figure = next(f for f in data["figures"] if f["name"] == "pass_at_k_generations")
    assert [panel["title"] for panel in figure["panels"]] == [
        f"{dataset}, pass@{k}" for dataset in ("training problems", "held-out problems") for k in (1, 4)
    ]
    lines = figure["panels"][0]["lines"]
    assert [(line["label"], line["seed"]) for line in lines] == [
        *((label, seed) for label in ("sdpo", "grpo") for seed in (0, 1, None))
    ]
    recorded = RunFolder(two_algorithms / "livecodebench-sdpo-seed0").metrics
    points = [[row["generations"], row["eval/train/pass@1"]] for row in recorded if "eval/train/pass@1" in row]
    assert lines[0]["points"] == points and len(points) == 11
    assert [y for _, y in lines[2]["points"]] == pytest.approx([y for _, y in points])  # both seeds are alike
    reach = data["generations_to_reach"][0]
    assert reach["rows"][3]["generations"]["grpo"] == {"low": 1280.0, "high": None}
    assert reach["rows"][1]["ratio"]["grpo"]["low"] == pytest.approx(624.85 / 214.21, abs=0.001)


def test_a_second_comparison_replaces_the_first(make_run, tmp_path: Path):
    (tmp_path / "divergence.png").write_bytes(b"")
    again = Page(compare([make_run("grpo", brief=True)], tmp_path))
    assert not (tmp_path / "divergence.png").exists()
    assert "GRPO on livecodebench" in again.text


def test_one_algorithm_alone_says_what_is_missing(make_run, runs_dir: Path):
    page = Page(compare([make_run("sdpo", brief=True)], runs_dir / "out"))
    (notice,) = page.notices
    assert "GRPO is missing" in notice and "make train RECIPE=livecodebench ALGORITHM=grpo" in notice
    assert page.tables["reach"][0] == ["pass@1", "SDPO"]


def test_what_makes_runs_less_than_comparable_is_said(make_run, runs_dir: Path):
    sdpo = make_run("sdpo", 0, steps=10, finish=False, brief=True)
    grpo = make_run("grpo", 1, hardware="another processor", brief=True)
    notices = Page(compare([sdpo, grpo], runs_dir / "out")).notices
    for part in (
        "sdpo-seed0 is interrupted (stopped before its last step): it is shown up to step 10",
        "differ in hardware (a processor, 2 cores | another processor): their wall clock is not comparable",
        "budgets differ (generations: SDPO 640, GRPO 1,280)",
        "seeds differ (SDPO [0], GRPO [1])",
    ):
        assert any(part in notice for notice in notices), part
    assert len(notices) == 4


@pytest.mark.parametrize("rules", [("official", "official"), ("ignored", "ignored"), ("official", "ignored")])
def test_the_rule_for_thoughts_is_named_and_two_rules_are_not_comparable(make_run, runs_dir: Path, rules):
    runs = [
        make_run(algorithm, brief=True, settings={"evaluation": {"thinking": rule}})
        for algorithm, rule in zip(("sdpo", "grpo"), rules, strict=True)
    ]
    first, *others = compare_chosen([Chosen(run) for run in runs], runs_dir / "out")
    assert f"Thinking: {rules[0]} (" in first.page.read_text()
    scores = json.loads((runs_dir / "out" / "data.json").read_text())["scores"]
    assert {table["thinking"] for table in scores} == {rules[0]}
    differ = [each.apart.differs for each in others]
    assert differ == ([["evaluation.thinking ignored instead of official"]] if len(set(rules)) == 2 else [])


def test_two_settings_of_one_algorithm_are_compared_by_label(make_run, runs_dir: Path):
    runs = [make_run(name=name, settings={"teacher": name}, brief=True) for name in ("ema", "frozen")]
    page = Page(compare(runs, runs_dir / "out"))
    assert page.tables["reach"][0] == ["pass@1", "SDPO", "SDPO, teacher=frozen", "SDPO, teacher=frozen ÷ SDPO"]
    page = Page(compare(runs, runs_dir / "out", labels=["EMA", "frozen"]))
    assert page.tables["settings"] == [["setting", "EMA", "frozen"], ["teacher", "ema", "frozen"]]
    assert page.tables["reach"][0] == ["pass@1", "EMA", "frozen", "frozen ÷ EMA"]


def test_of_a_seed_the_newest_is_shown(make_run, runs_dir: Path):
    make_run("sdpo", 0, name="old", brief=True, created="2026-01-01T00:00:00.000+00:00")
    make_run("sdpo", 0, name="new", brief=True, created="2026-01-02T00:00:00.000+00:00")
    make_run("sdpo", 1, name="s1", brief=True)
    make_run("grpo", 0, name="g0", brief=True)
    make_run("grpo", 0, name="other", brief=True, recipe="minicode", created="2026-01-03T00:00:00.000+00:00")
    just_begun = make_run("sdpo", 0, name="begun", brief=True, created="2026-01-04T00:00:00.000+00:00")
    (just_begun / "metrics.jsonl").unlink()
    (runs_dir / "compare").mkdir()
    (found,) = compare_chosen(choose(["livecodebench"], runs_dir), runs_dir / "out")
    assert [(run.name, run.label) for run in found.runs] == [("new", "sdpo"), ("s1", "sdpo"), ("g0", "grpo")]
    assert "old is left out: new is newer" in " ".join(Page(found.page).notices)


def test_an_unknown_recipe_is_named_and_no_training_of_it_advised(make_run, runs_dir: Path):
    make_run(recipe="mine")
    for name, says in (
        ("livecodebnch", "Did you mean livecodebench?"),
        ("min", "Did you mean mine?"),
        ("x", "Recipes:"),
    ):
        with pytest.raises(UserError) as error:
            choose([name], runs_dir)
        assert says in str(error.value) and "make train" not in str(error.value)


def test_nothing_to_compare_names_the_command_that_makes_a_run(make_run, runs_dir: Path):
    with pytest.raises(UserError, match="make train RECIPE=livecodebench"):
        choose(["livecodebench"], runs_dir)
    run = make_run(recipe="minicode")
    with pytest.raises(UserError, match=r"runs of: minicode.*make train RECIPE=livecodebench"):
        choose(["livecodebench"], runs_dir)
    (run / "metrics.jsonl").unlink()
    with pytest.raises(UserError, match="has recorded a step yet.*make train RECIPE=minicode"):
        compare([run], runs_dir / "out")
    with pytest.raises(UserError, match="make train"):
        compare([], runs_dir / "out")
    with pytest.raises(UserError, match="not a run folder"):
        compare([runs_dir], runs_dir / "out")
    assert not (runs_dir / "out").exists()


def test_the_page_of_a_single_run(make_run):
    hostile = "<script>alert(1)</script> & `x`"
    row = {
        "problem_id": "p",
        "prompt": "Add.",
        "response": hostile,
        "passed": False,
        "verdict": "wrong answer",
        "feedback": "No",
    }
    run = make_run(
        "sdpo", rollouts=[row, {**row, "passed": True, "verdict": "accepted", "response": "fine" + "y" * 5000}]
    )
    path = run_report(run)
    page = Page(path)
    assert path == run / "report.html" and "livecodebench-sdpo-seed0" in page.text
    assert not any(tag == "script" for tag, _ in page.tags) and hostile in page.text
    assert "… (cut)" in page.text and "y" * 2000 not in page.text
    assert {"pass_at_k_generations", "verdicts", "time_per_step", "pass_at_1_parts"} <= set(page.pictures())
    assert ["learner.clip", "1"] in page.tables["settings"]
    (run / "metrics.jsonl").write_text("")
    with pytest.raises(UserError, match="no step"):
        run_report(run)


def test_numbers_that_were_lost_leave_gaps(make_run, runs_dir: Path):
    """A run that diverged to NaN, half-written rows, and rows without an axis do not break the page."""
    run = make_run("grpo", brief=True)
    with open(run / "metrics.jsonl", "a") as file:
        for step, entropy in ((21, 0.5), (22, None)):
            row = {"step": step, "generations": 64 * step, "policy/entropy": entropy, "eval/train/pass@1": None}
            file.write(json.dumps(row) + "\n")
        file.write('{"note": 1}\n{"step": 23, "gen')
    page = Page(compare([run], runs_dir / "out"))
    data = json.loads((runs_dir / "out" / "data.json").read_text())
    entropy = next(f for f in data["figures"] if f["name"] == "entropies")["panels"][0]["lines"][0]["points"]
    assert entropy == [[1344.0, 0.5], [1408.0, None]]
    # rate 600: 1 − exp(−1280 / 600) = .88, the last number that there is
    assert page.tables["scores"][1][3:5] == ["0.88 [0.83, 0.93] at 1,280", "0.88 [0.83, 0.93]"]
