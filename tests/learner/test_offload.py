"""What only updates need is on the host between them, and the run is the same, bit for bit."""

from __future__ import annotations

import pytest
import torch

from sdpo.learner.offload import Offload
from tests.learner.test_checkpointing import ADAPTER, BF16, everything, layout, same, saved_and_loaded, update

BOTH = ("teacher.kind=trust_region", "teacher.clock=null", "reference.coefficient=0.1")
LAYOUTS = [(0, ()), (1, ()), (2, BF16), (3, ()), (3, BF16), (3, BOTH), (2, (*BF16, *BOTH)), (3, (*BF16, *ADAPTER))]
QUICK = [(0, ()), (2, BF16), (3, BF16)]
EACH = [each if each in QUICK else pytest.param(*each, marks=pytest.mark.slow) for each in LAYOUTS]
NAMES = [f"zero{stage} {' '.join(overrides)}".strip() for stage, overrides in LAYOUTS]


def offloading(settings):
    """On a CPU, where the recipe has no use for it."""
    return settings.model_copy(update={"learner": settings.learner.model_copy(update={"offload_states": True})})


def resizable(tensor: torch.Tensor) -> bool:
    """Not what lies in a mapped file.  A tensor that is away lies in the buffer, which is."""
    return tensor.untyped_storage().resizable()


def test_storages_without_memory_and_views_that_are_valid_again():
    flat, alone, kept = torch.arange(6.0), torch.ones(3, dtype=torch.bfloat16), torch.ones(2)
    first, second, part = flat[:2], flat[2:], flat.view(2, 3)[1]
    storage = flat.untyped_storage()
    offload = Offload(lambda: [flat, second, alone, kept[:1], flat], lambda: [kept])
    offload.away()
    assert storage.nbytes() == 0 and kept.untyped_storage().nbytes() == 8
    assert flat.tolist() == [0, 1, 2, 3, 4, 5] and second.tolist() == [2, 3, 4, 5] and alone.tolist() == [1, 1, 1]
    buffers = {flat.data_ptr(), alone.data_ptr()}
    offload.away()
    offload.back()
    assert flat.untyped_storage().data_ptr() == storage.data_ptr() and storage.nbytes() == 24
    second[0] = 9
    assert flat[2] == 9 and first.tolist() == [0, 1] and part.tolist() == [3, 4, 5]
    offload.back()
    offload.away()
    assert {flat.data_ptr(), alone.data_ptr()} == buffers  # which are pinned on a GPU's machine
    offload.back()
    assert flat.tolist() == [0, 1, 9, 3, 4, 5]


@pytest.mark.parametrize(("stage", "overrides"), EACH, ids=NAMES)
def test_a_run_is_the_same(model, start, tmp_path, stage, overrides):
    settings = layout(model, stage, 1, *overrides)
    plain, worker = start(settings), start(offloading(settings))
    for _ in range(2):
        assert update(plain) == update(worker)
        away = {id(t): t for t in worker._for_updates()}
        used = {t.untyped_storage().data_ptr() for t in worker._for_engines()}
        moved = [t for t in away.values() if t.untyped_storage().data_ptr() not in used and resizable(t)]
        assert moved and {id(t) for m in worker.offload._moved for t, _ in m.tensors.values()} == {id(t) for t in moved}
        assert all(m.storage.nbytes() == 0 for m in worker.offload._moved)
    same(everything(plain), everything(worker))
    assert worker.held.first_not_finite() is None
    resumed = saved_and_loaded(worker, start, offloading(settings), tmp_path)
    same(everything(worker), everything(resumed))
    assert update(plain) == update(resumed)
    same(everything(plain), everything(resumed))
