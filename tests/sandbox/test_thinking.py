"""What stands in a thought, finished or not, is no answer."""

from __future__ import annotations

import pytest

from sandbox import extract_code
from sdpo.prompts.thinking import without_thoughts

DRAFT = "A draft:\n```python\nprint('draft')\n```\n"
FINAL = "```python\nprint('final')\n```\n"


@pytest.mark.parametrize(
    ("response", "answer"),
    [
        ("no thought", "no thought"),
        ("<think>a</think>b", "b"),
        ("<think>cut off", ""),
        ("before <think>cut off", "before "),
        ("the prompt opened it</think>b", "b"),
        ("</think>b", "b"),
        ("<think>a</think>one <think>b</think>two", "one two"),
        ("<think>a</think>one<think>cut off", "one"),
        ("a</think>one<think>b</think>two", "onetwo"),
        ("<think>a<think>b</think>c</think>d", "d"),
        ("<think>a<think>b</think>still thinking", ""),
        ("<think>\n<think>a</think>b", "b"),
        ("<think>a</think>b</think>c", "c"),
        ("<think></think>b", "b"),
        ("", ""),
    ],
)
def test_thoughts_go_and_the_rest_stays(response, answer):
    assert without_thoughts(response) == answer


@pytest.mark.parametrize(
    ("response", "answer"),
    [("cut off", ""), ("a</think>b", "b"), ("\n<think>\na</think>b", "b"), ("a<think>b</think>c</think>d", "d")],
)
def test_a_prompt_may_have_opened_the_thought(response, answer):
    assert without_thoughts(response, opened=True) == answer


def test_tags_of_other_families_close_their_own_thoughts_only():
    tags = (("<think>", "</think>"), ("[THINK]", "[/THINK]"))
    assert without_thoughts("[THINK]a</think>b[/THINK]c<think>d[/THINK]e</think>f", tags) == "cf"
    assert without_thoughts("a[/THINK]b", tags, opened=True) == "b"
    assert without_thoughts("[THINK]a", tags[:1]) == "[THINK]a"


@pytest.mark.parametrize(
    "response",
    [
        f"<think>\n{DRAFT}But wait, is that",
        f"<think>\n{DRAFT}</think>\nI do not know.",
        f"<think>{DRAFT}<think>{DRAFT}</think>\n{DRAFT}",
        f"{DRAFT}</think>\nI do not know.",
        f"<think>{DRAFT}</think>Hm.<think>{DRAFT}",
        f"<think>{DRAFT}</think>```python\nprint('cut",
    ],
)
def test_a_draft_is_no_answer(response):
    assert extract_code(response) is None
    assert extract_code(response, thinking="official") is not None


@pytest.mark.parametrize(
    "response", [FINAL, f"<think>{DRAFT}</think>{FINAL}", f"{FINAL}<think>{DRAFT}</think>", f"{FINAL}<think>{DRAFT}"]
)
def test_an_answer_outside_its_thoughts_is_found(response):
    assert extract_code(response) == "print('final')"


def test_the_official_rule_knows_no_thoughts():
    assert extract_code(f"{FINAL}<think>{DRAFT}", thinking="official") == "print('draft')"
    with pytest.raises(ValueError, match="ignored or official"):
        extract_code(FINAL, thinking="always")
