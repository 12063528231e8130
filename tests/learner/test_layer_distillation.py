"""Hidden states of layers against a teacher's: loss and gradients against float64, projections in checkpoints."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.multiprocessing as mp
from safetensors import safe_open
from transformers import AutoModelForCausalLM

from sdpo.checkpoints.manifest import Damaged
from sdpo.config.model_files import check_layers
from sdpo.errors import UserError
from sdpo.learner.layers import LayerProjections
from sdpo.learner.scorer import Scorer
from tests.learner.test_checkpointing import everything, same, tensor_bytes
from tests.learner.test_own_teacher import distance, scored, teach
from tests.learner.test_ranks import free_port
from tests.learner.tiny import dealt, make_model, named_weights, recipe, samples

OWN = ("teacher.placement=own", "probe.every=0", "learner.lr=1e-3")
FROZEN = (*OWN, "teacher.kind=frozen", "teacher.rate=null", "teacher.clock=null")
PAIRS = ((1, 1), (2, 3))
LAYERS = "distillation.layers={pairs: [[1, 1], [2, 3]], coefficient: 0.3, projections_lr: 3e-3}"
PLAIN = ("distillation.alpha=0",)
ADAPTER = ("model.adapter={rank: 4}",)


@pytest.fixture(scope="module")
def bigger(tmp_path_factory):
    """Wider and deeper than the student."""
    folder = tmp_path_factory.mktemp("bigger")
    return make_model(folder, tied=False, hidden_size=48, num_hidden_layers=3, intermediate_size=96)


def settings_of(model: Path, teacher: Path, *more: str, layers: str = LAYERS):
    return recipe(model, "sdpo", *FROZEN, f"teacher.model={teacher}", *PLAIN, layers, *more)


def gradients(worker, micro_batches) -> tuple[float, dict[str, torch.Tensor], list[dict[str, torch.Tensor]]]:
    """Loss, gradients of student and projections, and the outputs of each micro-batch."""
    total, outputs = 0.0, []
    for rows in micro_batches:
        loss, found = worker.passes.loss(rows)
        worker.engine.backward(loss)
        total += loss.item()
        outputs.append(found)
    found = {name: p.grad.clone() for name, p in worker.student.optimised()}
    worker.student.zero_grad(set_to_none=True)
    return total, found, outputs


def states_and_logits(model, prompt, response, layers):
    """[R, H] of what the layers hand on, and logits [R, V], all of the positions that predict the response."""
    kept: dict[int, torch.Tensor] = {}

    def keep(number):
        return lambda _m, _a, out: kept.update({number: out[0] if isinstance(out, tuple) else out})

    hooks = [model.model.layers[number - 1].register_forward_hook(keep(number)) for number in layers]
    logits = model(input_ids=torch.tensor([[*prompt, *response]])).logits
    for hook in hooks:
        hook.remove()
    place = slice(len(prompt) - 1, len(prompt) + len(response) - 1)
    states = [kept[number].reshape(1, -1, kept[number].shape[-1])[0, place] for number in layers]
    return states, logits[0, place]


def reference(student, teacher, matrices, batch, pairs, coefficient: float, threshold: float) -> torch.Tensor:
    """KL(q‖π) + coefficient · squared error, mean over taught tokens, each times its truncated sampler weight."""
    terms = []
    for sample in (each for each in batch if each.teacher is not None):
        own, logits = states_and_logits(student, sample.prompt_ids, sample.response_ids, [s for s, _ in pairs])
        with torch.no_grad():
            given = sample.teacher.prompt_ids, sample.response_ids
            theirs, their_logits = states_and_logits(teacher, *given, [t for _, t in pairs])
        p, q = logits.log_softmax(-1), their_logits.log_softmax(-1)
        chosen = p.detach()[torch.arange(len(p)), torch.tensor(sample.response_ids)]
        weight = (chosen - torch.from_numpy(sample.sampler_log_probs).double()).exp().clamp(max=threshold)
        errors = [
            (h @ matrix.T - g).square().sum(-1) / g.shape[-1]
            for h, g, matrix in zip(own, theirs, matrices, strict=True)
        ]
        terms.append(weight * ((q.exp() * (q - p)).sum(-1) + coefficient * sum(errors) / len(errors)))
    return torch.cat(terms).mean()


CASES = {
    "plain": (),
    "recomputed": ("learner.gradient_checkpointing=true",),
    "unpacked": ("learner.packing=off", "learner.micro_batch_tokens=null"),
    "one chunk per token": ("learner.chunk_tokens=1",),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("sizes", ["wider", "equal"])
def test_loss_and_gradients_are_those_of_the_formula_in_float64(model, bigger, start, double, case, sizes):
    """Also those of the projections, away from where they begin."""
    folder, pairs = (bigger, PAIRS) if sizes == "wider" else (model, ((1, 2), (2, 1)))
    written = f"distillation.layers={{pairs: {[list(pair) for pair in pairs]}, coefficient: 0.3}}"
    settings = settings_of(model, folder, *CASES[case], layers=written)
    worker, scorer, batch = start(settings), Scorer(settings.of_teacher()), samples(9)
    teach(scorer, worker)
    random = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for matrix in worker.student.projections.parameters():
            matrix += 0.1 * torch.randn(matrix.shape, generator=random)
    [micro_batches] = dealt(settings, batch, tokens=min(60, settings.learner.pass_tokens))
    assert len(micro_batches) > 1
    loss, found, outputs = gradients(worker, scored(scorer, micro_batches, False))

    theirs = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float64)
    double.zero_grad(set_to_none=True)
    matrices = [p.detach().double().requires_grad_() for p in worker.student.projections.parameters()]
    wanted = reference(double, theirs, matrices, batch, pairs, 0.3, 2.0)
    wanted.backward()
    assert loss == pytest.approx(wanted.item(), rel=1e-5)
    names = [name for name, _ in worker.student.optimised() if name.startswith("projections.")]
    expected = {f"model.{name}": p.grad for name, p in double.named_parameters()}
    double.zero_grad(set_to_none=True)
    assert distance(found, expected) < 1e-5
    for name, matrix in zip(names, matrices, strict=True):
        assert distance(found, {name: matrix.grad}) < 1e-5
    assert all("layers_weight" not in each for each in outputs)


def test_it_is_a_part_of_the_loss_and_has_a_metric_of_its_own(model, bigger, start):
    """Without the section nothing is sent and nothing computed: the divergence stays what it is."""
    on = settings_of(model, bigger)
    off = on.model_copy(update={"distillation": on.distillation.model_copy(update={"layers": None})})
    found = []
    for settings in (on, off):
        worker, scorer = start(settings), Scorer(settings.of_teacher())
        teach(scorer, worker)
        [micro_batches] = dealt(settings, samples(9), tokens=120)
        rows = scored(scorer, micro_batches, False)
        sums, _, _ = worker.update(rows)
        found.append((sums.means(), [row for each in rows for row in each]))
    (with_layers, rows), (without, plain) = found
    assert with_layers["distillation/loss"] == pytest.approx(without["distillation/loss"], rel=1e-6)
    assert with_layers["distillation/layers_loss"] > 0 and "distillation/layers_loss" not in without
    assert with_layers["learner/loss"] > without["learner/loss"]
    for row, other in zip(rows, plain, strict=True):
        if row.told is not None:
            assert row.told.shape == (len(row.response_ids), 3 * 48)
            assert np.array_equal(row.told[:, :48], other.told)


def test_equal_widths_begin_with_the_states_themselves_and_others_with_a_draw():
    wider = [LayerProjections(PAIRS, 1.0, 32, 48, torch.float32, seed) for seed in (0, 0, 1)]
    first, again, other = ([p.detach() for p in each.parameters()] for each in wider)
    assert [tuple(p.shape) for p in first] == [(48, 32)] * 2
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True)) and not torch.equal(first[0], first[1])
    assert not torch.equal(first[0], other[0])
    assert first[0].square().sum(0).mean() == pytest.approx(48 / 32, rel=0.1)
    equal = LayerProjections(PAIRS, 1.0, 32, 32, torch.float32, 0)
    assert all(torch.equal(p, torch.eye(32)) for p in equal.parameters())


@pytest.mark.parametrize("more", [(), ADAPTER], ids=["whole", "adapter"])
def test_the_loss_falls(model, bigger, start, more):
    settings = settings_of(model, bigger, *more, "learner.clip_grad_norm=100")
    worker, scorer = start(settings), Scorer(settings.of_teacher())
    teach(scorer, worker)
    rows = scored(scorer, dealt(settings, samples(9))[0], False)
    before = [p.detach().clone() for p in worker.student.projections.parameters()]
    losses = [worker.update(rows)[0].means()["distillation/layers_loss"] for _ in range(12)]
    assert losses == sorted(losses, reverse=True) and losses[-1] < 0.9 * losses[0]
    after = worker.student.projections.parameters()
    assert all(not torch.equal(a, b) for a, b in zip(before, after, strict=True))
    rates = [group["lr"] for group in worker.engine.optimizer.param_groups]
    assert rates == [settings.learner.lr, settings.distillation.layers.projections_lr]


def test_where_nobody_is_taught_the_gradients_are_there_and_zero(model, bigger, start):
    settings = settings_of(model, bigger)
    worker, scorer = start(settings), Scorer(settings.of_teacher())
    teach(scorer, worker)
    untaught = [replace(each, teacher=None) for each in samples(4)]
    _, found, outputs = gradients(worker, dealt(settings, untaught)[0])
    own = {name: gradient for name, gradient in found.items() if name.startswith("projections.")}
    assert len(own) == 2 and not any(gradient.any() for gradient in own.values())
    assert not any(each["layers_loss"].any() for each in outputs)


def test_a_moving_average_of_the_student_knows_no_projections(model, start):
    """What follows the student, and is sent, is the policy."""
    layers = "distillation.layers={pairs: [[1, 2]], coefficient: 1}"
    settings = recipe(model, "sdpo", *OWN, "teacher.rate=0.3", layers)
    worker, scorer = start(settings), Scorer(settings)
    teach(scorer, worker)
    rows = scored(scorer, dealt(settings, samples(8))[0], False)
    worker.update(rows)
    assert worker.finish_batch()
    teach(scorer, worker)
    assert scorer.moving.keys() == worker.teacher.average.average.keys()
    assert not any("projections" in name for name in scorer.moving)


STAGES = [(0, ()), (2, ()), (3, ()), (2, ("model.dtype=bfloat16",)), (0, ADAPTER)]


@pytest.mark.parametrize(("stage", "more"), STAGES, ids=[f"zero{s} {' '.join(o)}".strip() for s, o in STAGES])
def test_a_checkpoint_goes_on_bit_for_bit(model, bigger, start, tmp_path, stage, more):
    settings = settings_of(model, bigger, f"learner.zero_stage={stage}", *more)
    scorer = Scorer(settings.of_teacher())  # before ZeRO-3 begins to shard what this process loads
    worker = start(settings)
    teach(scorer, worker)
    rows = scored(scorer, dealt(settings, samples(9), tokens=120)[0], False)
    for _ in range(2):
        worker.update(rows)
    records = worker.checkpointing.save(str(tmp_path / "a"))
    exported = worker.checkpointing.export(str(tmp_path / "a" / "policy"))
    assert tensor_bytes(tmp_path / "a" / name for name in records | exported) == worker.checkpointing.size()
    for file in (tmp_path / "a" / "policy").glob("*.safetensors"):
        with safe_open(file, framework="pt") as opened:
            assert not [name for name in opened.keys() if "projections" in name]  # noqa: SIM118 — no dictionary
    resumed = start(settings)
    resumed.load(str(tmp_path / "a"))
    teach(scorer, resumed)
    held = everything(resumed)
    assert {f"{kind} projections.matrices.{own}_{theirs}.weight 0"
            for kind in ("weight", "exp_avg", "exp_avg_sq") for own, theirs in PAIRS} <= held.keys()  # fmt: skip
    same(everything(worker), held)
    for _ in range(2):
        (sums, values, _), (again, same_values, _) = (each.update(rows) for each in (worker, resumed))
        assert sums.means() == again.means() and values == same_values
    same(everything(worker), everything(resumed))


def test_a_checkpoint_of_other_layers_is_refused(model, bigger, start, tmp_path):
    start(settings_of(model, bigger)).checkpointing.save(str(tmp_path))
    others = {
        "has no weight of projections.matrices.1_2": "{pairs: [[1, 2], [2, 3]], coefficient: 0.3}",
        "has a weight of projections.matrices.1_1": "null",
    }
    for said, layers in others.items():
        worker = start(settings_of(model, bigger, layers=f"distillation.layers={layers}"))
        with pytest.raises(Damaged, match=said):
            worker.load(str(tmp_path))
    worker = start(settings_of(model, model, layers="distillation.layers={pairs: [[1, 1], [2, 3]], coefficient: 0.3}"))
    with pytest.raises(Damaged, match=r"weight of projections.* is \[48, 32\].*here it is \[32, 32\]"):
        worker.load(str(tmp_path))


def train(settings, rank: int, address, out: Path) -> None:
    from sdpo.algorithms import build_algorithm
    from sdpo.learner.worker import LearnerWorker

    scorer = Scorer(settings.of_teacher())  # before ZeRO-3 begins to shard what this process loads
    worker = LearnerWorker(settings, build_algorithm(settings).plan, rank)
    worker.start(address)
    teach(scorer, worker)
    dealt_out = dealt(settings, samples(13), settings.learner.ranks, tokens=30)[rank]
    rows, found = scored(scorer, dealt_out, False), []
    for _ in range(3):
        sums, values, _ = worker.update(rows)
        total, count = sums.totals["distillation/layers_loss"]
        found.append((sums.plain["learner/loss"], values["learner/grad_norm"], total, count))
    # `everything` of ZeRO-3 is a share; what is compared in full is the checkpoint
    worker.checkpointing.save(str(out))
    untaught = [all(row.teacher_prompt_ids is None for row in each) for each in rows]
    np.savez(out / f"rank{rank}.npz", found=np.array(found), untaught=np.array(untaught), **{
        name: weight.numpy() for name, weight in named_weights(worker).items()
    })  # fmt: skip
    worker._zero3_loading = None


RANKS = ((1, 0), (2, 0), (2, 2), (2, 3))  # ranks, stage


def process(rank: int, ranks: int, port: int, model: Path, bigger: Path, out: Path) -> None:
    os.environ.update(DS_ACCELERATOR="cpu", OMP_NUM_THREADS="1")
    for stage in (stage for count, stage in RANKS if count == ranks):
        folder = out / f"{ranks}-{stage}"
        folder.mkdir(exist_ok=True)
        settings = settings_of(model, bigger, f"learner.ranks={ranks}", f"learner.zero_stage={stage}")
        train(settings, rank, ("127.0.0.1", port), folder)


@pytest.mark.timeout(400)
def test_two_ranks_learn_what_one_learns(model, bigger, tmp_path):
    """Some micro-batches have nothing that is taught, on one rank and not on the other."""
    from sdpo.checkpoints.slices import SliceReader

    for ranks in (1, 2):
        mp.spawn(process, (ranks, free_port(), model, bigger, tmp_path), nprocs=ranks)
    found = {}
    for ranks, stage in RANKS:
        folder = tmp_path / f"{ranks}-{stage}"
        parts = [dict(np.load(folder / f"rank{rank}.npz")) for rank in range(ranks)]
        reader = SliceReader(folder)
        weights = {name: reader.full("weight", name).numpy() for name in reader.tensors("weight")}
        numbers = np.stack([part["found"] for part in parts])
        assert ranks == 1 or (parts[0]["untaught"] != parts[1]["untaught"]).any()
        found[ranks, stage] = numbers.sum(0) / [1, ranks, 1, 1], weights  # the norm is that of all
    whole, weights = found[1, 0]
    assert whole[0, 0] != whole[-1, 0] and {n for n in weights if n.startswith("projections.")}
    for layout in RANKS[1:]:
        numbers, theirs = found[layout]
        np.testing.assert_allclose(numbers[0], whole[0], rtol=1e-5, err_msg=str(layout))
        np.testing.assert_allclose(numbers, whole, rtol=1e-4, err_msg=str(layout))
        assert theirs.keys() == weights.keys()
        for name, weight in weights.items():
            np.testing.assert_allclose(theirs[name], weight, atol=5e-5, err_msg=f"{layout} {name}")


# ------------------------------------------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("pairs", "said"),
    [
        ("[[3, 1]]", "names layer 3 of the student, and .* has 2 layers"),
        ("[[1, 4], [2, 2]]", "names layer 4 of the teacher, and .* has 3 layers"),
    ],
)
def test_layers_that_there_are_not_are_refused(model, bigger, pairs, said):
    settings = settings_of(model, bigger, layers=f"distillation.layers={{pairs: {pairs}, coefficient: 1}}")
    with pytest.raises(UserError, match=f"{said}; give .*counted from 1"):
        check_layers(settings)


def test_layers_that_there_are_are_not_refused(model, bigger):
    check_layers(settings_of(model, bigger))
    check_layers(recipe(model, "sdpo"))


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ((), "distillation.layers .* set teacher.placement=own"),
        ((*OWN, "teacher.kind=trust_region", "teacher.rate=0.3", "teacher.clock=null"), "set teacher.kind=frozen"),
        ((*OWN, "distillation.blend={}"), "distillation.blend mixes .* remove it"),
    ],
)
def test_who_has_no_hidden_states_to_compare_is_refused(model, more, said):
    with pytest.raises(UserError, match=said):
        recipe(model, "sdpo", *more, LAYERS)


@pytest.mark.parametrize(
    ("layers", "said"),
    [
        ("{pairs: [[0, 1]], coefficient: 1}", "greater than or equal to 1"),
        ("{pairs: [], coefficient: 1}", "at least 1 item"),
        ("{pairs: [[1, 1], [1, 1]], coefficient: 1}", "names the same two layers twice"),
        ("{pairs: [[1, 1]]}", "coefficient"),
    ],
)
def test_a_section_that_says_nothing_sensible_is_refused(model, layers, said):
    with pytest.raises(UserError, match=said):
        recipe(model, "sdpo", *OWN, f"distillation.layers={layers}")
