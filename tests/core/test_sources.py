"""Where contexts come from, and that ground truth reaches a teacher only by name."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from sdpo.config.files import find_recipe, load_recipe
from sdpo.envs.code.livecodebench import load_livecodebench
from sdpo.envs.minicode import FAMILIES, write_world
from sdpo.errors import UserError
from sdpo.prompts.sources import check_texts
from sdpo.types import Group
from tests.helpers.prompts import builder
from tests.helpers.tasks import group, problem

RNG = np.random.default_rng(0)

SECRET = problem(solution="print(sum(SECRET))", answer="<think>hm</think>SECRET too")


def with_secret(passed: list[bool]) -> Group:
    return group(passed, task=SECRET)


@pytest.mark.parametrize("demonstration", ["random", "none"])
@pytest.mark.parametrize("feedback", ["fallback", "always"])
@pytest.mark.parametrize("template", ["published", "compact", "demonstration", "reference"])
def test_ground_truth_is_in_no_prompt_that_does_not_ask_for_it(tokenizer, demonstration, feedback, template):
    contexts = builder(tokenizer, demonstration=demonstration, feedback=feedback, template=template)
    prompts = [contexts.prompt(SECRET)]
    for passed in ([True, False, True], [False, False]):
        for i in range(len(passed)):
            if context := contexts.hint(with_secret(passed), i, RNG):
                prompts.append(contexts.reprompt(SECRET, context))
    assert len(prompts) > 2 and not any("SECRET" in tokenizer.decode(ids) for ids in prompts)


def test_the_solution_is_told_to_every_response_as_a_code_block(tokenizer):
    contexts = builder(tokenizer, demonstration="solution", feedback="never")
    told = [contexts.hint(with_secret([True, False]), i, RNG) for i in range(2)]
    assert told[0] == told[1] and told[0].demonstration == "```python\nprint(sum(SECRET))\n```"
    assert contexts.hint(group([True, False]), 1, RNG) is None  # a problem without a solution


def test_a_column_is_told_as_it_stands_without_its_thoughts(tokenizer):
    contexts = builder(tokenizer, demonstration="column", column="answer", feedback="never")
    assert contexts.hint(with_secret([False]), 0, RNG).demonstration == "SECRET too"
    assert builder(tokenizer, demonstration="column", column="other").hint(with_secret([True]), 0, RNG) is None


def test_the_teacher_can_think_where_the_student_does_not(tokenizer):
    for own, wanted in ((None, False), (True, True), (False, False)):
        contexts = builder(tokenizer, thinking=False, teacher_thinking=own)
        teacher = contexts.reprompt(problem(), contexts.hint(group([False]), 0, RNG))
        assert tokenizer.decode(contexts.prompt(problem())).endswith("<think></think>")
        assert tokenizer.decode(teacher).endswith("<think></think>") != wanted


# --------------------------------------------------------------------------------- the demonstration of another task


def questions(*passed: list[bool], solutions: bool = False) -> list[Group]:
    """Tasks a, b, c, …, whose responses and solutions name them."""
    made = []
    for name, row in zip("abcd", passed, strict=False):
        task = problem(f"Question {name}.", name, solution=f"print('{name}')" if solutions else None)
        made.append(group(row, [f"answer {i} to {name}" for i in range(len(row))], task))
    return made


def test_a_control_shows_another_question_and_its_demonstration(tokenizer):
    contexts = builder(tokenizer, demonstration_of="other", feedback="never")
    a, b, c, d = contexts.batch = questions([True, True], [False], [True, False], [True])
    rng, shown = np.random.default_rng(0), {}
    for _ in range(300):
        hint = contexts.hint(a, 0, rng)
        assert hint.feedback is None
        shown[hint.demonstration] = shown.get(hint.demonstration, 0) + 1
    assert {text.split("Question ")[1] for text in shown} == {"c.\n\nanswer 0 to c", "d.\n\nanswer 0 to d"}
    assert min(shown.values()) > 100  # b has nothing to show
    teacher = tokenizer.decode(contexts.reprompt(b.task, contexts.hint(b, 0, rng)))
    assert "Question b." in teacher.split("Correct solution:")[0]


def test_a_control_never_shows_the_task_itself(tokenizer):
    contexts = builder(tokenizer, demonstration_of="other", feedback="never")
    a, twin = questions([True, True])[0], questions([True, True])[0]
    assert contexts.hint(a, 0, RNG) is None  # nothing is known of a batch
    contexts.batch = [a, twin]
    assert contexts.hint(a, 0, RNG) is None
    contexts.batch = questions([True], [False])
    assert contexts.hint(contexts.batch[0], 0, RNG) is None


def test_a_control_with_the_reference_of_another_problem(tokenizer):
    contexts = builder(tokenizer, demonstration="solution", demonstration_of="other", feedback="never")
    contexts.batch = questions([False], [False], solutions=True)
    told = [contexts.hint(each, 0, RNG).demonstration for each in contexts.batch]
    assert "print('b')" in told[0] and "Question b." in told[0] and "print('a')" in told[1]


def test_the_thoughts_of_another_questions_answer_are_removed(tokenizer):
    contexts = builder(tokenizer, demonstration_of="other", feedback="never")
    thought = group([True], ["<think>hm</think>\n42"], problem("Question z.", "z"))
    contexts.batch = [*questions([False]), thought]
    assert contexts.hint(contexts.batch[0], 0, RNG).demonstration.endswith("Question z.\n\n42")


@pytest.mark.parametrize(
    ("algorithm", "overrides", "says"),
    [
        ("sdpo", ["run.questions=1"], "set run.questions to 2 or more"),
        ("sdpo", ["context.demonstration=none"], "context.demonstration_of has no effect without demonstrations"),
        ("grpo", [], "context.demonstration_of has no effect without a teacher"),
        ("sd-zero", [], "context.demonstration_of has no effect with sd-zero"),
    ],
)
def test_a_control_needs_other_tasks_and_demonstrations(algorithm, overrides, says):
    with pytest.raises(UserError, match=says):
        load_recipe(find_recipe("livecodebench", algorithm), "cpu", ["context.demonstration_of=other", *overrides])


def test_a_dataset_without_the_text_is_an_error():
    check_texts([problem(), SECRET], "solution", None, "context.demonstration")
    with pytest.raises(UserError, match="none of the 1 training tasks has a reference solution"):
        check_texts([problem()], "solution", None, "context.demonstration")
    with pytest.raises(UserError, match="column 'story'"):
        check_texts([SECRET], "column", "story", "context.demonstration")


def test_further_texts_of_a_row_become_columns_and_the_solution_does_not(tmp_path):
    write_world(tmp_path / "w.jsonl", seed=0)
    text = (tmp_path / "w.jsonl").read_text().replace('{"question_title"', '{"demonstration": "Try.", "question_title"')
    (tmp_path / "w.jsonl").write_text(text)
    dataset = load_livecodebench(tmp_path / "w.jsonl", test_split="disjoint", problem_split="marked", max_bad_rows=0)
    assert dict(dataset.train[0].columns) == {"demonstration": "Try.", "family": "minicode", "kind": "aggregate"}
    assert dataset.train[0].solution


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        (["context.demonstration=column"], "set context.column"),
        (["context.column=story"], "context.column has no effect unless a teacher has context.demonstration=column"),
    ],
)
def test_a_column_is_named_where_it_is_read(overrides, says):
    with pytest.raises(UserError, match=says):
        load_recipe(find_recipe("livecodebench", "sdpo"), "cpu", overrides)


def test_sources_do_not_draw_random_numbers_that_others_did_not(tokenizer):
    """A run with another source stays comparable: only the choice among siblings is random."""
    rng = np.random.default_rng(0)
    builder(tokenizer, demonstration="solution").hint(with_secret([True, False]), 1, rng)
    assert rng.bit_generator.state == np.random.default_rng(0).bit_generator.state


# Runs of other methods were made on these rows: a change of a single byte would make them another experiment.
ROWS = {
    ("minicode", 0): "12208bd5b7027442",
    ("minicode", 1): "bc1c81939f4e740f",
    ("minicode", 2): "1f5485b2e2a6f2b6",
    ("minicode", 10): "21624695fcfefc96",
    ("minicode-texts", 0): "af9a51fddaba14bd",
    ("minicode-texts", 1): "26428fe87a237262",
    ("minicode-texts", 2): "174ebd9d12b20cb7",
    ("minicode-texts", 10): "97883c7d445b8a30",
}  # fmt: skip


@pytest.mark.parametrize(("family", "seed"), ROWS)
def test_the_rows_of_the_worlds_stay_what_they_were(family, seed, tmp_path):
    write_world(tmp_path / "w", seed=seed, family=FAMILIES[family])
    assert hashlib.sha256((tmp_path / "w").read_bytes()).hexdigest()[:16] == ROWS[family, seed]
