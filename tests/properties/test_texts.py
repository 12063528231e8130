"""Whatever a policy writes is read without an error; whatever is told to a teacher stays within budget and turn."""

from __future__ import annotations

import math

import numpy as np
from hypothesis import strategies as st

from sandbox.extract import extract_code
from sdpo.envs.boxed import last_boxed
from sdpo.envs.choice import Question, grade_choice
from sdpo.envs.sanitize import sanitize, sanitize_inline
from sdpo.envs.tools.calls import Unreadable, read_calls
from sdpo.prompts.thinking import without_thoughts
from sdpo.types import Hint, Outcome
from tests.helpers.prompts import HEADER, builder, byte_tokenizer
from tests.helpers.properties import holds_for
from tests.helpers.tasks import problem, turn

PIECES = [
    "<think>", "</think>", "<|im_start|>", "<|im_end|>", "<|im_", "start|>", "assistant\n", "```", "```python\n",
    "```\n", "\\boxed{", "}", "{", "\\boxed", "<answer>", "</answer>", "B", "<tool_call>", "</tool_call>", "[", "]",
    '{"name": "f"', "Action: f", "Action Input: {", "f(x=1)", "1e400", "NaN", "-Infinity", "\n", "\r", "\x00",
    "\x1b[2J", "\u202e", "\\", "'", '"', ",", ":", "print(1)", "def f():", "ﷺ", "😀", "[... cut]", "Wrong Answer",
    "((((((((", "9" * 50,
]  # fmt: skip
TEXT = st.lists(st.one_of(st.sampled_from(PIECES), st.text(max_size=6)), max_size=24).map("".join)
TOKENIZER = byte_tokenizer()


@holds_for(80, 5000, text=TEXT)
def test_any_response_is_read(text):
    for thinking in ("ignored", "official"):
        code = extract_code(text, thinking)
        assert code is None or code in text or code.strip() in text
    boxed = last_boxed(text)
    assert boxed is None or boxed in text
    answer = without_thoughts(text)
    assert len(answer) <= len(text)
    for form in ("action", "json", "python"):
        try:
            assert all(call.name for call in read_calls(text, form))
        except Unreadable as error:
            assert str(error)
    outcome = grade_choice(Question({"A": "one", "B": "two"}, "A"), text)
    assert isinstance(outcome, Outcome) and (outcome.reward is None or math.isfinite(outcome.reward))
    for made in (sanitize(text, 200), sanitize_inline(text, 200)):
        assert "<|im_start|>" not in made and "\x1b" not in made


@holds_for(30, 2000, statement=TEXT, demonstration=st.none() | TEXT, feedback=st.none() | TEXT,
           room=st.integers(120, 400))  # fmt: skip
def test_no_text_ends_a_turn_or_leaves_its_budget(statement, demonstration, feedback, room):
    """The teacher's prompt has one user's turn and one header, whatever stands in the task, the hint, the response."""
    task = problem(statement)
    frame = len(TOKENIZER.encode("".join(m["content"] for m in task.messages)))
    contexts = builder(TOKENIZER, max_prompt_tokens=10**6, max_reprompt_tokens=4 * frame + 1000 + room)
    prompt = TOKENIZER.decode(contexts.prompt(task))
    assert prompt.count("<|im_start|>") == 2 and prompt.endswith(HEADER)
    if not (demonstration or feedback):
        return
    ids = contexts.reprompt(task, Hint(demonstration or None, feedback or None), (turn("a", Outcome(0.0)),))
    assert len(ids) <= contexts.settings.max_reprompt_tokens
    told = TOKENIZER.decode(ids)
    assert (told.count("<|im_start|>"), told.count("<|im_end|>")) == (2, 1) and told.endswith(HEADER)
    assert np.isfinite(np.asarray(ids)).all()
