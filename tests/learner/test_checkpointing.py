"""What the learner saves, every ZeRO stage reads, and goes on as if nothing had happened."""

from __future__ import annotations

import builtins
import gc
import pickle
import shutil
import socket
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.multiprocessing as mp
from safetensors.torch import load_file

from sdpo.checkpoints.manifest import Damaged, measure
from studies.faults.compare import different_tensors
from tests.learner.tiny import dealt, recipe, samples

OVERRIDES = (
    "algorithm.mix=0.5", "teacher.rate=0.3", "learner.lr=1e-3", "learner.schedule=cosine", "learner.warmup_steps=2",
    "distillation.alpha=1", "distillation.advantage_clip_factor=1", "run.steps=8",
)  # fmt: skip
BF16 = ("model.dtype=bfloat16",)


def layout(model: Path, stage: int, ranks: int = 1, *overrides: str):
    return recipe(model, "sdpo", *OVERRIDES, f"learner.zero_stage={stage}", f"learner.ranks={ranks}", *overrides)


def update(worker, batch: int = 0) -> tuple[float, dict[str, float]]:
    """One update of this rank's share of always the same batch: loss and step-wide numbers."""
    settings = worker.recipe
    own = dealt(settings, samples(9, batch), settings.learner.ranks, tokens=120)[worker.rank]
    sums, values, _ = worker.update(own)
    worker.finish_batch()
    return sums.plain["learner/loss"], values


def everything(worker) -> dict[str, torch.Tensor]:
    """All that this rank writes down, and the weights that it computes with."""
    held = list(worker.checkpointing.weights.held())
    if worker.teacher is not None and worker.teacher.average is not None:
        held += worker.teacher.average.held(worker.rank)
    found = {f"{kind} {h.name} {h.offset}": view.clone() for h in held for kind, view in h.views.items()}
    stored = ((n, getattr(p, "ds_tensor", p).detach().clone()) for n, p in worker.student.named_parameters())
    return found | {f"stored {name}": tensor for name, tensor in stored}


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> None:
    assert a.keys() == b.keys()
    for name, tensor in a.items():
        assert torch.equal(tensor, b[name]), name


def saved_and_loaded(worker, start, settings, folder: Path):
    records = worker.checkpointing.save(str(folder))
    assert {name: measure(folder / name) for name in records} == records
    other = start(settings)
    other.checkpointing.load(str(folder))
    return other


ADAPTER = ("model.adapter={rank: 4}",)


@pytest.mark.parametrize("overrides", [(), ADAPTER, (*BF16, *ADAPTER)], ids=["fp32", "adapter", "bf16 adapter"])
def test_the_size_of_a_checkpoint_is_known_before(model, start, tmp_path, overrides):
    """The free space that is asked for is that of what is trained, not of an adapter's base."""
    worker = start(layout(model, 2, 1, *overrides))
    update(worker)
    records = worker.checkpointing.save(str(tmp_path)) | worker.checkpointing.export(str(tmp_path / "policy"))
    assert tensor_bytes(tmp_path / name for name in records) == worker.checkpointing.size()


def tensor_bytes(files) -> int:
    """In safetensors, without their headers."""
    return sum(x.nbytes for file in files if file.suffix == ".safetensors" for x in load_file(file).values())


LAYOUTS = [(0, ()), (1, ()), (2, ()), (3, ()), (2, BF16), (3, BF16)]
LAYOUTS += [(0, ADAPTER), (3, ADAPTER), (2, (*BF16, *ADAPTER)), (3, (*BF16, *ADAPTER))]


@pytest.mark.parametrize(("stage", "overrides"), LAYOUTS, ids=[f"zero{s} {' '.join(o)}".strip() for s, o in LAYOUTS])
def test_the_same_layout_goes_on_bit_for_bit(model, start, tmp_path, stage, overrides):
    settings = layout(model, stage, 1, *overrides)
    worker = start(settings)
    for _ in range(2):
        update(worker)
    resumed = saved_and_loaded(worker, start, settings, tmp_path)
    same(everything(worker), everything(resumed))
    for _ in range(2):
        assert update(worker) == update(resumed)
    same(everything(worker), everything(resumed))
    assert resumed.engine.global_steps == worker.engine.global_steps == 4


@pytest.mark.parametrize(("stage", "overrides"), [(0, ()), (2, BF16), (3, ())])
def test_a_copy_is_written_as_it_was_whatever_is_learned_meanwhile(model, start, tmp_path, stage, overrides):
    settings = layout(model, stage, 1, *overrides)
    worker = start(settings)
    update(worker)
    before, policy = everything(worker), worker.student.model.lm_head.weight.detach().clone()
    write = worker.checkpointing.copy(str(tmp_path), str(tmp_path / "policy"))
    assert not (tmp_path / "policy").exists()
    update(worker)
    with ThreadPoolExecutor(1) as thread:
        records = thread.submit(write).result()
    assert {name: measure(tmp_path / name) for name in records} == records
    assert {"state/learner.json", "policy/model.safetensors"} < records.keys()
    if stage != 3:  # sharded there
        stored = load_file(tmp_path / "policy" / "model.safetensors")
        assert torch.equal(
            next(stored[n] for n in ("lm_head.weight", "model.embed_tokens.weight") if n in stored), policy
        )
    worker = None
    gc.collect()
    resumed = start(settings)
    resumed.checkpointing.load(str(tmp_path))
    same(before, everything(resumed))


@pytest.mark.parametrize(("stage", "overrides"), LAYOUTS, ids=[f"zero{s} {' '.join(o)}".strip() for s, o in LAYOUTS])
def test_learners_that_take_turns_in_a_rank_learn_what_each_learns_alone(model, start, tmp_path, stage, overrides):
    """Two, each on a batch of its own; one has not moved yet when it is put aside for the first time."""
    worker = start(layout(model, stage, 1, *overrides))
    worker.checkpointing.save(str(tmp_path))
    alone = []
    for batch in (0, 1):
        worker.load(str(tmp_path))
        alone.append(([update(worker, batch) for _ in range(3)], everything(worker), worker.engine.global_steps))
    assert alone[0][0] != alone[1][0]
    worker.load(str(tmp_path))
    worker.put_aside(1)
    worker.load(str(tmp_path))
    found: tuple[list, list] = [], []
    for now, next_one in ((0, 1), (1, 0), (0, 0), (0, 1), (1, 1)):  # who learns, and who after that
        found[now].append(update(worker, now))
        if next_one != now:
            worker.put_aside(now)
            worker.take_up(next_one)
    for now in (1, 0):
        found[now].extend(update(worker, now) for _ in range(3 - len(found[now])))
        assert found[now] == alone[now][0] and worker.engine.global_steps == alone[now][2] == 3
        same(everything(worker), alone[now][1])
        if now:
            worker.take_up(0)


@pytest.mark.slow
def test_every_stage_goes_on_from_every_other(model, start, tmp_path):
    """One rank, a checkpoint after every update: 0 → 3 → 1 → 3 → 2 → 0, against one run."""
    whole, stages = start(layout(model, 0)), (0, 3, 1, 3, 2, 0)
    wanted = [update(whole)[0] for _ in stages]
    worker, found = start(layout(model, stages[0])), []
    for number, stage in enumerate(stages):
        if number:
            worker.checkpointing.save(str(tmp_path / str(number)))
            worker = None
            gc.collect()  # while a worker of ZeRO-3 lives, models are loaded in shards
            worker = start(layout(model, stage))
            worker.checkpointing.load(str(tmp_path / str(number)))
        found.append(update(worker)[0])
    np.testing.assert_allclose(found, wanted, rtol=1e-5)
    assert wanted[0] != wanted[-1]


def test_before_the_first_update_there_are_no_moments_and_none_are_needed(model, start, tmp_path):
    worker = start(layout(model, 0))
    resumed = saved_and_loaded(worker, start, layout(model, 2), tmp_path)
    assert resumed.checkpointing.weights.steps() == {}
    assert update(resumed)[0] == pytest.approx(update(worker)[0], rel=1e-5)
    resumed.checkpointing.load(str(tmp_path))  # and whatever there was is gone
    assert resumed.checkpointing.weights.steps() == {}


# --- what does not fit is refused ------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def checkpoint(model, tmp_path_factory):
    from sdpo.algorithms import build_algorithm
    from sdpo.learner.worker import LearnerWorker

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = free.getsockname()
    settings = layout(model, 0)
    worker = LearnerWorker(settings, build_algorithm(settings).plan, 0)
    worker.start(address)
    update(worker)
    folder = tmp_path_factory.mktemp("checkpoint")
    worker.checkpointing.save(str(folder))
    return worker, folder


def rewritten(source: Path, target: Path, change) -> Path:
    """A copy in which `change(kind, name, tensor)` gives (name, tensor), or None to leave it out."""
    from sdpo.checkpoints.slices import SliceReader, SliceWriter

    reader, writer = SliceReader(source), SliceWriter(target, 0)
    for kind in ("weight", "exp_avg", "exp_avg_sq", "average", "buffer"):
        for name in reader.tensors(kind):
            if (changed := change(kind, name, reader.full(kind, name))) is not None:
                writer.add(kind, changed[0], tuple(changed[1].shape), 0, changed[1])
    writer.close(reader.steps)
    shutil.copy(source / "state" / "learner.json", target / "state" / "learner.json")
    return target


LAST = "model.model.norm.weight"
REFUSED = {
    "one row of the teacher": (("average", "model.model.layers.0.mlp.up_proj.weight"), lambda n, t: (n, t[:1])),
    "another shape, as many elements": (("weight", "model.model.layers.0.mlp.up_proj.weight"), lambda n, t: (n, t.T)),
    "another dtype": (("weight", LAST), lambda n, t: (n, t.double())),
    "a missing weight": (("weight", LAST), lambda n, t: None),
    "a missing moment": (("exp_avg_sq", LAST), lambda n, t: None),
    "no teacher": (("average", None), lambda n, t: None),
    "another name": (("weight", LAST), lambda n, t: ("model.elsewhere", t)),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_is_not_exactly_this_model_is_refused_and_changes_nothing(checkpoint, tmp_path, kind):
    worker, folder = checkpoint
    (where, called), change = REFUSED[kind]
    before = everything(worker)

    def changed(of, name, tensor):
        return change(name, tensor) if of == where and called in (name, None) else (name, tensor)

    other = rewritten(folder, tmp_path, changed)
    with pytest.raises(Damaged, match=f"The checkpoint.*{where} of"):
        worker.checkpointing.load(str(other))
    same(before, everything(worker))


def test_nothing_in_a_checkpoint_is_unpickled(checkpoint, tmp_path, monkeypatch):
    worker, folder = checkpoint

    def refuse(*arguments, **keywords):
        raise AssertionError("something was unpickled")

    for module, name in ((torch, "load"), (pickle, "load"), (pickle, "loads"), (pickle, "Unpickler")):
        monkeypatch.setattr(module, name, refuse)
    worker.checkpointing.load(str(folder))
    opened, real = [], builtins.open
    monkeypatch.setattr(builtins, "open", lambda *a, **k: (opened.append(str(a[0])), real(*a, **k))[1])
    worker.checkpointing.save(str(tmp_path))
    assert {Path(name).suffix for name in opened if name.startswith(str(tmp_path))} == {".safetensors", ".json"}


# --- another number of ranks -----------------------------------------------------------------------------------------
PATHS = {  # what is run one after the other, each going on from the checkpoint of the one before
    "1 rank zero0 → 2 ranks zero3 → 1 rank zero0": [(1, 0, ()), (2, 3, ()), (1, 0, ())],
    "2 ranks zero1 → 1 rank zero3 → 2 ranks zero2": [(2, 1, ()), (1, 3, ()), (2, 2, ())],
    "2 ranks zero0 → 2 ranks zero3 → 2 ranks zero1": [(2, 0, ()), (2, 3, ()), (2, 1, ())],
    "2 ranks zero3 in bf16 → 1 rank zero2 → 2 ranks zero2": [(2, 3, BF16), (1, 2, BF16), (2, 2, BF16)],
}
EACH = 2  # updates of every part


def _part(rank: int, number: int, parts, address, model: Path, out: Path) -> None:
    """One rank of one part of a path: load, save what was loaded, two updates, save."""
    import os

    os.environ.update(DS_ACCELERATOR="cpu", OMP_NUM_THREADS="1")
    from sdpo.algorithms import build_algorithm
    from sdpo.learner.worker import LearnerWorker

    ranks, stage, overrides = parts[number]
    if rank >= ranks:
        return
    settings = layout(model, stage, ranks, *overrides)
    worker = LearnerWorker(settings, build_algorithm(settings).plan, rank)
    worker.start(address)
    if number:
        worker.checkpointing.load(str(out / str(number - 1)))
        worker.checkpointing.save(str(out / f"{number - 1} again"))
    losses = [update(worker)[0] for _ in range(EACH)]
    worker.checkpointing.save(str(out / str(number)))
    again = LearnerWorker(settings, build_algorithm(settings).plan, rank)
    again.start(address)
    again.checkpointing.load(str(out / str(number)))
    same(everything(worker), everything(again))
    np.save(out / f"{number}-{rank}.npy", np.array(losses))


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("path", PATHS)
def test_any_number_of_ranks_goes_on_from_any_other(model, start, tmp_path, path):
    parts = PATHS[path]
    for number in range(len(parts)):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            address = free.getsockname()
        mp.spawn(_part, (number, parts, address, model, tmp_path), nprocs=parts[number][0])
    found = np.concatenate(
        [np.sum([np.load(f) for f in tmp_path.glob(f"{n}-*.npy")], axis=0) for n in range(len(parts))]
    )
    for number in range(len(parts) - 1):
        assert list(different_tensors(tmp_path / str(number), tmp_path / f"{number} again")) == []
    if parts[0][2] == BF16:  # ranks have packs of other shapes, so their losses differ before anything is saved, too
        return
    whole = start(layout(model, 0))
    wanted = [update(whole)[0] for _ in range(EACH * len(parts))]
    np.testing.assert_allclose(found, wanted, rtol=1e-5)
