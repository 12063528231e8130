"""What a run costs: tokens, seconds and GPU hours, from stated speeds and full-length responses.  Nothing is measured.

Counted are sampling and updates; judging, publications, checkpoints and starts come on top.
"""

from __future__ import annotations

from dataclasses import dataclass

from sdpo.config.schema import Recipe
from sdpo.learner.arithmetic import NOTHING, Forward, layer_flops, projection_flops, step_flops
from sdpo.training.memory_plan import MemoryPlan

TFLOPS = 300.0  # per GPU of a learner; a step of Qwen3-8B's shape reached 450 on an H200, one of Qwen3-0.6B's 150
BANDWIDTH = 1.5  # TB/s per GPU of an engine; an H200, whose memory has 4.8, read 2.1 while it sampled


@dataclass(frozen=True)
class Speeds:
    """What is assumed; `response`: mean tokens of a response, None for the longest."""

    tflops: float = TFLOPS
    bandwidth: float = BANDWIDTH
    response: int | None = None
    price: float | None = None  # of a GPU hour


@dataclass(frozen=True)
class Budget:
    """Of a step, and of the run."""

    sampled: int  # response tokens
    learned: int  # tokens that student and teacher compute, shared prompts once
    flops: float  # of a step's updates
    generate: float  # seconds
    score: float  # of a teacher of its own, beside sampling
    update: float
    step: float
    hours: float  # GPU hours of the run


def budget(plan: MemoryPlan, speeds: Speeds, gpus: int, evaluated: int) -> Budget:
    """`evaluated`: responses of one evaluation."""
    recipe, run = plan.recipe, plan.recipe.run
    response = min(speeds.response or recipe.rollout.max_response_tokens, recipe.rollout.max_response_tokens)
    student, teacher = _passes(recipe, response, plan.shapes.packs)
    flops = _flops(plan, student, teacher)
    elsewhere = 0.0
    if (own := plan.own_teacher) is not None:
        elsewhere = layer_flops(own.config.get_text_config(decoder=True), teacher, own.shapes.used)
    score = elsewhere / (max(1, recipe.teacher_ranks) * speeds.tflops * 1e12)
    update = flops / (recipe.learner.ranks * speeds.tflops * 1e12)
    generate = _sampling(plan, speeds, recipe.samples_per_step, response)
    step = max(generate, score) + update
    if recipe.rollout.staleness:  # a moving average is there when the batch before is learned from
        step = max(generate, score + update if recipe.teacher_has_average else max(score, update))
    evaluations = 1 + run.steps // recipe.evaluation.every if recipe.evaluation.every else 1
    evaluating = evaluations * _sampling(plan, speeds, evaluated, response)
    tokens = sum(n for forward in (student, teacher) for _, n in forward.segments)
    hours = (run.steps * step + evaluating) * gpus / 3600
    return Budget(recipe.samples_per_step * response, tokens, flops + elsewhere, generate, score, update, step, hours)


def _passes(recipe: Recipe, response: int, packs: bool) -> tuple[Forward, Forward]:
    """Of a step, by student and teacher: in packs responses to a question share its prompt; a teacher's is its own."""
    prompt, questions, responses = recipe.context.max_prompt_tokens, recipe.run.questions, recipe.rollout.responses
    group = ((0, prompt), *[(prompt, response)] * responses) if packs else ((0, prompt + response),) * responses
    student = Forward(group * questions, recipe.samples_per_step * response)
    if recipe.teacher is None:
        return student, NOTHING
    whole = (0, recipe.context.max_reprompt_tokens + response)
    return student, Forward((whole,) * recipe.samples_per_step, student.projected)


def _flops(plan: MemoryPlan, student: Forward, teacher: Forward) -> float:
    """Of the learner."""
    recipe, config = plan.recipe, plan.config.get_text_config(decoder=True)
    used = plan.shapes.used
    if recipe.teacher is not None and recipe.teacher_ranks and recipe.teacher.kind != "trust_region":
        teacher = Forward((), teacher.projected)  # what else there is of it, others compute
    counted = step_flops(config, student, teacher, recipe.learner.gradient_checkpointing, used)["total"]
    # Log-probs of the policy that a batch began with, and of a reference.
    again = (recipe.learner.updates_per_batch > 1) + (recipe.reference is not None)
    return counted + again * (layer_flops(config, student, used) + projection_flops(config, student))


def _sampling(plan: MemoryPlan, speeds: Speeds, responses: int, length: int) -> float:
    """Seconds: every token reads the weights once for all sequences at work, and what each has in the cache."""
    recipe, engine = plan.recipe, plan.engine
    prompt, share = recipe.context.max_prompt_tokens, -(-responses // recipe.rollout.engines)
    held = max(1, engine.sequences(prompt + length))
    at_once = min(share, held, recipe.rollout.max_num_seqs)
    passes = length * -(-share // at_once)
    read = engine.weights + at_once * (prompt + length / 2) * engine.token
    return passes * read / (speeds.bandwidth * 1e12)
