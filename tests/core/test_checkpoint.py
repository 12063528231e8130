"""Checkpoints appear whole or not at all, what is wrong with them is noticed, and the right ones are kept."""

from __future__ import annotations

import os
import pickle
import random
import re
import shutil
from pathlib import Path

import pytest

from sdpo.checkpoints import manifest
from sdpo.checkpoints.manifest import NAME, Damaged, measure, seal, verify
from sdpo.errors import UserError
from sdpo.training.checkpoints import Checkpoints, TrainerState, find_policy
from tests.helpers.checkpoints import names, write


def files(checkpoint: Path) -> list[Path]:
    return sorted(path for path in checkpoint.rglob("*") if path.is_file())


@pytest.fixture(autouse=True)
def no_waiting_for_the_disk(monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


@pytest.fixture
def checkpoints(tmp_path):
    return Checkpoints(tmp_path / "checkpoints", keep=1)


@pytest.fixture
def two(checkpoints):
    """Steps 4 and 10."""
    write(checkpoints, 4)
    write(checkpoints, 10)
    return checkpoints


def used(checkpoints: Checkpoints) -> tuple[str, list[str]]:
    """The one that a run goes on from, and what is said."""
    said: list[str] = []
    found = checkpoints.usable(said.append)
    return found.name if found else "", said


def test_last_best_and_some_older_ones_stay(checkpoints):
    for step, best in [(1, False), (2, True), (3, False), (4, False), (5, False)]:
        write(checkpoints, step, best)
    assert names(checkpoints) == ["step-000002", "step-000004", "step-000005"]
    assert (checkpoints.folder / "best").resolve().name == "step-000002"
    assert used(checkpoints) == ("step-000005", [])
    assert Checkpoints.state(checkpoints.last()).generations == 320


@pytest.mark.parametrize("keep", [0, 1, 3, 4, 7, 20])
def test_as_many_older_ones_stay_as_asked_for(tmp_path, keep):
    checkpoints = Checkpoints(tmp_path, keep)
    for step in range(1, 8):
        write(checkpoints, step)
        wanted = range(max(1, step - keep), step + 1)
        assert names(checkpoints) == [f"step-{s:06d}" for s in wanted]


def test_steps_beyond_a_million_are_in_order(checkpoints):
    for step in (999_999, 1_000_000, 10_000_000):
        write(checkpoints, step)
    assert checkpoints.last().name == "step-10000000"
    assert names(checkpoints) == ["step-1000000", "step-10000000"]


def test_an_unfinished_checkpoint_does_not_count(tmp_path):
    checkpoints = Checkpoints(tmp_path, keep=0)
    write(checkpoints, 1)
    (checkpoints.begin(2) / "half").write_text("x")
    assert used(checkpoints)[0] == "step-000001"
    write(checkpoints, 3)
    assert names(checkpoints) == ["step-000003"]  # leftovers of the dead attempt are gone


def test_a_checkpoint_without_weights_is_refused(checkpoints):
    with pytest.raises(UserError, match="wrote no state"):
        checkpoints.commit(checkpoints.begin(1), {}, TrainerState(step=1), best=False)
    assert checkpoints.last() is None and used(checkpoints) == ("", [])


def test_what_a_rank_wrote_must_be_seen_by_the_driver(checkpoints):
    partial = checkpoints.begin(1)
    for name in ("state/rank-00000.json", "policy/config.json", "elsewhere"):
        (partial / name).parent.mkdir(exist_ok=True)
        (partial / name).write_text("{}")
    written = {"elsewhere": measure(partial / "elsewhere")}
    (partial / "elsewhere").write_text("{ }")
    with pytest.raises(UserError, match=r"elsewhere .* every machine of the cluster"):
        checkpoints.commit(partial, written, TrainerState(step=1), best=False)


def test_the_policy_of_a_run_is_its_best(tmp_path, checkpoints):
    write(checkpoints, 1, best=True)
    write(checkpoints, 2)
    assert find_policy(str(tmp_path)).parent.name == "step-000001"
    assert find_policy(str(checkpoints.folder / "last")).parent.name == "step-000002"
    with pytest.raises(UserError, match="There is no model in"):
        find_policy(str(tmp_path / "nowhere"))


# --- what is wrong is noticed, named, and not used -------------------------------------------------------------------
def flip(path: Path, position: int, bit: int) -> None:
    content = bytearray(path.read_bytes())
    content[position] ^= 1 << bit
    path.write_bytes(bytes(content))


def test_every_flipped_bit_is_noticed(two):
    """One at a time, at random places over all files; half of them in the manifest itself."""
    checkpoint, rng = two.last(), random.Random(0)
    everything = files(checkpoint)
    places = [(path, place) for path in everything for place in range(path.stat().st_size)]
    own = [(path, place) for path, place in places if path.name == NAME]
    for path, place in rng.sample(places, 150) + rng.sample(own, 150):
        before, bit = path.read_bytes(), rng.randrange(8)
        flip(path, place, bit)
        with pytest.raises(Damaged):
            verify(checkpoint)
        path.write_bytes(before)
    verify(checkpoint)


def test_a_damaged_one_is_named_and_the_one_before_it_used(two):
    flip(two.last() / "policy" / "tokenizer.json", 3, 2)
    name, [said] = used(two)
    assert name == "step-000004"
    assert "step-000010 is damaged" in said and "policy/tokenizer.json" in said and "costs 6 steps" in said
    assert names(two) == ["step-000004", "step-000010.damaged"]
    assert (two.folder / "last").resolve().name == "step-000004"
    assert used(two) == ("step-000004", [])
    write(two, 10)  # the same step again, in its own time
    assert used(two) == ("step-000010", [])


DAMAGE = {
    "cut off": (lambda c: os.truncate(c / "state" / "rank-00000.json", 5), "state/rank-00000.json has 5 bytes instead"),
    "emptied": (lambda c: os.truncate(c / "trainer.json", 0), "trainer.json has 0 bytes"),
    "longer": (lambda c: (c / "trainer.json").open("a").write(" "), "trainer.json has"),
    "missing": (lambda c: (c / "policy" / "config.json").unlink(), "policy/config.json is missing"),
    "folder missing": (lambda c: shutil.rmtree(c / "state"), "state/.* is missing"),
    "no manifest": (lambda c: (c / NAME).unlink(), "manifest.json is missing: it was not written completely"),
    "half a manifest": (lambda c: os.truncate(c / NAME, 40), "manifest.json is not a manifest"),
    "another manifest": (lambda c: (c / NAME).write_text("[]"), "manifest.json is not a manifest"),
    "newer": (lambda c: renumber(c / NAME), "format 7, this version reads format 1: a newer version"),
    "a file more": (lambda c: (c / "policy" / "model.bin").write_bytes(b"x"), "policy/model.bin does not belong"),
    "a link": (lambda c: relink(c / "trainer.json"), "trainer.json is neither a file nor a folder"),
    "a pipe": (lambda c: os.mkfifo(c / "pipe"), "pipe is neither"),
}  # fmt: skip


def renumber(manifest: Path) -> None:
    manifest.write_text(manifest.read_text().replace('"format": 1', '"format": 7'))


def relink(path: Path) -> None:
    content, target = path.read_bytes(), path.parents[2] / "outside"
    target.write_bytes(content)
    path.unlink()
    path.symlink_to(target)


@pytest.mark.parametrize("kind", DAMAGE)
def test_whatever_is_wrong_the_one_before_is_used(two, kind):
    damage, said = DAMAGE[kind]
    damage(two.last())
    name, [message] = used(two)
    assert name == "step-000004"
    assert re.search(said, message), message


def test_when_none_is_whole_all_are_named_and_none_is_touched(two):
    for checkpoint in two.all():
        (checkpoint / "trainer.json").unlink()
    before = names(two)
    with pytest.raises(UserError, match=r"No checkpoint in .* is complete .*step-000010: .*step-000004: .*--fresh"):
        two.usable(pytest.fail)
    assert names(two) == before


STATES = ("[]", '{"step": "4"}', '{"step": 4, "more": 1}', '{"step": 5}', "{", '{"step": 20, "random_state": {"a": 1}}')


@pytest.mark.parametrize("state", STATES)
def test_the_state_of_the_driver_is_checked_even_if_its_checksum_is_right(two, state):
    """As somebody else, or another version, may have written it."""
    checkpoint = write(two, 4)
    partial = two.begin(20)
    shutil.copytree(checkpoint, partial, dirs_exist_ok=True)
    (partial / NAME).unlink()
    (partial / "trainer.json").write_text(state)
    seal(partial, {})
    partial.rename(partial.with_suffix(""))
    name, [said] = used(two)
    assert name == "step-000010" and "trainer.json" in said


@pytest.mark.parametrize("name", ["../outside", "/etc/hostname", "state/../../outside", "./state", "", "state//x"])
def test_a_manifest_names_nothing_outside_of_its_folder(two, name):
    records = manifest.read(two.last()) | {name: manifest.FileRecord(0, "")}
    (two.last() / NAME).write_bytes(manifest._render(records))
    with pytest.raises(Damaged, match="which is not a file in this folder"):
        verify(two.last())


class Payload:
    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self):
        return open, (str(self.target), "w")


def test_a_payload_in_a_checkpoint_does_not_run(two, tmp_path):
    payload = pickle.dumps(Payload(tmp_path / "ran"))
    for name in ("student/mp_rank_00_model_states.pt", "teacher.pt", "trainer.json", "state/rank-00000.json"):
        path = two.last() / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(payload)
    assert used(two)[0] == "step-000004"
    assert not (tmp_path / "ran").exists()


def test_a_policy_is_verified_before_it_is_exported_or_evaluated(two, tmp_path):
    checkpoint = two.last()
    (checkpoint / "policy" / "config.json").unlink()
    for where in (tmp_path, checkpoint, two.folder / "last", checkpoint / "policy"):
        with pytest.raises(UserError, match=r"is damaged: policy/config.json is missing.* Give another one: .*000004"):
            find_policy(str(where))
    (two.all()[1] / NAME).unlink()
    with pytest.raises(UserError, match=r"has no manifest.json.* unchecked"):
        find_policy(str(two.all()[1]))
    assert find_policy(str(two.all()[1] / "policy")).name == "policy"


# --- never a moment without a whole one ------------------------------------------------------------------------------
class PowerCut(BaseException):
    pass


CUTS = ("rename", "fsync", "unlink", "rmdir", "symlink")


def cut_at(monkeypatch, call: int) -> list[int]:
    """The call of that number to the file system, of those that change names or make them last, never happens."""
    calls = [0]

    def counted(function):
        def wrapper(*arguments, **keywords):
            calls[0] += 1
            if calls[0] == call:
                raise PowerCut
            return function(*arguments, **keywords)

        return wrapper

    for name in CUTS:
        monkeypatch.setattr(os, name, counted(getattr(os, name)))
    return calls


@pytest.mark.parametrize(("step", "keep"), [(4, 0), (6, 1)], ids=["the same step again", "the next step"])
def test_a_power_cut_between_any_two_operations_leaves_a_whole_one(tmp_path, step, keep):
    call, finished = 0, False
    while not finished:
        call += 1
        checkpoints = Checkpoints(tmp_path / str(call), keep)
        write(checkpoints, 2, best=True)
        write(checkpoints, 4)
        with pytest.MonkeyPatch.context() as patch:
            cut_at(patch, call)
            try:
                write(checkpoints, step, best=True)
                finished = True
            except PowerCut:
                pass
        name, said = used(checkpoints)
        assert name in ("step-000004", f"step-{step:06d}") and said == []
        after = write(checkpoints, 8)
        assert used(checkpoints) == (after.name, [])
        assert all(name.startswith("step-") and "." not in name for name in names(checkpoints)), names(checkpoints)
        policy = find_policy(str(checkpoints.folder / "best"))
        assert policy.parent.name in ("step-000002", f"step-{step:06d}")
    assert call > 15


def test_files_and_names_are_on_the_disk_before_the_folder_has_its_name(checkpoints, monkeypatch):
    """Every file and folder was fsynced before the rename, the parent after it."""
    order = []
    monkeypatch.setattr(os, "fsync", lambda fd: order.append(Path(os.readlink(f"/proc/self/fd/{fd}")).name))
    real = os.rename
    monkeypatch.setattr(os, "rename", lambda a, b: (order.append(f"rename {Path(b).name}"), real(a, b)))
    write(checkpoints, 1)
    before, after = order[: order.index("rename step-000001")], order[order.index("rename step-000001") :]
    wanted = {"config.json", "tokenizer.json", "trainer.json", NAME, "policy", "state", "step-000001.partial"}
    assert wanted <= set(before) and after[1] == "checkpoints"
