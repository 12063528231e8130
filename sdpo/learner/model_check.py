"""Whether the learner computes what the model computes, told by numbers and not by the architecture's name.

At three places: before a run on a small model of the configuration (`check_configuration`), in the learner with the
real weights (`check_log_probs`), and after the first publication between learner and engines
(`sdpo.training.engine_check`).
Nothing is said when all is right; what cannot be packed is computed one sequence at a time, and says so; what is wrong
then, too, is refused with the difference, what is allowed, and the reason.
"""

from __future__ import annotations

import copy
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import nn
from transformers import AutoModelForCausalLM, GenerationConfig, PretrainedConfig
from transformers.utils import logging

from sdpo.errors import UserError
from sdpo.learner import attention, export
from sdpo.learner.attention import CannotPack
from sdpo.learner.model import PolicyModel
from sdpo.learner.packing import pack
from sdpo.learner.small_model import EXTENSION, WINDOW, small_config
from sdpo.losses.vocabulary import vocabulary_pass

Sequences = tuple[list[np.ndarray], list[np.ndarray]]  # prompts and responses, int64


class Computed(NamedTuple):
    """How the learner computes a model: `learner.packing` and `model.attention`, and why not packed where it is not."""

    packing: Literal["auto", "off"]
    attention: str
    reason: str | None = None


_FOUND: dict[tuple[str, ...], Computed] = {}  # what this process has found already

_REMEDY = "Use another architecture (Qwen, Llama, OLMo, Mistral, …)."
_CARRIED = (
    "something reaches from one sequence of a packed row to the next (a recurrence, a convolution, or a position "
    "encoding that depends on the row's length)"
)
_UNSEEN = "its attention does something that it does not say in the options of its call (a mask, a bias, …)"
_LATER = "what comes later changes what was before (a position encoding that depends on the row's length, …)"
_CUT = 3  # tokens of a response that every sequence of the check has


def check_configuration(
    config: PretrainedConfig,
    form: str = "sdpa",
    longest: int = 2**31,
    generation: GenerationConfig | None = None,
    packing: Literal["auto", "off"] = "auto",
    on_gpu: bool = False,
) -> Computed:
    """Try packing, the losses' head and the export on a small random model of the configuration, in fp32 on the CPU.

    form        `model.attention`; flash_attention_2 needs a GPU, and sdpa is taken for it
    longest     tokens of the run's longest sequence, see `small_config`
    generation  what the model's folder says of generation
    packing     `learner.packing`
    on_gpu      whether the learner's ranks have GPUs

    Returns how the learner is to compute it: as asked; where packs would be wrong so, on GPUs by flex_attention; and
    where they would be wrong with this too, with transformers' own attention.
    Raises UserError for a model that it would compute wrongly, or not at all, either way.
    """
    asked = config.to_json_string(), form, str(longest), repr(generation), packing, str(on_gpu)
    if asked not in _FOUND:
        small = small_config(config, longest)
        # no small model can be made of it: the learner looks at the whole one
        _FOUND[asked] = Computed(packing, form) if small is None else _checked(small, form, generation, packing, on_gpu)
    return _FOUND[asked]


class _Plain(NamedTuple):
    """A small model of transformers, and what it computes of sequences."""

    config: PretrainedConfig
    model: nn.Module
    asked: Sequences
    log_probs: torch.Tensor  # [N]


def _checked(
    small: PretrainedConfig,
    form: str,
    generation: GenerationConfig | None,
    packing: Literal["auto", "off"],
    on_gpu: bool,
) -> Computed:
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        try:
            model = AutoModelForCausalLM.from_config(small, dtype=torch.float32, attn_implementation="eager").eval()
            _randomise(model)
            asked = sequences(small.get_text_config(decoder=True).vocab_size)
            plain = _Plain(small, model, asked, plain_log_probs(model, asked))
        except Exception:  # noqa: BLE001 — what transformers itself cannot run says nothing about the learner
            return Computed(packing, form)
        found, policy = _packed(plain, form, on_gpu) if packing == "auto" else (Computed(packing, form), None)
        if policy is None:
            _check_prefixes(plain)
            own, policy = _alone(plain, form)
            found = found._replace(attention=own)
        if generation is not None:
            policy.model.generation_config = generation
        _check_export(policy.model, plain)
    return found


def _packed(plain: _Plain, form: str, on_gpu: bool) -> tuple[Computed, PolicyModel | None]:
    """The first form of packed attention that computes this model, and the model with it, or None."""
    reason = None
    for each in dict.fromkeys((form, "flex_attention") if on_gpu else (form,)):
        try:
            policy = _tried(plain, attention.register("sdpa" if each == "flash_attention_2" else each))
        except CannotPack as error:
            reason = reason or error.reason
        else:
            return Computed("auto", each, reason), policy
    return Computed("off", form, reason), None


def _tried(plain: _Plain, name: str) -> PolicyModel:
    """The learner's model with this attention.  Raises CannotPack or UserError if it computes something else."""
    kind, packed, (prompts, responses) = plain.config.model_type, attention.is_packed(name), plain.asked
    try:
        policy = counterpart(plain.config, name, plain.model)
        alone = torch.cat([policy_log_probs(policy, ([p], [r])) for p, r in zip(prompts, responses, strict=True)])
        together = policy_log_probs(policy, plain.asked) if packed else alone
    except UserError:
        raise
    except Exception as error:  # noqa: BLE001 — an architecture that cannot run at all, before anything is started
        said = f"{kind} cannot run with {'packed' if packed else name} attention ({_first_sentence(error)})"
        raise (CannotPack(said) if packed else UserError(f"{said}. {_REMEDY}")) from error
    check_log_probs(kind, torch.float32, packed, together, alone, plain.log_probs)
    return policy


def counterpart(config: PretrainedConfig, name: str, plain: nn.Module) -> PolicyModel:
    """The learner's model of a configuration, with attention of this name, on the tensors of a plain one."""
    config = copy.deepcopy(config)  # the attention is written into it, and the plain model has its own
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32, attn_implementation=name).eval()
    model.load_state_dict(plain.state_dict(), assign=True)
    model.tie_weights()
    return PolicyModel(model)


def _alone(plain: _Plain, form: str) -> tuple[str, PolicyModel]:
    """The first of transformers' own forms of attention that computes this model, and the model with it."""
    if form != "eager":
        try:
            return "sdpa", _tried(plain, "sdpa")
        except UserError:
            pass  # some models have no such form, or one that leaves something out: eager is what defines them
    return "eager", _tried(plain, "eager")


def _check_prefixes(plain: _Plain) -> None:
    """UserError for a model whose log-probs of a token depend on how many tokens come after it.

    Engines sample one token after the other, so that nobody could compute what they sampled from.
    """
    prompts, responses = plain.asked
    cut = plain_log_probs(plain.model, (prompts, [response[:_CUT] for response in responses]))
    whole = torch.cat([part[:_CUT] for part in plain.log_probs.split([len(response) for response in responses])])
    if (found := _beyond(torch.float32, cut, whole, exact=True)) is not None:
        what = f"The log-probs of a response's first tokens alone and within all of it, with {plain.config.model_type},"
        raise _refusal(what, found, _LATER)


def check_log_probs(
    kind: str,
    dtype: torch.dtype,
    packs: bool,
    packed: torch.Tensor,
    alone: torch.Tensor,
    plain: torch.Tensor,
    exact: bool = True,
) -> None:
    """Log-probs [N] of packed sequences, of each in a pass of its own, and plain transformers'.

    Raises CannotPack where a model with packed attention (`packs`) is off, UserError where another one is.
    """
    what = f"The log-probs that the learner computes with {kind} and those of transformers"
    if (found := _beyond(dtype, alone, plain, exact)) is not None:
        raise CannotPack(_clause(what, found, _UNSEEN)) if packs else _refusal(what, found, _UNSEEN)
    if (found := _beyond(dtype, packed, plain, exact)) is not None:
        raise CannotPack(_clause(f"The log-probs of packed sequences and of each alone, with {kind},", found, _CARRIED))


def _beyond(dtype: torch.dtype, a: torch.Tensor, b: torch.Tensor, exact: bool) -> tuple[str, float, float] | None:
    """(measure, difference, tolerance) where two ways to compute the same log-probs [N] differ by more than rounding.

    fp32   the largest difference, in nats: 1e-4 on small models with weights of a known size, 1e-3 elsewhere.  Rounding
           makes 1e-6 to 1e-4, the smallest faults that were met some tenths
    bf16   the mean difference, up to .25.  A logit near 16 rounds by .03 to .06, hidden states through 36 layers by
           more, and a router that sits between two experts may choose the other one for some of the tokens, so single
           ones say little; over 30 tokens .02 to .1 are usual, and faults of a factor, a mask or a layer make some nats
    """
    gap = (a.double() - b.double()).abs()
    if dtype == torch.float32:
        measure, difference, tolerance = "by up to", float(gap.max()), 1e-4 if exact else 1e-3
    else:
        measure, difference, tolerance = "on average by", float(gap.mean()), 0.25
    return None if difference <= tolerance else (measure, difference, tolerance)  # NaN is beyond, too


def _clause(what: str, found: tuple[str, float, float], reason: str) -> str:
    measure, difference, tolerance = found
    return f"{what} differ {measure} {difference:.2g} nats, where {tolerance:.2g} is allowed: {reason}"


def _refusal(what: str, found: tuple[str, float, float], reason: str) -> UserError:
    return UserError(f"{_clause(what, found, reason)}. {_REMEDY}")


# ------------------------------------------------------------------------------------------------ what is computed


def sequences(vocabulary: int) -> Sequences:
    """Random prompts and responses: three responses to one prompt, and another pair of both.

    Some are longer and some shorter than the length from which position encodings change; all pass a window.
    """
    rng = np.random.default_rng(0)

    def draw(length: int) -> np.ndarray:
        return rng.integers(3, vocabulary - 1, length)

    shared, other = draw(WINDOW + 2), draw(4)
    return [shared, shared, shared, other], [draw(EXTENSION + 2), draw(3), draw(9), draw(7)]


def policy_log_probs(policy: PolicyModel, asked: Sequences) -> torch.Tensor:
    """[N]: log-probs of the responses' tokens through one pack and the losses' head."""
    prompts, responses = asked
    tokens = torch.from_numpy(np.concatenate(responses))

    def log_probs(logits: torch.Tensor, rows: slice):
        return logits.new_zeros(()), {"found": vocabulary_pass(logits, tokens[rows], triton=False).log_probs}

    return policy(pack(prompts, responses, tokens.device), log_probs, chunk_tokens=11)[1]["found"]


def plain_log_probs(model: nn.Module, asked: Sequences, temperature: float = 1.0) -> torch.Tensor:
    """[N]: the same by a model of transformers, one sequence at a time."""
    device = model.get_input_embeddings().weight.device
    found = []
    for prompt, response in zip(*asked, strict=True):
        ids = torch.from_numpy(np.concatenate([prompt, response])).to(device)
        logits = model(input_ids=ids[None], use_cache=False).logits[0, len(prompt) - 1 : -1].float() / temperature
        found.append(logits.log_softmax(-1).gather(1, ids[len(prompt) :, None])[:, 0])
    return torch.cat(found)


@contextmanager
def own_attention(model: nn.Module) -> Iterator[None]:
    """Within the context the model is plain transformers'."""
    packed = model.config._attn_implementation
    model.set_attn_implementation("eager")
    try:
        yield
    finally:
        model.set_attn_implementation(packed)


def _first_sentence(error: Exception) -> str:
    lines = str(error).strip().splitlines() or ["no reason given"]
    return f"{type(error).__name__}: {lines[0].split('. ')[0].rstrip('.')}"


def _randomise(model: nn.Module) -> None:
    """Weights under which every part shows: norms and biases that are not trivial, scores and logits of a few nats."""
    for parameter in model.parameters():
        if parameter.dim() > 1:
            parameter.normal_(std=2 * parameter.shape[-1] ** -0.5)
        else:
            parameter.add_(torch.randn_like(parameter), alpha=0.3)
    kept = model.state_dict().keys()
    for name, buffer in model.named_buffers():
        if name in kept and buffer.is_floating_point():
            buffer.add_(torch.randn_like(buffer), alpha=0.5)


def _check_export(model: nn.Module, plain: _Plain) -> None:
    """The folder that a checkpoint of a run writes holds the model that was written."""
    with tempfile.TemporaryDirectory(prefix="sdpo-check-") as folder, _quiet():
        try:
            state = {name: tensor for tensors in export.named_state(model) for name, tensor in tensors}
            export.write(model, state, folder)
            again = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")
        except Exception as error:  # noqa: BLE001
            raise UserError(
                f"A run with {model.config.model_type} could not write its policy ({_first_sentence(error)}). "
                f"If the reason is the generation configuration, correct the model folder's generation_config.json."
            ) from error
        found = _beyond(torch.float32, plain_log_probs(again.eval(), plain.asked), plain.log_probs, exact=True)
        ends = [config.eos_token_id for config in (model.generation_config, again.generation_config)]
    if found is not None:
        reason = "what transformers writes and reads again is another model"
        raise _refusal(f"The log-probs of {model.config.model_type} and of the policy that it exports", found, reason)
    if ends[0] != ends[1]:
        raise UserError(f"The exported policy's end tokens would be {ends[1]} instead of {ends[0]}.")


@contextmanager
def _quiet() -> Iterator[None]:
    """No bars for files of some kilobytes, and no word of DeepSpeed, as it is imported, that there is no GPU."""
    shown, known = logging.is_progress_bar_enabled(), "DS_ACCELERATOR" in os.environ
    logging.disable_progress_bar()
    if not torch.cuda.is_available():
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()
        if not known:
            os.environ.pop("DS_ACCELERATOR", None)


def probe(vocabulary: int, tokens: int = 32) -> tuple[list[int], list[int]]:
    """A prompt and a response of random tokens for the comparison of engines and learner."""
    ids = np.random.default_rng(1).integers(3, vocabulary - 1, tokens).tolist()
    return ids[: tokens // 4], ids[tokens // 4 :]
