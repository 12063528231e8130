"""How SRPO, OPSD, SDFT, SFT and an algorithm from outside route responses, and what their recipes refuse."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from sdpo.algorithms import build_algorithm
from sdpo.algorithms.base import LossPlan
from sdpo.algorithms.srpo import CertainTeacher
from sdpo.cli.plan import make_plan
from sdpo.config.files import dump, find_recipe, load_recipe, load_resolved
from sdpo.config.model_files import load_tokenizer
from sdpo.config.paths import PROJECT
from sdpo.config.streams import DistillationSettings, PolicyGradientSettings, Ramp
from sdpo.envs import build_environment
from sdpo.errors import UserError
from sdpo.learner.rows import loss_weighted_rows
from sdpo.prompts.context import ContextBuilder
from sdpo.rollout.generation import Generation
from sdpo.tracking import rollout_rows
from sdpo.training.batch_metrics import batch_metrics
from sdpo.training.parts import load_checked
from sdpo.types import Sample, ScoredTokens, TeacherContext
from tests.helpers.prompts import builder
from tests.helpers.tasks import UNGRADED, group, problem, with_outcome

RELATIVES = ("srpo", "opsd", "sdft", "sft", "sc-sdpo", "rlsd", "cepo", "rlcsd", "sdpg", "sdar", "rft",
             "demopsd", "prefix", "sd-zero", "drift")  # fmt: skip
EXAMPLE = PROJECT / "docs" / "examples" / "agreement.yaml"


def load(algorithm: str, *overrides: str, profile: str = "cpu"):
    return load_recipe(find_recipe("livecodebench", algorithm), profile, overrides)


def assign(recipe, contexts, *groups):
    return build_algorithm(recipe).assign(list(groups), contexts, np.random.default_rng(0))


# ------------------------------------------------------------------------------------------------------ algorithms


def test_srpo_routes_by_correct_and_taught(tokenizer):
    g = with_outcome(group([True, True, False, False]), 3, UNGRADED)
    alone = group([False, False])
    contexts = builder(tokenizer, feedback="never")
    first, second = assign(load("srpo"), contexts, g, alone)
    assert [(s.advantages is not None, s.teacher is not None) for s in first] == [
        (True, False), (True, False), (False, True), (False, False),
    ]  # fmt: skip
    assert first[0].advantages[0] == pytest.approx(1 / 3)  # of the whole group that was graded
    assert [(s.advantages is not None, s.teacher is not None) for s in second] == [(True, False)] * 2


def scored(entropies: list[float], weight: list[float] | None) -> ScoredTokens:
    values = np.array(entropies, np.float32)
    taught = weight is not None
    return ScoredTokens(
        weight=np.array(weight, np.float32) if taught else None,
        advantages=None,
        entropy=values,
        teacher_entropy=values if taught else None,
        log_ratio=values if taught else None,
    )


def test_srpos_weights_have_mean_one_over_the_tokens_that_carry_loss():
    batch = [scored([0.0, 1.0], [0.5, 0.5]), scored([9.0], None), scored([5.0, 2.0], [0.0, 0.5])]
    first, none, last = CertainTeacher(2.0)(batch)
    assert none is None
    used = np.array([*first, last[1]])
    assert used.mean() == pytest.approx(1.0)
    assert used / used[0] == pytest.approx(np.exp([0.0, -2.0, -4.0]))
    assert CertainTeacher(0.0)(batch)[0] == pytest.approx([1.0, 1.0])
    assert CertainTeacher(1.0)([scored([1.0], None)]) == [None]


@pytest.mark.parametrize("algorithm", ["opsd", "sdft"])
def test_every_response_is_taught_the_solution_with_or_without_judgement(tokenizer, algorithm):
    recipe = load(algorithm)
    g = group([True, False], task=problem(solution="print(3)"))
    g = with_outcome(with_outcome(g, 0, None), 1, None)
    contexts = ContextBuilder(tokenizer, recipe.context.model_copy(update={"max_reprompt_tokens": 2048}))
    [samples] = assign(recipe, contexts, g)
    assert all("print(3)" in tokenizer.decode(s.teacher.prompt_ids) for s in samples)
    assert all(s.advantages is None for s in samples) and not build_algorithm(recipe).needs_rewards
    skipped = recipe.distillation.skip_tokens
    assert skipped == {"opsd": 0, "sdft": 3}[algorithm]
    assert samples[0].teacher.weight.tolist() == [0.0 if t < skipped else 1.0 for t in range(2)]
    assert build_algorithm(load(algorithm, "context.feedback=always")).needs_rewards


@pytest.mark.asyncio
async def test_sft_takes_the_demonstration_as_response_and_grades_nothing():
    recipe = load("sft", "seed=3")
    bundled, environment = load_tokenizer(recipe), build_environment(recipe)
    task = environment.load().train[0]
    contexts = ContextBuilder(bundled, recipe.context)
    generation = Generation(recipe, environment, contexts, bundled, pool=None)
    g = await (await generation.training_group(task, seed=[0])).graded()
    [rollout] = g.rollouts
    turn = rollout.last
    assert turn.text == f"```python\n{task.content.solution}\n```" and rollout.outcome is None
    assert bundled.decode(turn.response_ids, skip_special_tokens=True) == turn.text
    assert turn.response_ids[-1] == bundled.eos_token_id and not turn.truncated
    [[sample]] = assign(recipe, contexts, g)
    assert sample.advantages.tolist() == [1.0] * len(turn.response_ids) and sample.teacher is None
    metrics = batch_metrics([g], [[sample]], version=1)
    assert "train/pass_rate" not in metrics and "response/staleness_mean" not in metrics
    [row] = rollout_rows([g], [[sample]], bundled.decode)
    assert row["response"] == turn.text and "passed" not in row
    short = Generation(load("sft", "rollout.max_response_tokens=5"), environment, contexts, bundled, pool=None)
    assert short._demonstrated(task).truncated


# --------------------------------------------------------------------------------------------------- general parts


def sample(length: int, weight=None, advantages=None) -> Sample:
    teacher = None if weight is None else TeacherContext((1,), np.array(weight, np.float32))
    return Sample((1,), tuple(range(length)), np.zeros(length, np.float32), advantages, teacher)


def test_skipped_tokens_count_in_no_mean():
    rows = loss_weighted_rows(
        [sample(4, [0, 0, 0, 1]), sample(5, [0, 0, 0, 1, 1])], LossPlan(distillation=DistillationSettings()), 9
    )
    assert rows[0].distillation_weight == pytest.approx([0, 0, 0, 1 / 3])
    assert rows[1].distillation_weight == pytest.approx([0, 0, 0, 1 / 3, 1 / 3])
    plan = LossPlan(PolicyGradientSettings(), DistillationSettings(), shared_normalizer=True)
    rows = loss_weighted_rows([sample(4, [0, 0, 0, 1]), sample(3, advantages=np.ones(3, np.float32))], plan, 9)
    assert rows[0].distillation_weight[3] == rows[1].policy_gradient_weight[0] == pytest.approx(1 / 4)


def test_a_ramp_moves_a_coefficient_from_batch_to_batch():
    ramp = Ramp(start=1, end=0, steps=4)
    assert [ramp.at(step) for step in (1, 2, 3, 4, 5, 9)] == [1.0, 0.75, 0.5, 0.25, 0.0, 0.0]
    plan = LossPlan(distillation=DistillationSettings(coefficient=2.0, ramp=ramp))
    rows = [loss_weighted_rows([sample(2, [1, 1])], plan.at(step), 9)[0] for step in (1, 3, 7)]
    assert [row.distillation_weight.sum() for row in rows] == pytest.approx([2.0, 1.0, 0.0])
    assert plan.at(1).policy_gradient is None


SEQUENCE = "environment.kind=studies.sequence:MinicodeSequence"


def test_families_in_sequence():
    recipe = load("sdft", SEQUENCE, "environment.families=[minicode,minicode-texts]", "run.steps=10")
    dataset = build_environment(recipe).load()
    lists, texts = dataset.parts["lists"], dataset.parts["texts"]
    assert [dataset.training(step / 10) is lists.train for step in (0, 4, 5, 9)] == [True, True, False, False]
    assert dataset.training(0.5) is texts.train and len(dataset.train) == 64 + 27
    assert {name: len(p) for name, p in dataset.evaluation_sets(True).items()} == {
        "lists_held_out": 32, "lists_train": 64, "texts_held_out": 12, "texts_train": 27,
    }  # fmt: skip
    recipe = load("sdft", SEQUENCE, "environment.families=[minicode,minicode-texts]", "environment.known_problems=6")
    known = build_environment(recipe).load().evaluation_sets(False)["known_words"]
    assert len({task.id for task in known} - {task.id for task in dataset.train + dataset.evaluation}) == 12
    alone = build_environment(load("sdft")).load()
    assert [t.id for t in alone.train] == [t.id for t in lists.train]
    assert list(alone.evaluation_sets(True)) == ["held_out", "train"]
    assert list(alone.evaluation_sets(False)) == ["held_out"]


# --------------------------------------------------------------------------------------------------------- recipes


@pytest.mark.parametrize("algorithm", [*RELATIVES, "ssd"])
@pytest.mark.parametrize("profile", ["cpu", "gpu"])
def test_the_resolved_recipe_reads_back_as_itself(algorithm, profile, tmp_path):
    recipe = load(algorithm, profile=profile)
    (tmp_path / "recipe.yaml").write_text(dump(recipe))
    assert load_resolved(tmp_path / "recipe.yaml") == recipe


def test_all_algorithms_have_the_same_budget_on_the_cpu():
    recipes = [load(algorithm) for algorithm in ("sdpo", "grpo", *RELATIVES)]
    assert len({(r.samples_per_step, r.run.steps, r.model.path) for r in recipes}) == 1
    assert all(r.evaluation == recipes[0].evaluation and r.data == recipes[0].data for r in recipes)
    once = load("ssd")  # all in one batch
    assert once.samples_per_step == recipes[0].samples_per_step * recipes[0].run.steps
    assert once.learner.updates_per_batch == recipes[0].run.steps


def test_the_published_settings():
    srpo, opsd, sdft = (load(a, profile="gpu") for a in ("srpo", "opsd", "sdft"))
    assert (srpo.algorithm.entropy_beta, srpo.learner.lr) == (1.0, 5e-6)  # 2604.02288
    assert (opsd.distillation.alpha, opsd.distillation.entry_clip, opsd.teacher.kind) == (0.0, 0.05, "frozen")
    assert (opsd.model.thinking, opsd.context.teacher_thinking) == (False, True)  # 2601.18734
    assert (opsd.rollout.responses, opsd.rollout.max_response_tokens, opsd.run.questions) == (1, 1024, 32)
    assert (sdft.distillation.alpha, sdft.distillation.top_k, sdft.distillation.skip_tokens) == (0.0, None, 3)
    assert (sdft.teacher.kind, sdft.rollout.responses) == ("ema", 1)  # 2601.19897
    assert 0.01 <= sdft.teacher.rate <= 0.05


@pytest.mark.parametrize(
    ("algorithm", "overrides", "says"),
    [
        ("srpo", ["algorithm.name=srop"], "algorithm.name=srop is unknown. Did you mean srpo?"),
        ("sdpo", ["algorithm.entropy_beta=1"], "unknown option algorithm.entropy_beta"),
        ("srpo", ["policy_gradient.aggregation=seq-mean-token-sum"], "both streams under one normaliser"),
        ("opsd", ["teacher.kind=live"], "set teacher.kind=frozen"),
        ("opsd", ["context.demonstration=random"], "set context.demonstration to solution or column"),
        ("opsd", ["distillation.advantage_clip=5", "distillation.alpha=1"], "exclude each other"),
        ("opsd", ["distillation.support=teacher"], "distillation.support has no effect on the full vocabulary"),
        ("opsd", ["distillation.level=token", "distillation.alpha=1"], "distillation.entry_clip has no effect"),
        ("sdft", ["context.demonstration=none"], "set context.demonstration to solution or column"),
        ("srpo", ["context.feedback_noise=0.5"], "context.feedback_noise is now algorithm.noise"),
        ("sft", ["policy_gradient.normalize_by_std=true"], "policy_gradient.normalize_by_std has no effect"),
        ("sft", ["rollout.source=policy"], "set rollout.source=solution or column"),
        ("sft", ["rollout.responses=2"], "set rollout.responses=1"),
        ("sft", ["rollout.source=column"], "set context.column"),
        ("sft", ["policy_gradient.variant=ppo"], "policy_gradient.variant=reinforce"),
        ("sft", ["policy_gradient.clip_low=0.1"], "policy_gradient.clip_low has no effect"),
        ("grpo", ["policy_gradient.ramp={steps: 3}"], "a ramp from 1 to 1 has no effect"),
        ("sft", [SEQUENCE, "environment.families=[minicode,minicode]"], "names each skill once"),
    ],
)
def test_mistakes_are_named(algorithm, overrides, says):
    with pytest.raises(UserError) as error:
        build_algorithm(load(algorithm, *overrides))
    assert says in str(error.value)


# ------------------------------------------------------------------------------------- an algorithm of one's own


@pytest.fixture
def example(monkeypatch):
    monkeypatch.syspath_prepend(str(EXAMPLE.parent))
    return load_recipe(EXAMPLE, "cpu")


def test_the_example_is_short():
    assert len((EXAMPLE.parent / "agreement.py").read_text().splitlines()) < 50


def test_an_algorithm_from_outside_the_package(example, tokenizer):
    assert example.name == "livecodebench-agreement-seed0"
    [samples] = assign(example, builder(tokenizer), group([True, False, False]))
    assert all(s.advantages is not None for s in samples)
    assert [s.teacher is not None for s in samples] == [False, True, True]
    hook, ratio = build_algorithm(example).plan.weight_hook, np.array([1.0, -1.0], np.float32)
    seen = [replace(scored([0, 0], [1, 1]), log_ratio=ratio, advantages=np.full(2, a, np.float32)) for a in (2, -2, 0)]
    assert [factor.tolist() for factor in hook(seen)] == [[1, 0.1], [0.1, 1], [0.1, 0.1]]  # doubt: 0.1
    assert hook([replace(seen[0], log_ratio=ratio / 25)])[0].tolist() == [0.1, 0.1]  # margin: 0.05
    assert hook([scored([0, 0], None)]) == [None]


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("algorithm.margn=1", "unknown option algorithm.margn. Did you mean algorithm.margin?"),
        ("algorithm.dout=0.5", "unknown option algorithm.dout. Did you mean algorithm.doubt?"),
        ("algorithm.margin=-1", "algorithm.margin: Input should be greater than or equal to 0"),
        ("algorithm.doubt=1", "algorithm.doubt: Input should be less than 1"),
        ("algorithm.mix=0.5", "unknown option algorithm.mix"),  # another algorithm's
    ],
)
def test_its_options_are_validated_with_the_recipe(example, override, says):
    with pytest.raises(UserError) as error:
        load_recipe(EXAMPLE, "cpu", [override])
    assert says in str(error.value)


def test_its_options_are_resolved_and_read_back(example, tmp_path):
    recipe = load_recipe(EXAMPLE, "cpu", ["algorithm.margin=0.2", "algorithm.doubt=null"])
    assert (recipe.algorithm.margin, recipe.algorithm.doubt) == (0.2, 0.0)  # null: the default counts again
    (tmp_path / "recipe.yaml").write_text(dump(recipe))
    assert load_resolved(tmp_path / "recipe.yaml") == recipe


def test_an_algorithm_that_is_not_there(example):
    missing = example.model_copy(update={"algorithm": example.algorithm.model_copy(update={"name": "nowhere:Nothing"})})
    for plans in (build_algorithm, make_plan):
        with pytest.raises(UserError, match="nowhere:Nothing cannot be imported"):
            plans(missing)
    assert load_checked(missing, build_environment(missing))[1].train, "an evaluation needs tasks and no algorithm"


def test_a_distillation_without_a_teacher_is_refused(example, tmp_path, monkeypatch):
    (tmp_path / "untaught.py").write_text(
        "from agreement import Agreement\n"
        "class Untaught(Agreement):\n"
        "    @classmethod\n"
        "    def sections(cls, settings):\n"
        "        return 'distillation', 'policy_gradient'\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    changes = {"teacher:\n  kind: ema\n": "", "agreement:Agreement": "untaught:Untaught"}
    text = EXAMPLE.read_text().replace("../../recipes", str(PROJECT / "recipes"))
    for old, new in changes.items():
        text = text.replace(old, new)
    (tmp_path / "mine.yaml").write_text(text)
    with pytest.raises(UserError, match="distillation needs a teacher"):
        load_recipe(tmp_path / "mine.yaml", "cpu")
