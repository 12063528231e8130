"""A tiny Qwen3 with random weights and a word-level tokenizer, as a Hugging Face model folder."""

from __future__ import annotations

from pathlib import Path

import torch

PAD, EOS = 0, 1


def make_tiny_model(
    path: Path,
    vocab: int = 128,
    hidden: int = 64,
    layers: int = 2,
    tied: bool = True,
    context: int = 1024,
    seed: int = 0,
    scale: float = 4.0,
    tokens: int | None = None,
) -> Path:
    """Write the folder and return it.

    Args:
        path: folder to create.
        vocab: number of tokens: `<pad>` = 0, `<eos>` = 1, then `t2`, `t3`, ….
        scale: factor on the input embedding's initial standard deviation of 0.02; with a tied output it makes the
            distributions of a random model peaked enough to tell two models apart.
        tokens: of the tokenizer; None: as many as the model has entries, which else are padded.
    """
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

    config = Qwen3Config(
        vocab_size=vocab,
        hidden_size=hidden,
        intermediate_size=2 * hidden,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=32,
        max_position_embeddings=context,
        tie_word_embeddings=tied,
        bos_token_id=None,
        eos_token_id=EOS,
        pad_token_id=PAD,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = Qwen3ForCausalLM(config)
    with torch.no_grad():
        model.model.embed_tokens.weight.mul_(scale)
    model.save_pretrained(path)
    words = {"<pad>": PAD, "<eos>": EOS} | {f"t{i}": i for i in range(2, tokens or vocab)}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="t2"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<eos>", pad_token="<pad>").save_pretrained(path)
    return path
