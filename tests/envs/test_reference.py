"""Functions named in a recipe: found where people have them, and told apart from those that are not there."""

from __future__ import annotations

import pickle
import sys

import pytest

from sdpo.config.registry import is_reference
from sdpo.envs.reference import NotFound, find_function


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path, modules = list(sys.path), set(sys.modules)
    yield
    sys.path[:] = path
    for name in set(sys.modules) - modules:
        del sys.modules[name]


def test_a_file_finds_its_neighbours_and_what_it_defines_can_be_sent(tmp_path):
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "mine_of_this_test.py").write_text("import beside_it\nreward = beside_it.reward\n")
    (tmp_path / "there" / "beside_it.py").write_text("def reward(): return 5\n")
    found = find_function("there/mine_of_this_test.py:reward", "o")
    assert found() == 5 and pickle.loads(pickle.dumps(found)) is found
    assert find_function("there/mine_of_this_test.py:reward", "o") is found


def test_a_file_may_be_called_like_a_module(tmp_path):
    (tmp_path / "json.py").write_text("def reward(): return 6\n")
    assert find_function("json.py:reward", "o")() == 6
    assert sys.modules["json"].__name__ == "json" and hasattr(sys.modules["json"], "dumps")


@pytest.mark.parametrize(
    ("reference", "says"),
    [
        ("no_such_file.py:reward", "there is no file .*no_such_file.py. The path counts from the current folder"),
        ("no_such_module:reward", "Python finds no module no_such_module, neither in the current folder"),
        ("mine_too:rewrad", "mine_too has no function rewrad. Did you mean reward?"),
        ("mine_too.py:number", "number is a int, not a function"),
    ],
)
def test_what_is_not_there_is_named_with_the_remedy(reference, says, tmp_path):
    (tmp_path / "mine_too.py").write_text("number = 7\ndef reward(): pass\n")
    with pytest.raises(NotFound, match=says):
        find_function(reference, "environment.reward")


def test_a_module_that_lacks_another_one_says_which(tmp_path):
    (tmp_path / "mine_as_well.py").write_text("import nothing_of_that_name\n")
    with pytest.raises(ModuleNotFoundError, match="nothing_of_that_name"):
        find_function("mine_as_well:reward", "o")


@pytest.mark.parametrize("text", ["a:b", "a.b:c", "a.py:b", "/x y/a.py:b", "../a.py:b", "C:/a.py:b"])
def test_references(text):
    assert is_reference(text)


@pytest.mark.parametrize("text", ["a", "a:", ":b", "a:b.c", "a/b:c", "a b:c", "a.py:b()", ""])
def test_no_references(text):
    assert not is_reference(text)
