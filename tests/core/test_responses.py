"""Responses: where an answer stands in them, by the chat template's own word, and how a demonstrated one ends."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from tokenizers import AddedToken

from sandbox import TestCase, extract_code
from sdpo.config.files import find_recipe, load_recipe
from sdpo.config.sections import ContextSettings
from sdpo.envs.code import Problem
from sdpo.errors import UserError
from sdpo.prompts.chat_format import ChatFormat
from sdpo.prompts.context import ContextBuilder
from sdpo.rollout.generation import Generation
from sdpo.types import Group, Turn
from tests.byte_tokenizer import TEMPLATE, byte_tokenizer
from tests.helpers import tasks

TESTS = (TestCase("", "x"),)
STORY = {"story": "<think>a</think>b<|eot|>c"}
PROBLEM = Problem("p", "Print x.", TESTS, TESTS, solution="print('x')", columns=STORY).task()
DRAFT, FINAL = "```python\nprint('draft')\n```\n", "```python\nprint('final')\n```\n"
OPENS = TEMPLATE.replace("assistant\n", "assistant\n<think>\n")
REASONS = TEMPLATE.replace(
    "{{ m.content }}",
    "{% if m.reasoning_content %}<reflect>\n{{ m.reasoning_content }}\n</reflect>\n\n{% endif %}{{ m.content }}",
)


def generation(tokenizer, thinking: str = "ignored") -> Generation:
    """What tells answers from thoughts; nothing is sampled or graded."""
    recipe = load_recipe(find_recipe("livecodebench", "sdpo"), "cpu", [f"evaluation.thinking={thinking}"])
    contexts = ContextBuilder(tokenizer, ContextSettings())
    return Generation(recipe, environment=None, contexts=contexts, tokenizer=tokenizer, pool=None)


def program_of(generation: Generation, response: str, purpose: str) -> str | None:
    """The program that the environment is given to grade."""
    return extract_code(generation._answer(response, purpose), thinking="official")


# ---------------------------------------------------------------------------------------------------------- thoughts


@pytest.mark.parametrize(
    ("template", "response", "program"),
    [
        (TEMPLATE, FINAL, "print('final')"),
        (TEMPLATE, f"<think>{DRAFT}</think>{FINAL}", "print('final')"),
        (TEMPLATE, f"<think>{DRAFT}", None),
        (TEMPLATE, f"{DRAFT}</think>I give up.", None),
        (OPENS, f"{DRAFT}</think>{FINAL}", "print('final')"),
        (OPENS, f"{DRAFT}But wait", None),  # no tag at all: the prompt opened the thought, and nothing closed it
        (OPENS, f"{DRAFT}</think>I give up.", None),
        (OPENS, f"<think>{DRAFT}</think>{FINAL}", "print('final')"),
        (REASONS, f"<reflect>{DRAFT}</reflect>{FINAL}", "print('final')"),
        (REASONS, f"<reflect>{DRAFT}", None),
    ],
)
def test_training_takes_no_program_from_a_thought_and_evaluation_by_its_rule(template, response, program):
    tokenizer = byte_tokenizer(template=template)
    assert program_of(generation(tokenizer), response, "training") == program
    assert program_of(generation(tokenizer), response, "evaluation") == program
    official = generation(tokenizer, "official")
    assert program_of(official, response, "training") == program
    measured = "print('final')" if FINAL in response else "print('draft')"
    assert program_of(official, response, "evaluation") == measured


@pytest.mark.parametrize(
    ("template", "more", "tags"),
    [
        (TEMPLATE, (), set()),
        (REASONS, (), {("<reflect>", "</reflect>")}),
        (REASONS.replace("reasoning_content", "thinking"), (), {("<reflect>", "</reflect>")}),
        (TEMPLATE, ("[THINK]", "[/THINK]"), {("[THINK]", "[/THINK]")}),
        (TEMPLATE.replace("assistant\n", "assistant\n<thinking>\n"), (), {("<thinking>", "</thinking>")}),
    ],
)
def test_thinking_tags_are_those_that_tokenizer_and_template_declare(template, more, tags):
    tokenizer = byte_tokenizer(template=template, more=[AddedToken(t, special=True) for t in more])
    assert set(ChatFormat(tokenizer).thinking_tags) == {("<think>", "</think>")} | tags


@pytest.mark.parametrize(
    ("template", "thinking", "opens"),
    [
        (TEMPLATE, None, False),
        (OPENS, None, True),
        (TEMPLATE.replace("assistant\n", "assistant\n<think>\n\n</think>\n\n"), None, False),
        (OPENS.replace("<think>\n", "<think>\n{% if enable_thinking is false %}\n</think>\n{% endif %}"), False, False),
        (OPENS.replace("<think>\n", "<think>\n{% if enable_thinking is false %}\n</think>\n{% endif %}"), True, True),
        (TEMPLATE.replace("assistant\n", "assistant\n<thinking>\n"), None, True),
    ],
)
def test_whether_the_prompt_opens_a_thought_is_read_from_its_end(template, thinking, opens):
    assert ChatFormat(byte_tokenizer(template=template), thinking).opens_thought == opens


def test_tags_that_are_special_tokens_stay_in_the_text_of_a_response():
    """Other special tokens go; without the tags, what was thought could not be told from the answer."""
    more = [AddedToken(t, special=True, normalized=False) for t in ("<think>", "</think>", "[THINK]", "[/THINK]")]
    tokenizer = byte_tokenizer(more=more)
    chat = ChatFormat(tokenizer)
    for opens, closes in (("<think>", "</think>"), ("[THINK]", "[/THINK]")):
        text = chat.decode(tokenizer.encode(f"{opens}{DRAFT}{closes}{FINAL}<|eot|>"))
        assert text == f"{opens}{DRAFT}{closes}{FINAL}" and chat.answer(text) == FINAL


def group(texts: list[str], passed: list[bool]) -> Group:
    return tasks.group(passed, texts, PROBLEM)


@pytest.mark.parametrize(
    ("template", "thought"), [(TEMPLATE, f"<think>{DRAFT}"), (OPENS, DRAFT), (TEMPLATE, f"{DRAFT}</think> \n")]
)
def test_an_unfinished_thought_is_no_demonstration_and_lets_feedback_through(template, thought):
    contexts = ContextBuilder(byte_tokenizer(template=template), ContextSettings(feedback="fallback"))
    context = contexts.hint(group([thought, "wrong"], [True, False]), 1, np.random.default_rng(0))
    assert context.demonstration is None and "Wrong Answer" in context.feedback
    shown = contexts.hint(group([f"{thought}</think>{FINAL}", "wrong"], [True, False]), 1, np.random.default_rng(0))
    assert shown.demonstration == FINAL.strip() and shown.feedback is None


def test_a_text_of_the_dataset_did_not_begin_in_the_thought_that_the_prompt_opens():
    for settings in ({"demonstration": "solution"}, {"demonstration": "column", "column": "story"}):
        contexts = ContextBuilder(byte_tokenizer(template=OPENS), ContextSettings(**settings))
        assert contexts.hint(group(["wrong"], [False]), 0, np.random.default_rng(0)).demonstration


# ---------------------------------------------------------------------------------------------------- demonstrations


def demonstrated(tokenizer, source: str = "solution", column: str | None = None) -> Turn:
    made = generation(tokenizer)
    context = SimpleNamespace(column=column)
    rollouts = SimpleNamespace(source=source, max_response_tokens=200)
    made.recipe = SimpleNamespace(rollout=rollouts, context=context, model=SimpleNamespace(thinking=None))
    return made._demonstrated(PROBLEM)


@pytest.mark.parametrize(
    ("template", "end"),
    [
        (TEMPLATE, "<|eot|>"),
        (TEMPLATE.replace("<|eot|>", "<|eot|>\n"), "<|eot|>"),  # the newline belongs to what comes next
        (TEMPLATE.replace("<|eot|>", "\n<|eot|>"), "\n<|eot|>"),
        (TEMPLATE.replace("<|eot|>", ""), "<|eos|>"),
        (TEMPLATE.replace("<|eot|>", "{% if m.role == 'assistant' %}<|eos|>{% else %}<|eot|>{% endif %}"), "<|eos|>"),
        (TEMPLATE + "{% if messages[-1].role == 'assistant' %}{{ raise_exception('no') }}{% endif %}", "<|eos|>"),
    ],
)
def test_a_demonstrated_response_ends_as_the_template_ends_a_turn(template, end):
    tokenizer = byte_tokenizer(template=template)
    ids = demonstrated(tokenizer).response_ids
    assert tokenizer.decode(ids) == "```python\nprint('x')\n```" + end
    assert ids[-1] == tokenizer.convert_tokens_to_ids(end.strip())


def test_without_any_token_that_ends_a_turn_demonstrations_are_refused():
    with pytest.raises(UserError, match=r"no eos_token"):
        demonstrated(byte_tokenizer(eos=None, template=TEMPLATE.replace("<|eot|>", "")))
    last = demonstrated(byte_tokenizer(eos=None)).response_ids[-1]
    assert byte_tokenizer().convert_ids_to_tokens(last) == "<|eot|>"


def test_a_demonstration_ends_nowhere_but_at_its_end_and_keeps_its_thoughts():
    more = [AddedToken(t, special=True, normalized=False) for t in ("<think>", "</think>")]
    tokenizer = byte_tokenizer(more=more)
    ids = demonstrated(tokenizer, "column", "story").response_ids
    assert tokenizer.decode(ids) == "<think>a</think>b< |eot|>c<|eot|>"
    for token in ("<|eot|>", "<think>"):
        assert ids.count(tokenizer.convert_tokens_to_ids(token)) == 1
