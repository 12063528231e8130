"""Checkpoints appear complete or not at all, and the right ones are kept."""

from __future__ import annotations

import pytest

from sdpo.errors import UserError
from sdpo.training.checkpoints import Checkpoints, TrainerState, find_policy


def write(checkpoints: Checkpoints, step: int, best: bool = False):
    partial = checkpoints.begin(step)
    (partial / "policy").mkdir()
    (partial / "student").mkdir()
    (partial / "policy" / "config.json").write_text("{}")
    return checkpoints.commit(partial, TrainerState(step=step, generations=64 * step), best)


def names(checkpoints: Checkpoints) -> list[str]:
    return sorted(p.name for p in checkpoints.folder.iterdir() if not p.is_symlink())


def test_last_best_and_some_older_ones_stay(tmp_path):
    checkpoints = Checkpoints(tmp_path, keep=1)
    for step, best in [(1, False), (2, True), (3, False), (4, False), (5, False)]:
        write(checkpoints, step, best)
    assert names(checkpoints) == ["step-000002", "step-000004", "step-000005"]
    assert (tmp_path / "best").resolve().name == "step-000002"
    assert checkpoints.last().name == "step-000005"
    assert Checkpoints.state(checkpoints.last()).generations == 320


@pytest.mark.parametrize("keep", [0, 1, 3, 4, 7, 20])
def test_as_many_older_ones_stay_as_asked_for(tmp_path, keep):
    checkpoints = Checkpoints(tmp_path, keep)
    for step in range(1, 8):
        write(checkpoints, step)
        wanted = range(max(1, step - keep), step + 1)
        assert names(checkpoints) == [f"step-{s:06d}" for s in wanted]


def test_an_unfinished_checkpoint_does_not_count(tmp_path):
    checkpoints = Checkpoints(tmp_path, keep=0)
    write(checkpoints, 1)
    (checkpoints.begin(2) / "half").write_text("x")
    assert checkpoints.last().name == "step-000001"
    write(checkpoints, 3)
    assert names(checkpoints) == ["step-000003"]  # leftovers of the dead attempt are gone


def test_a_checkpoint_without_weights_is_refused(tmp_path):
    checkpoints = Checkpoints(tmp_path, keep=0)
    with pytest.raises(UserError, match="wrote no student"):
        checkpoints.commit(checkpoints.begin(1), TrainerState(step=1), best=False)
    assert checkpoints.last() is None


def test_a_step_can_be_written_again(tmp_path):
    checkpoints = Checkpoints(tmp_path, keep=0)
    write(checkpoints, 4)
    write(checkpoints, 4, best=True)
    assert names(checkpoints) == ["step-000004"] and (tmp_path / "best").exists()


def test_the_policy_of_a_run_is_its_best(tmp_path):
    checkpoints = Checkpoints(tmp_path / "checkpoints", keep=2)
    write(checkpoints, 1, best=True)
    write(checkpoints, 2)
    assert find_policy(str(tmp_path)).parent.name == "step-000001"
    assert find_policy(str(tmp_path / "checkpoints" / "last")).parent.name == "step-000002"
    with pytest.raises(UserError, match="There is no model in"):
        find_policy(str(tmp_path / "nowhere"))
