"""The corpus's prompts are, token for token, those that training builds."""

from __future__ import annotations

import random
from pathlib import Path

from transformers import AutoTokenizer

from sdpo.config.sections import ContextSettings
from sdpo.envs.minicode.examples import make_test
from sdpo.envs.minicode.load import read_rows
from sdpo.envs.minicode.rows import task_rows
from sdpo.prompts.context import ContextBuilder
from sdpo.types import Hint
from studies.pretrain.code_corpus import failed_attempt, fenced, question, random_task, reprompt
from studies.pretrain.tokenizer import prompt_text

POLICY = Path(__file__).resolve().parents[2] / "policies" / "minicode"


def test_corpus_and_context_builder_write_the_same_tokens():
    tokenizer = AutoTokenizer.from_pretrained(POLICY)
    builder = ContextBuilder(tokenizer, ContextSettings(template="compact", feedback="always"))
    rng = random.Random(4)
    tasks = [random_task(rng) for _ in range(120)]
    problems, _ = read_rows(list(task_rows("prompts", tasks, ())))
    assert any(p.functional for p in problems)

    def tokens(content: str) -> tuple[int, ...]:
        return tuple(tokenizer(prompt_text(content), add_special_tokens=False).input_ids)

    for task, problem in zip(tasks, problems, strict=True):
        assert builder.prompt(problem.task("compact")) == tokens(question(task))
        _, feedback = failed_attempt(task, make_test(task, rng), rng)
        solution = fenced(task.program)
        for hint in (Hint(None, feedback), Hint(solution, None), Hint(solution, feedback)):
            text = reprompt(task, hint.demonstration, hint.feedback)
            assert builder.reprompt(problem.task("compact"), hint) == tokens(text)
