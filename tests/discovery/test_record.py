"""What a discovery has written, and goes on from."""

from __future__ import annotations

import json

import pytest

from sdpo.config.files import find_recipe, load_recipe
from sdpo.discovery.page import found, write_page
from sdpo.discovery.record import DiscoveryFolder, Hardness, Search, Solution
from sdpo.errors import UserError


def search(method: str, question: str, attempts: int, solved: int, seed: int = 0) -> Search:
    solution = Solution("print(1) # <b>", (1, 2), True) if solved else None
    return Search(method, question, seed, attempts, solved, 1.5, 80, solution)


def filled(path) -> DiscoveryFolder:
    folder = DiscoveryFolder(path)
    folder.write_hardness({"a": Hardness(64, 0, True), "b": Hardness(64, 0, True), "easy": Hardness(64, 40)})
    for each in (
        search("best-of-k", "a", 64, 1),
        search("best-of-k", "b", 64, 0),
        search("multi-turn", "a", 64, 0),
        search("multi-turn", "b", 64, 0),
        search("sdpo", "a", 48, 1),
        search("sdpo", "b", 16, 1),
    ):
        folder.append(each)
    return folder


def test_a_line_that_a_kill_cut_off_is_made_again(tmp_path):
    folder = filled(tmp_path)
    before = folder.searches
    with open(tmp_path / "searches.jsonl", "ab") as file:
        file.write(b'{"method": "sdpo", "quest')
    assert folder.searches == before and len(before) == 6
    folder.repair()
    folder.append(search("sdpo", "a", 64, 0, seed=1))
    assert [each.unit for each in folder.searches][-1] == ("sdpo", "a", 1)


def test_other_settings_are_another_discovery(tmp_path):
    file = find_recipe("discover-livecodebench", None)
    folder = DiscoveryFolder(tmp_path)
    folder.begin({"sdpo": load_recipe(file, "cpu")})
    folder.begin({"sdpo": load_recipe(file, "cpu")})
    with pytest.raises(UserError, match="other settings"):
        folder.begin({"sdpo": load_recipe(file, "cpu", ["learner.lr=1e-4"])})


def test_a_damaged_file_is_named(tmp_path):
    folder = filled(tmp_path)
    (tmp_path / "searches.jsonl").write_text('{"method": 1}\n')
    with pytest.raises(UserError, match=r"searches\.jsonl cannot be read"):
        folder.searches  # noqa: B018


def test_the_page_says_who_was_slower(tmp_path):
    folder = filled(tmp_path)
    result = found(folder, ["sdpo"], 64)
    assert result.methods == ["sdpo", "best-of-k", "multi-turn"]
    rows = {row.question: row for row in result.rows}
    assert set(rows) == {"a", "b"}
    assert rows["a"].attempts == {"sdpo": 48, "best-of-k": 32.5, "multi-turn": None} and rows["a"].slower
    assert rows["b"].attempts == {"sdpo": 16, "best-of-k": None, "multi-turn": None} and not rows["b"].slower
    assert "On 1 of 2 questions SDPO was slower" in result.sentence
    page = write_page(tmp_path, folder, result, "test").read_text()
    assert "&lt;b&gt;" in page and "> 64" in page.replace("&gt;", ">")
    data = json.loads((tmp_path / "data.json").read_text())
    assert data["curves"]["sdpo"]["value"][-1] == 1 and data["curves"]["multi-turn"]["value"][-1] == 0
    assert data["curves"]["best-of-k"]["value"][-1] == 0.5


def test_searches_that_were_cut_off_count_as_far_as_they_went(tmp_path):
    """Three seeds: the median of the attempts, none where two of them were cut off; the curve ends at the budget."""
    folder = filled(tmp_path)
    folder.append(search("sdpo", "a", 64, 0, seed=1))
    folder.append(search("sdpo", "a", 64, 0, seed=2))
    folder.append(search("sdpo", "b", 32, 1, seed=1))
    folder.append(search("sdpo", "b", 64, 0, seed=2))
    result = found(folder, ["sdpo"], 64)
    assert [row.attempts["sdpo"] for row in result.rows] == [None, 32]
    assert [row.slower for row in result.rows] == [True, False]  # of b no independent sample is right
    curve = dict(zip(result.curves["sdpo"].ks.tolist(), result.curves["sdpo"].value.tolist(), strict=True))
    assert [curve[k] for k in (14, 16, 32, 64)] == pytest.approx([0, 1 / 6, 2 / 6, 3 / 6])
    assert result.curves["sdpo"].attempts_to(0.6) is None


def test_a_solution_that_the_tests_that_measure_refuse_is_marked(tmp_path):
    folder = filled(tmp_path)
    folder.append(Search("sdpo", "a", 1, 16, 1, 1.0, 80, Solution("x", (1,), confirmed=False)))
    page = write_page(tmp_path, folder, found(folder, ["sdpo"], 64), "test").read_text()
    assert page.count("not confirmed by the tests that measure") == 1
