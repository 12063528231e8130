"""SD-Zero: the teacher reads the conversation after the response, and scores the response once more."""

from __future__ import annotations

import copy

import numpy as np
import pytest

from sdpo.algorithms import build_algorithm
from sdpo.config.files import find_recipe, load_recipe
from sdpo.errors import UserError
from sdpo.prompts.context import ContextBuilder
from sdpo.types import Group, Rollout
from tests.helpers.prompts import HEADER, builder
from tests.helpers.tasks import RIGHT, UNGRADED, problem, turn, wrong

ROOMY = ("context.max_prompt_tokens=512", "context.max_reprompt_tokens=2048")
WORDS = ("algorithm.right=Well done.", "algorithm.wrong=Once more.")


def recipe_of(*overrides: str, algorithm: str = "sd-zero"):
    return load_recipe(find_recipe("livecodebench", algorithm), "cpu", overrides)


def sd_zero(*overrides: str):
    return build_algorithm(recipe_of(*overrides))


def attempts(contexts, tokenizer, *outcomes, text: str = "answer") -> Group:
    """Responses as an engine returns them, with a token at their end that is not in their text."""
    task, made = problem(), []
    end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    for i, outcome in enumerate(outcomes):
        ids = (*tokenizer.encode(f"{text} {i}", add_special_tokens=False), end)
        made.append(Rollout((turn(f"{text} {i}", outcome, prompt_ids=contexts.prompt(task), response_ids=ids),)))
    return Group(task, tuple(made))


def assign(algorithm, contexts, made):
    [samples] = algorithm.assign([made], contexts, np.random.default_rng(0))
    return samples


def test_the_teacher_has_seen_the_response_and_what_it_was_worth(tokenizer):
    contexts = builder(tokenizer)
    made = attempts(contexts, tokenizer, RIGHT, wrong(), UNGRADED)
    right, failed, ungraded = assign(sd_zero(*WORDS), contexts, made)
    for sample, said in ((right, "Well done."), (failed, "Once more.")):
        own = sample.prompt_ids + sample.response_ids  # token by token as they were sampled
        assert sample.teacher.prompt_ids[: len(own)] == own
        after = tokenizer.decode(sample.teacher.prompt_ids[len(own) :])
        assert after == f"\n<|im_start|>user\n{said}<|im_end|>\n{HEADER}"
        assert sample.teacher.hint.feedback == said and sample.teacher.weight.tolist() == [1.0] * 9
        assert sample.advantages is None
    assert ungraded.teacher is None


def test_what_failed_is_told_its_feedback_and_what_is_right_nothing(tokenizer):
    contexts = builder(tokenizer)
    made = attempts(contexts, tokenizer, RIGHT, wrong(expected="73"))
    right, failed = assign(sd_zero(), contexts, made)  # the cpu profile
    assert right.teacher is None and failed.teacher.hint.feedback == made.rollouts[1].outcome.feedback
    assert "73" in tokenizer.decode(failed.teacher.prompt_ids)


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        (["context.max_reprompt_tokens=815"], "up to 816 tokens: set context.max_reprompt_tokens"),
        (["context.feedback=always"], "context.feedback has no effect with sd-zero"),
        (["context.demonstration=solution"], "context.demonstration has no effect with sd-zero"),
        (["policy_gradient.variant=ppo"], "policy_gradient has no effect with these settings of sd-zero"),
    ],
)
def test_mistakes_are_named(overrides, says):
    with pytest.raises(UserError, match=says):
        sd_zero(*overrides)


def test_the_reply_to_the_only_turn_has_a_length_that_can_be_set(tokenizer):
    """`context.max_reply_tokens` has an effect at one turn here, and with no other algorithm."""
    told = "The answer is wrong in many words. " * 20
    lengths = []
    for most in (64, 128):
        recipe = recipe_of(f"context.max_reply_tokens={most}", f"algorithm.wrong={told}", *ROOMY)
        contexts = ContextBuilder(tokenizer, recipe.context)
        [sample] = assign(build_algorithm(recipe), contexts, attempts(contexts, tokenizer, wrong()))
        lengths.append(len(sample.teacher.prompt_ids) - len(sample.prompt_ids + sample.response_ids))
    assert 50 < lengths[0] <= 64 < 110 < lengths[1] <= 128
    for algorithm in ("sdpo", "opsd", "grpo"):
        with pytest.raises(UserError, match=r"context\.max_reply_tokens has no effect with environment\.turns=1"):
            recipe_of("context.max_reply_tokens=64", algorithm=algorithm)


def test_how_the_only_turn_is_rendered_can_be_set(tokenizer):
    """A template that trims answers writes the response anew; `context.history=sampled` leaves it as it was."""
    trimming = copy.copy(tokenizer)
    trimming.chat_template = tokenizer.chat_template.replace("{{ m.content }}", "{{ m.content | trim }}")
    kept = []
    for history in ("template", "sampled"):
        recipe = recipe_of(f"context.history={history}", "algorithm.wrong=Once more.", *ROOMY)
        contexts = ContextBuilder(trimming, recipe.context)
        made = attempts(contexts, trimming, wrong(), text="  answer")
        [sample] = assign(build_algorithm(recipe), contexts, made)
        own = sample.prompt_ids + sample.response_ids
        kept.append(sample.teacher.prompt_ids[: len(own)] == own)
    assert kept == [False, True]
