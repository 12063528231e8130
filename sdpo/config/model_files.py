"""A model's tokenizer and configuration, and what is said when they are not there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from sdpo.config.hub import why_offline
from sdpo.config.importing import uncollected
from sdpo.config.paths import locate
from sdpo.config.schema import Recipe
from sdpo.errors import UserError

MOST_PADDING = 1024  # entries of a vocabulary that vLLM can be kept from sampling on a GPU; it refuses more biases
_REMEDY = "Give a Hugging Face folder as model.path=…; for a hub name check its spelling, the network and HF_TOKEN."


def load_tokenizer(recipe: Recipe) -> Any:
    with uncollected():
        from transformers import AutoTokenizer

    return _load(AutoTokenizer, recipe, "tokenizer")


def load_config(recipe: Recipe) -> Any:
    """The model's configuration, without its weights."""
    from transformers import AutoConfig

    return _load(AutoConfig, recipe, "configuration")


def entries(tokenizer: Any) -> int:
    """Entries of a vocabulary up to its last token.  A model may have more, which pad it and are no tokens."""
    return max(tokenizer.get_vocab().values(), default=-1) + 1


def padding(tokenizer: Any, vocabulary: int) -> range:
    """The entries of a vocabulary behind the tokenizer's last token that engines never sample, and the learner gives no
    probability: `MOST_PADDING` of them at most.  Both must leave out the same ones, or their log-probs differ."""
    return range(entries(tokenizer), vocabulary)[:MOST_PADDING]


def known_padding(recipe: Recipe) -> range:
    """The same of a recipe's model; none where its folder has no tokenizer: transformers makes an empty one."""
    folder = Path(locate(recipe.model.path))
    if folder.is_dir() and not any(folder.glob("tokenizer*")):
        return range(0)
    return padding(load_tokenizer(recipe), _text_config(recipe).vocab_size)


def check_model(recipe: Recipe, tokenizer: Any) -> None:
    """Raises UserError when the model is not there, or holds fewer tokens than its tokenizer or the recipe needs."""
    if (folder := Path(locate(recipe.model.path))).is_dir():
        refuse_pickles(folder)
    known, ids = _text_config(recipe).vocab_size, entries(tokenizer)
    if ids > known:
        raise UserError(
            f"The tokenizer of {recipe.model.path} has {ids} tokens, its model only {known} (vocab_size in "
            "config.json): they do not belong together. Take both from one model."
        )
    longest, needed = longest_context(recipe), longest_sequence(recipe)
    if needed > longest:
        raise UserError(
            f"The model holds {longest} tokens, but prompt and response may take {needed}. Lower "
            "context.max_prompt_tokens, context.max_reprompt_tokens or rollout.max_response_tokens"
            + (
                f"; with {recipe.most_turns} turns also context.max_reply_tokens, or set rollout.max_model_len, "
                "where a rollout ends."
                if recipe.most_turns > 1
                else "."
            )
        )


def check_teacher(recipe: Recipe, tokenizer: Any) -> None:
    """Raises UserError for a teacher's model (`teacher.model`) that is not there, or speaks of other tokens."""
    if (teacher := recipe.of_teacher()) is recipe:
        return
    other, own = load_tokenizer(teacher).get_vocab(), tokenizer.get_vocab()
    if other != own:
        differing = sorted(token for token in own.keys() | other.keys() if own.get(token) != other.get(token))
        raise UserError(
            f"teacher.model={teacher.model.path} has another tokenizer than {recipe.model.path}: {len(differing)} "
            f"tokens differ ({differing[0]!r}, …), so that its probabilities are of something else. Take a model of "
            "the same family."
        )
    check_model(teacher, tokenizer)


def check_layers(recipe: Recipe) -> None:
    """Raises UserError for a layer of `distillation.layers` that student or teacher has not."""
    sides = (("student", recipe), ("teacher", recipe.of_teacher()))
    for place, (side, of) in enumerate(sides if recipe.layer_pairs else ()):
        asked, there = max(pair[place] for pair in recipe.layer_pairs), _text_config(of).num_hidden_layers
        if asked > there:
            raise UserError(
                f"distillation.layers.pairs names layer {asked} of the {side}, and {of.model.path} has {there} layers; "
                f"give [student's layer, teacher's layer], each counted from 1."
            )


def hidden_size(recipe: Recipe) -> int:
    """Width of the hidden states between the model's layers."""
    return _text_config(recipe).hidden_size


def refuse_pickles(folder: Path) -> None:
    """Raises UserError for a model folder whose weights could run code when they are read."""
    named = str(_json(folder / "config.json").get("transformers_weights") or "")
    pickles = sorted(path.name for kind in ("*.bin", "*.pt", "*.pth") for path in folder.glob(kind))
    if pickles and (named.endswith(".bin") or not any(folder.glob("*.safetensors"))):
        raise UserError(
            f"The weights of {folder} are pickles ({pickles[0]}), which may run any code when they are read, and are "
            "refused. If you trust who made them, write them again as safetensors: "
            f"python -c \"from transformers import AutoModelForCausalLM as M; M.from_pretrained('{folder}')"
            ".save_pretrained('NEW')\", with the other files copied to NEW."
        )


def _json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}  # said where it is needed
    return content if isinstance(content, dict) else {}


def load_generation_config(recipe: Recipe) -> Any:
    """What the model's folder says of generation, None if it says nothing."""
    from transformers import GenerationConfig

    try:
        return GenerationConfig.from_pretrained(locate(recipe.model.path))
    except OSError:  # no such file: it is optional
        return None
    except ValueError as error:
        raise UserError(
            f"The generation_config.json of model {recipe.model.path!r} cannot be read ({error}). Correct or remove it."
        ) from None


def longest_sequence(recipe: Recipe) -> int:
    """Tokens of the longest sequence that a run may compute."""
    if recipe.teacher is None:
        return recipe.max_model_len
    response = recipe.rollout.max_response_tokens
    later = min(recipe.later_turns(response, recipe.environment.turns), recipe.max_model_len - response)
    return max(recipe.max_model_len, recipe.context.max_reprompt_tokens + response + later)


def longest_context(recipe: Recipe) -> int:
    """Tokens that the model was made for."""
    return getattr(_text_config(recipe), "max_position_embeddings", 2**31)


def _text_config(recipe: Recipe) -> Any:
    """The part of the configuration that is a language model's: some models have others beside it."""
    return load_config(recipe).get_text_config(decoder=True)


def _load(kind: Any, recipe: Recipe, what: str) -> Any:
    path = Path(recipe.model.path)
    looks_local = path.is_absolute() or recipe.model.path.startswith((".", "~")) or len(path.parts) != 2
    if looks_local and not Path(locate(recipe.model.path)).is_dir():
        raise UserError(f"There is no model folder {recipe.model.path}. {_REMEDY}")
    located = locate(recipe.model.path)
    offline = "" if Path(located).is_dir() else why_offline()
    try:
        return kind.from_pretrained(located, local_files_only=bool(offline))
    except (OSError, ValueError, KeyError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        if offline:
            reason = f"it is not in the cache, and {offline}"
        raise UserError(f"The {what} of model {recipe.model.path!r} cannot be loaded ({reason}). {_REMEDY}") from None
