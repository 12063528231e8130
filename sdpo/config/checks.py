"""What the sections of a recipe demand of each other, and which options have no effect beside others.

Sections on their own are checked where they are declared (`sdpo.config.schema`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sdpo.config.schema import Recipe

REMOVE = "remove it from the recipe, or set it to null"


def check(recipe: Recipe, resolved: bool) -> None:
    """Raises ValueError for the first contradiction.

    resolved: every default is spelled out in this recipe, so what was set explicitly cannot be told any more.
    """
    if recipe.distillation is not None and recipe.teacher is None:
        raise ValueError("distillation needs a teacher; add the section teacher (teacher={} for its defaults)")
    if not resolved:
        _sections(recipe)
        _idle(recipe)
    _budget(recipe)
    _precision(recipe)
    for kind in _classes(recipe, resolved):
        kind.check(recipe)
    _source(recipe)
    _turns(recipe)
    _engines_and_data(recipe, resolved)
    _distillation(recipe)
    _layers(recipe)
    _guards(recipe)


def _classes(recipe: Recipe, resolved: bool) -> list[Any]:
    """The recipe's algorithm and environment."""
    from sdpo.config.schema import algorithm_class, environment_class

    found = algorithm_class(recipe.algorithm.name, resolved), environment_class(recipe.environment.kind, resolved)
    return [kind for kind in found if kind is not None]


def _sections(recipe: Recipe) -> None:
    """Sections that the algorithm does not have, options of `data` and `sandbox` that the environment does not read."""
    algorithm, environment = _classes(recipe, resolved=False)
    wanted = algorithm.sections(recipe.algorithm.model_dump())
    for section in ("teacher", "distillation", "policy_gradient"):
        if getattr(recipe, section) is not None and section not in wanted:
            raise ValueError(f"{section} has no effect with these settings of {recipe.algorithm.name}; {REMOVE}")
    for section in ("data", "sandbox"):
        unread = [
            path
            for option in type(getattr(recipe, section)).model_fields
            if (path := f"{section}.{option}") not in environment.reads and _explicitly_set(recipe, path)
        ]
        if unread:
            raise ValueError(
                f"{', '.join(unread)} has no effect with environment.kind={recipe.environment.kind}; {REMOVE}"
            )


def _idle(recipe: Recipe) -> None:
    """Options that another setting makes inert."""
    idle = {
        path: f"{path} has no effect {reason}"
        for path, inert, reason in (*INERT, *(entry for kind in _classes(recipe, False) for entry in kind.inert))
        if _explicitly_set(recipe, path) and inert(recipe)
    }
    if idle:
        raise ValueError(f"{'; '.join(idle.values())}. {REMOVE[0].upper() + REMOVE[1:]}: {', '.join(idle)}")


def _budget(recipe: Recipe) -> None:
    """Steps, samples and what is asked of them."""
    if recipe.run.questions % recipe.learner.updates_per_batch:
        raise ValueError(
            f"learner.updates_per_batch={recipe.learner.updates_per_batch} must divide "
            f"run.questions={recipe.run.questions}: mini-batches are whole groups"
        )
    if 1 not in recipe.evaluation.ks or min(recipe.evaluation.ks) < 1:
        raise ValueError("evaluation.ks must hold 1 (the best checkpoint is chosen by pass@1) and nothing below it")
    if max(recipe.evaluation.ks) > recipe.evaluation_samples:
        raise ValueError(
            f"evaluation.ks asks for pass@{max(recipe.evaluation.ks)} from {recipe.evaluation_samples} samples; "
            "raise evaluation.samples (greedy decoding, temperature 0, gives one)"
        )


def _precision(recipe: Recipe) -> None:
    """What number formats need."""
    if recipe.model.dtype == "bfloat16" and recipe.learner.zero_stage < 2:
        raise ValueError(
            "model.dtype=bfloat16 needs fp32 master weights and gradients summed up in fp32, which DeepSpeed keeps "
            "from stage 2 on; set learner.zero_stage=2"
        )
    if recipe.model.attention == "flash_attention_2" and (recipe.profile, recipe.model.dtype) != ("gpu", "bfloat16"):
        raise ValueError("model.attention=flash_attention_2 needs profile gpu and model.dtype=bfloat16")
    if recipe.model.attention == "flex_attention" and recipe.profile != "gpu":
        raise ValueError("model.attention=flex_attention needs profile gpu: on a CPU it has no backward pass")
    if recipe.model.attention in ("flash_attention_2", "flex_attention") and recipe.learner.packing == "off":
        raise ValueError(
            f"model.attention={recipe.model.attention} is for packs; with learner.packing=off set sdpa or eager"
        )


def _engines_and_data(recipe: Recipe, resolved: bool) -> None:
    """Who shares which GPU, which problems there are, how old a sample may be."""
    if recipe.rollout.colocated and not resolved and "gpu_memory_utilization" not in recipe.rollout.model_fields_set:
        raise ValueError(
            "rollout.colocated shares each GPU with the learner: set rollout.gpu_memory_utilization to what the "
            "learner's weights and optimiser leave free (`--dry-run` prints them)"
        )
    if (
        recipe.teacher is not None
        and recipe.rollout.responses == 1
        and (recipe.context.demonstration, recipe.context.feedback) == ("random", "never")
    ):
        raise ValueError("a single response has no sibling, and context.feedback=never leaves the teacher nothing")
    if recipe.rollout.colocated and (recipe.rollout.engines, recipe.rollout.tensor_parallel_size) != (
        recipe.learner.ranks,
        1,
    ):
        raise ValueError(
            "rollout.colocated puts one engine on the GPU of each learner rank: set "
            f"rollout.engines={recipe.learner.ranks} and rollout.tensor_parallel_size=1"
        )
    if recipe.rollout.colocated and recipe.loads_adapter:
        raise ValueError(
            "rollout.adapter=loaded keeps the base model in the engines, and with rollout.colocated they give its "
            "memory up while the learner works; leave rollout.adapter at merged"
        )
    if recipe.rollout.mode == "continuous":
        _continuous(recipe)
    if recipe.rollout.staleness and recipe.rollout.colocated:
        raise ValueError("rollout.staleness needs the engines while the learner works; rollout.colocated=false")
    for name in ("policy_gradient", "distillation"):
        stream = getattr(recipe, name)
        if recipe.rollout.staleness and stream is not None and stream.sampler_threshold is None:
            raise ValueError(
                f"rollout.staleness={recipe.rollout.staleness} samples with older weights; {name}.sampler_threshold "
                "corrects for that (2 is usual)"
            )


def _continuous(recipe: Recipe) -> None:
    """Generation goes on while the learner works."""
    if recipe.rollout.colocated:
        raise ValueError(
            "rollout.mode=continuous needs engines that sample while the learner works; set rollout.colocated=false, "
            "or leave rollout.mode at synchronous"
        )
    if recipe.rollout.source != "policy":
        raise ValueError(
            f"rollout.mode=continuous has no effect with rollout.source={recipe.rollout.source}, which samples "
            f"nothing; {REMOVE}"
        )
    if not recipe.rollout.staleness:
        raise ValueError(
            "rollout.mode=continuous learns from responses that began with older weights; set rollout.staleness to the "
            "versions by which a token may lag (8, say), or leave rollout.mode at synchronous"
        )


def _distillation(recipe: Recipe) -> None:
    """Which forms of the divergence and which contexts exist."""
    distillation = recipe.distillation
    if distillation is not None and distillation.level != "logit" and distillation.alpha != 1.0:
        raise ValueError(
            f"distillation.level={distillation.level} is defined for the reverse KL only; set distillation.alpha=1"
        )
    prefix = distillation and distillation.prefix_tokens
    if prefix and prefix >= recipe.rollout.max_response_tokens:
        raise ValueError(
            f"distillation.prefix_tokens={prefix} has no effect: no response is longer than "
            f"rollout.max_response_tokens={recipe.rollout.max_response_tokens}; {REMOVE}"
        )
    clips = ("advantage_clip", "advantage_clip_factor", "entry_clip")
    given = [f"distillation.{clip}" for clip in clips if distillation and getattr(distillation, clip) is not None]
    if len(given) > 1:
        raise ValueError(f"{' and '.join(given)} exclude each other; set one")
    if distillation and given and given[0] != "distillation.entry_clip" and distillation.alpha != 1.0:
        raise ValueError(f"{given[0]} is a form of the reverse KL; set distillation.alpha=1")
    if recipe.teacher is not None and recipe.context.demonstration == "none" and recipe.context.feedback == "never":
        raise ValueError(
            "the teacher needs a context: context.demonstration=none and context.feedback=never leave none"
        )
    if recipe.context.demonstration_of == "other" and recipe.run.questions == 1:
        raise ValueError(
            "context.demonstration_of=other shows what another task of the batch has; set run.questions to 2 or more"
        )
    if recipe.context.demonstration == "column" and recipe.context.column is None:
        raise ValueError("context.demonstration=column needs the column's name: set context.column")


def _layers(recipe: Recipe) -> None:
    """Whose hidden states layers are compared with."""
    if not recipe.layer_pairs or recipe.teacher is None or recipe.distillation is None:
        return
    if not recipe.teacher_ranks:
        raise ValueError(
            "distillation.layers compares hidden states with those of a teacher of its own; set teacher.placement=own"
        )
    if recipe.teacher.kind == "trust_region" or recipe.distillation.blend is not None:
        mixed = "teacher.kind=trust_region" if recipe.distillation.blend is None else "distillation.blend"
        raise ValueError(
            f"{mixed} mixes the logits of two passes, which have no hidden states in common for distillation.layers; "
            + ("set teacher.kind=frozen or ema" if recipe.distillation.blend is None else REMOVE)
        )


def _guards(recipe: Recipe) -> None:
    """What another teacher after a rollback needs, and one that is refreshed."""
    teacher, guard = recipe.teacher, recipe.guard
    if guard.action == "rollback" and teacher is None:
        raise ValueError(
            "guard.action=rollback goes back and changes the teacher, and without one the run would repeat itself; set "
            "guard.action=stop"
        )
    if teacher is None:
        return
    if teacher.model is not None and guard.action == "rollback":
        raise ValueError(
            "guard.action=rollback gives the teacher weights of the policy, and teacher.model is another model; set "
            "guard.action=stop"
        )
    if teacher.model is not None and recipe.probe.every:
        raise ValueError(
            "probes sample from the teacher with the policy's engines, and teacher.model is another model; set "
            "probe.every=0"
        )
    if guard.teacher == "refresh" and teacher.kind == "live":
        raise ValueError(f"guard.teacher=refresh has no effect with teacher.kind=live; {REMOVE}")
    if guard.teacher == "freeze" and teacher.kind == "frozen":
        raise ValueError(f"guard.teacher=freeze has no effect with teacher.kind=frozen; {REMOVE}")
    if teacher.refresh == "probe" and not recipe.probe.every:
        raise ValueError("teacher.refresh=probe needs probes: set probe.every")


def _source(recipe: Recipe) -> None:
    """Responses of the dataset have no sampler and no siblings."""
    source = recipe.rollout.source
    if source == "policy":
        return
    if source == "column" and recipe.context.column is None:
        raise ValueError("rollout.source=column needs the column's name: set context.column")
    if recipe.rollout.responses != 1:
        raise ValueError(f"a problem has one demonstration: with rollout.source={source} set rollout.responses=1")
    gradient = recipe.policy_gradient
    if gradient is not None and (gradient.variant != "reinforce" or gradient.sampler_threshold is not None):
        raise ValueError(
            f"responses of rollout.source={source} were not sampled, so there is no ratio: set "
            "policy_gradient.variant=reinforce and policy_gradient.sampler_threshold=null"
        )


def _turns(recipe: Recipe) -> None:
    """A rollout holds one turn at least."""
    shortest = recipe.context.max_prompt_tokens + recipe.longest_response
    if recipe.rollout.max_model_len is not None and recipe.rollout.max_model_len < shortest:
        raise ValueError(
            f"rollout.max_model_len={recipe.rollout.max_model_len} does not hold one turn: prompt and response may "
            f"take {shortest} tokens"
        )


def _explicitly_set(recipe: Recipe, path: str) -> bool:
    """Whether the option was given and is not switched off (null, or false where false is the default)."""
    node: Any = recipe
    *parents, leaf = path.split(".")
    for part in parents:
        node = getattr(node, part)
        if node is None:
            return False
    value, default = getattr(node, leaf), type(node).model_fields[leaf].default
    switched_off = value is None or (value is False and default is False)
    return leaf in node.model_fields_set and not switched_off


def _one_update(recipe: Recipe) -> bool:
    return recipe.learner.updates_per_batch == 1


def _without_ratio(recipe: Any) -> bool:
    return recipe.policy_gradient.variant == "reinforce"


def has_replies(recipe: Recipe) -> bool:
    """Whether a response is replied to anywhere: before a later turn, or for its teacher alone."""
    return recipe.most_turns > 1 or any(getattr(kind, "replies", False) for kind in _classes(recipe, resolved=True))


_ONE_UPDATE = "with learner.updates_per_batch=1 (the policy ratio is always 1)"

# (option, when it does nothing, how that is said); asked of a recipe (Any) only where the option's section is not null
INERT: tuple[tuple[str, Callable[[Any], bool], str], ...] = (
    ("distillation.tail", lambda r: r.distillation.top_k is None, "on the full vocabulary (distillation.top_k null)"),
    *(
        (f"distillation.{option}", lambda r: r.distillation.level != "logit", "unless distillation.level=logit")
        for option in ("top_k", "tail", "support", "entry_clip", "advantage_clip", "advantage_clip_factor")
    ),
    ("learner.micro_batch_tokens", lambda r: r.learner.packing == "off", "with learner.packing=off"),
    ("teacher.clock", lambda r: r.teacher.clock == "update" and _one_update(r), "with learner.updates_per_batch=1"),
    ("teacher.ranks", lambda r: r.teacher.placement == "learner", "unless teacher.placement=own"),
    (
        "distillation.support",
        lambda r: r.distillation.top_k is None,
        "on the full vocabulary (distillation.top_k null)",
    ),
    ("distillation.is_clip", _one_update, _ONE_UPDATE),
    ("policy_gradient.clip_low", _one_update, _ONE_UPDATE),
    ("policy_gradient.clip_high", _one_update, _ONE_UPDATE),
    ("policy_gradient.dual_clip", _one_update, _ONE_UPDATE),
    ("policy_gradient.dual_clip", lambda r: r.policy_gradient.variant == "cispo", "with policy_gradient.variant=cispo"),
    ("policy_gradient.clip_low", _without_ratio, "with policy_gradient.variant=reinforce"),
    ("policy_gradient.clip_high", _without_ratio, "with policy_gradient.variant=reinforce"),
    ("policy_gradient.dual_clip", _without_ratio, "with policy_gradient.variant=reinforce"),
    (
        "policy_gradient.variant",
        lambda r: r.policy_gradient.variant not in ("ppo", "reinforce") and _one_update(r),
        _ONE_UPDATE,
    ),
    ("evaluation.samples", lambda r: r.evaluation.temperature == 0, "with greedy decoding (evaluation.temperature=0)"),
    ("evaluation.top_p", lambda r: r.evaluation.temperature == 0, "with greedy decoding (evaluation.temperature=0)"),
    (
        "context.demonstration",
        lambda r: r.teacher is None and r.context.demonstration != "none",
        "without a teacher",
    ),
    (
        "context.column",
        lambda r: (r.teacher is None or r.context.demonstration != "column") and r.rollout.source != "column",
        "unless a teacher has context.demonstration=column",
    ),
    ("context.demonstration_of", lambda r: r.teacher is None, "without a teacher"),
    ("context.demonstration_of", lambda r: r.context.demonstration == "none", "without demonstrations"),
    ("context.teacher_thinking", lambda r: r.teacher is None, "without a teacher"),
    ("context.feedback", lambda r: r.teacher is None and r.context.feedback != "never", "without a teacher"),
    *(
        (option, lambda r: r.environment.turns == 1, "with environment.turns=1")
        for option in ("context.hint_at", "policy_gradient.returns")
    ),
    *(
        (option, lambda r: not has_replies(r), "with environment.turns=1, in evaluations too")
        for option in ("context.history", "context.max_reply_tokens")
    ),
    ("rollout.max_model_len", lambda r: r.most_turns == 1, "with environment.turns=1, in evaluations too"),
    ("context.hint_at", lambda r: r.teacher is None, "without a teacher"),
    (
        "policy_gradient.discount",
        lambda r: r.policy_gradient.returns != "turn",
        "unless policy_gradient.returns=turn",
    ),
    ("context.max_reprompt_tokens", lambda r: r.teacher is None, "without a teacher"),
    ("context.remove_thinking", lambda r: r.teacher is None, "without a teacher"),
    ("context.remove_thinking", lambda r: r.context.demonstration == "none", "without demonstrations"),
    (
        "supervision.same_step",
        lambda r: r.supervision.same_step > r.run.max_restarts,
        "above run.max_restarts, which ends the run before",
    ),
    ("rollout.adapter", lambda r: r.model.adapter is None, "without model.adapter"),
    (
        "discovery.questions_at_once",
        lambda r: not r.loads_adapter,
        "unless engines load an adapter of each question (model.adapter, rollout.adapter=loaded)",
    ),
    ("rollout.weight_bucket_mb", lambda r: r.loads_adapter, "with rollout.adapter=loaded"),
    *(
        (f"probe.{option}", lambda r: not r.probe.every, "without probes (probe.every=0)")
        for option in ("tasks", "samples")
    ),
    *(
        (f"guard.{option}", lambda r: r.guard.action != "rollback", "unless guard.action=rollback")
        for option in ("rollbacks", "teacher")
    ),
    ("rollout.colocated", lambda r: r.profile == "cpu", "with profile=cpu (they share the cores anyway)"),
    ("learner.offload_states", lambda r: not r.rollout.colocated, "without rollout.colocated"),
    ("rollout.gpu_memory_utilization", lambda r: r.profile == "cpu", "with profile=cpu"),
    ("rollout.cpu_threads", lambda r: r.profile != "cpu", "unless profile=cpu"),
    ("learner.triton", lambda r: r.profile == "cpu", "with profile=cpu (kernels need a GPU)"),
    ("learner.cpu_threads", lambda r: r.profile != "cpu", "unless profile=cpu"),
)
