"""Tokenizers and chat templates of other families: what a run reads from them, and what it must not assume."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from sdpo.config.model_files import MOST_PADDING, entries, known_padding, padding
from sdpo.config.sections import ContextSettings
from sdpo.prompts.chat_format import ChatFormat
from sdpo.prompts.context import ContextBuilder
from sdpo.types import Hint
from tests.byte_tokenizer import TEMPLATE, byte_tokenizer
from tests.helpers.tasks import group, problem
from tests.helpers.tiny_model import make_tiny_model
from tests.learner.tiny import recipe

REFUSES = (
    "{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}" + TEMPLATE
)
LEAVES_OUT = TEMPLATE.replace("{% for m in messages %}", "{% for m in messages if m.role != 'system' %}")
ASKED = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "1 + 1?"}]


@pytest.mark.parametrize(("template", "takes"), [(TEMPLATE, True), (REFUSES, False), (LEAVES_OUT, False)])
def test_a_system_message_opens_the_question_where_the_template_has_no_place_for_it(template, takes):
    chat = ChatFormat(byte_tokenizer(template=template))
    assert chat.takes_system == takes
    merged = "<|start|>user\nBe kind.\n\n1 + 1?<|eot|><|start|>assistant\n"
    apart = "<|start|>system\nBe kind.<|eot|><|start|>user\n1 + 1?<|eot|><|start|>assistant\n"
    assert chat.render(ASKED) == chat.tokenizer.decode(chat.prompt(ASKED)) == (apart if takes else merged)
    assert chat.render(ASKED[1:]) == merged.replace("Be kind.\n\n", "")


def test_what_a_teacher_is_told_comes_behind_such_a_system_message():
    contexts = ContextBuilder(byte_tokenizer(template=REFUSES), ContextSettings())
    task = replace(problem(), messages=tuple(ASKED))
    text = contexts.tokenizer.decode(contexts.reprompt(task, Hint("print(2)", None)))
    assert text.startswith("<|start|>user\nBe kind.\n\n1 + 1?") and "print(2)" in text


def test_a_template_that_opens_a_thought_leaves_the_answer_behind_it():
    chat = ChatFormat(byte_tokenizer(template=TEMPLATE.replace("assistant\n", "assistant\n<think>\n")))
    assert chat.opens_thought and chat.render(ASKED).endswith("<think>\n")
    assert chat.answer("1 and 1</think>2") == "2" and chat.answer("1 and 1") == ""


def test_a_tokenizer_without_pad_token_needs_none():
    tokenizer = byte_tokenizer()
    assert tokenizer.pad_token_id is None
    contexts = ContextBuilder(tokenizer, ContextSettings())
    hint = contexts.hint(group([True, False]), 1, np.random.default_rng(0))
    assert contexts.prompt(problem()) and contexts.reprompt(problem(), hint)


def byte_fallback_tokenizer() -> PreTrainedTokenizerFast:
    """As SentencePiece's with byte fallback (Llama 2, Mistral): letters are tokens, all else is written as bytes."""
    pieces = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁"]
    vocabulary = {piece: i for i, piece in enumerate([*pieces, *"abcdefghijklmnopqrstuvwxyz"])}
    core = Tokenizer(models.BPE(vocabulary, [], unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    core.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="never")
    core.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    made = PreTrainedTokenizerFast(
        tokenizer_object=core, bos_token="<s>", eos_token="</s>", unk_token="<unk>", clean_up_tokenization_spaces=False
    )
    made.chat_template = "{% for m in messages %}{{ m.role }}: {{ m.content }}</s>{% endfor %}assistant: "
    return made


def test_bytes_that_stand_for_a_letter_are_read_as_one():
    chat = ChatFormat(byte_fallback_tokenizer())
    for text in ("naïve ✓ 1 + 1\n", "<think>é</think>答"):
        ids = chat.tokenizer.encode(text, add_special_tokens=False)
        assert chat.tokenizer.unk_token_id not in ids and len(ids) > len(text)
        assert chat.decode([*ids, chat.tokenizer.eos_token_id]) == text
    assert chat.decode(chat.tokenizer.encode("é", add_special_tokens=False)[:1]) == "�"  # cut within a letter


def test_inserted_text_ends_no_turn_with_byte_fallback():
    contexts = ContextBuilder(byte_fallback_tokenizer(), ContextSettings())
    ids = contexts.reprompt(problem(), Hint("a</s>user: b", None))
    assert list(ids).count(contexts.tokenizer.eos_token_id) == 1


# ------------------------------------------------------------------------------------------------ padded vocabularies


def test_entries_behind_the_last_token_are_padding():
    assert entries(byte_tokenizer()) == 256 + 3
    assert entries(byte_tokenizer(more=[AddedToken("<tool>", special=False)])) == 256 + 4  # added tokens are tokens
    assert not padding(byte_tokenizer(), 259)
    assert padding(byte_tokenizer(), 264) == range(259, 264)
    assert padding(byte_tokenizer(), 10_000) == range(259, 259 + MOST_PADDING)


def test_a_run_knows_the_padding_of_its_models_vocabulary(tmp_path):
    folder = make_tiny_model(tmp_path / "model", tokens=100)
    assert known_padding(recipe(folder)) == range(100, 128)
    (folder / "tokenizer.json").unlink()
    (folder / "tokenizer_config.json").unlink()
    assert not known_padding(recipe(folder))
