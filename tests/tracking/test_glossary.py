"""docs/metrics.md describes the metrics that there are; what real runs log is compared in tests/helpers/training.py."""

from __future__ import annotations

import ast
import re

from sdpo.config.paths import PROJECT
from sdpo.evaluation.results import EvaluationResult, ProblemResult
from sdpo.tracking import metric_names
from tests.helpers.glossary import described, undescribed

LOGGING = ("evaluation", "learner", "prompts", "rollout", "tracking", "training", "weights")


def strings() -> set[str]:
    """Every string in the parts of the package that log something; what is filled in is `<x>`."""
    found = set()
    for part in LOGGING:
        for file in (PROJECT / "sdpo" / part).rglob("*.py"):
            for node in ast.walk(ast.parse(file.read_text())):
                if isinstance(node, ast.Constant) and isinstance(node.value, str):
                    found.add(node.value)
                if isinstance(node, ast.JoinedStr):
                    found.add("".join(str(getattr(part, "value", "")) if isinstance(part, ast.Constant) else "<x>"
                                      for part in node.values))  # fmt: skip
    return found


def test_every_name_in_the_code_is_described():
    groups = {name.split("/")[0] for name in described() if "/" in name}
    named = {text for text in strings() if re.fullmatch(rf"({'|'.join(groups)})/[a-z_<>]+", text)}
    internal = {"learner/broken_weights", "eval/<x>", "context/<x>"}  # … the last two: with names of their own
    assert len(named) > 40
    assert undescribed([dict.fromkeys(named - internal)]) == set()


def test_every_described_name_is_in_the_code():
    code = strings()
    words = {word for text in code for word in re.findall(r"\w+", text)}
    for name in described():
        last = re.sub(r"<\w+>", "", name).rstrip("/").split("/")[-1]
        assert set(re.findall(r"\w+", last)) <= words | {"turn_", "pass"}, name


def test_what_the_console_shows_is_described():
    shown = [each.key for each in vars(metric_names).values() if isinstance(each, metric_names.Shown)]
    assert len(shown) > 5 and undescribed([dict.fromkeys(shown)]) == set()


def test_what_an_evaluation_says_is_described():
    problems = tuple(
        ProblemResult(
            str(i), n=4, c=i, difficulty=d, verdicts={"accepted": i, "wrong answer": 4 - i}, first_c=0, turns=2.0
        )
        for i, d in enumerate(("easy", "medium", "hard"))
    )
    found = EvaluationResult(problems, (1, 4), most_turns=2, unjudged=1).metrics()
    assert len(found) > 20
    assert undescribed([{f"eval/held_out/{key}": value for key, value in found.items()}]) == set()


def test_a_name_that_nobody_describes_is_found():
    assert undescribed([{"train/pass_rate": 0, "train/unheard_of": 0, "eval/a/b/c/pass@1": 0}]) == {
        "train/unheard_of", "eval/a/b/c/pass@1",
    }  # fmt: skip
