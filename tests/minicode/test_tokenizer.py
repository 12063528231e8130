"""The policy's tokenizer: lossless, alike everywhere, and with a chat template that is what pre-training wrote."""

from __future__ import annotations

import pytest
from transformers import AutoTokenizer

from studies.pretrain.tokenizer import ASSISTANT, END, USER, prompt_text, train_tokenizer
from studies.pretrain.worlds import CORPORA


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizer")
    texts = [prompt_text(e.content) + e.response for e in CORPORA["minicode"].examples(0, 1500)]
    train_tokenizer(texts, CORPORA["minicode"].phrases, 768).save_pretrained(folder)
    return AutoTokenizer.from_pretrained(folder)


def ids(tokenizer, text):
    return tokenizer(text, add_special_tokens=False).input_ids


def test_round_trip(tokenizer):
    for example in CORPORA["minicode"].examples(3, 200):
        for text in (example.content, example.response, "äöü ⁂ \t <tag>\r\n"):
            assert tokenizer.decode(ids(tokenizer, text)) == text


def test_chat_template_is_the_prompt_of_pretraining(tokenizer):
    messages = [{"role": "user", "content": "Print the `zorp` values."}]
    chat = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    assert chat == prompt_text(messages[0]["content"])
    turn = [*messages, {"role": "assistant", "content": "ok"}]
    assert tokenizer.apply_chat_template(turn, tokenize=False) == f"{USER}Print the `zorp` values.{ASSISTANT}ok{END}"


def test_a_word_is_the_same_tokens_wherever_it_stands(tokenizer):
    for word in ("zorp", "blickan", "snurt"):
        alone = ids(tokenizer, f"`{word}`")[1:-1]
        for text in (f"kit.{word}Of(x)", f"attribute '{word}'", f"Did you mean: '{word}Up'?", f"the `kit.{word}` of"):
            tokens = ids(tokenizer, text)
            assert any(tokens[k : k + len(alone)] == alone for k in range(len(tokens))), (word, text)


def test_answers_and_prompts_are_short(tokenizer):
    examples = list(CORPORA["minicode"].examples(4, 300))
    answers = [len(ids(tokenizer, e.response)) for e in examples]
    prompts = [len(ids(tokenizer, prompt_text(e.content))) for e in examples]
    assert max(answers) <= 60 and sum(answers) / len(answers) < 20
    assert max(prompts) <= 200 and sum(prompts) / len(prompts) < 40


def test_special_tokens(tokenizer):
    assert tokenizer.eos_token == END and tokenizer.pad_token_id != tokenizer.eos_token_id
    assert len(tokenizer) == 768
