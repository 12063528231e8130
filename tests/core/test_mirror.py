"""`run.mirror`: what is copied, what a start elsewhere makes of it, and what damage costs."""

from __future__ import annotations

import time
from pathlib import Path

import fsspec
import pytest

from sdpo.checkpoints.mirror import Mirror
from sdpo.cli.train import _set_aside
from sdpo.config.files import find_recipe, load_recipe
from sdpo.errors import UserError
from sdpo.tracking import FINISHED, RunFolder, RunInfo
from sdpo.training import mirroring
from sdpo.training.checkpoints import Checkpoints
from sdpo.training.fetching import fetch, is_complete
from sdpo.training.mirroring import Mirroring, mirror_of
from tests.helpers.checkpoints import names, write

NAME = "a-run"


@pytest.fixture(params=["file", "memory"])
def mirror(request, tmp_path) -> Mirror:
    yield Mirror(f"file://{tmp_path}/mirror" if request.param == "file" else "memory://mirror", NAME)
    fsspec.filesystem("memory").store.clear()


def begin(path: Path, steps: int, every: int = 10) -> Checkpoints:
    """A run of so many steps, with a row and a table for each; the first checkpoint is the best."""
    checkpoints = Checkpoints(path / "checkpoints", keep=0)
    with RunFolder(path) as folder:
        folder.create(RunInfo("livecodebench", "sdpo", 0, "cpu", created=f"of {path.parent.name}"), {"seed": 0})
        go_on(folder, checkpoints, 1, steps, every)
        folder.set_status(FINISHED)
    return checkpoints


def go_on(folder: RunFolder, checkpoints: Checkpoints, first: int, last: int, every: int = 10) -> None:
    for step in range(first, last + 1):
        folder.append_metrics({"step": step})
        (folder.rollouts / f"step-{step:06d}.parquet").write_text(f"table {step}")
        if step % every == 0:
            write(checkpoints, step, step == every, best_step=every)


def copy(mirror: Mirror, path: Path, checkpoints: Checkpoints) -> list[str]:
    said: list[str] = []
    with Mirroring(mirror, path) as copying:
        copying.start(checkpoints, said.append)
    return said


def content(path: Path) -> dict[str, bytes]:
    return {
        p.relative_to(path).as_posix(): p.read_bytes()
        for p in path.rglob("*")
        if p.is_file() and p.name != "lock" and not p.is_relative_to(path / "checkpoints" / "best")
    }


def test_a_run_goes_on_elsewhere_with_all_that_it_had(mirror, tmp_path, capsys):
    here, there = tmp_path / "here" / NAME, tmp_path / "there" / NAME
    copy(mirror, here, begin(here, 24))
    assert is_complete(mirror, here) and "copying to the mirror" in capsys.readouterr().out
    fetch(mirror, there)
    checkpoints = Checkpoints(there / "checkpoints", keep=0)
    assert checkpoints.usable(print).name == "step-000020"
    assert (there / "checkpoints" / "best").resolve().name == "step-000010"
    assert content(there) == content(here)
    with RunFolder(there) as folder:
        assert folder.resume(20) == 4
        go_on(folder, checkpoints, 21, 30)
    copy(mirror, there, checkpoints)
    assert sorted(n for n in mirror.files() if n.endswith("manifest.json")) == [
        f"checkpoints/step-0000{step}/manifest.json" for step in (10, 30)
    ]
    fetch(mirror, here)  # where it began, and has fallen behind
    assert content(here).keys() >= content(there).keys() and RunFolder(here).metrics == RunFolder(there).metrics
    assert Checkpoints(here / "checkpoints", 0).usable(print).name == "step-000030"


def test_what_the_run_drops_goes_and_nothing_else_is_copied_again(mirror, tmp_path, monkeypatch):
    path = tmp_path / "here" / NAME
    checkpoints = begin(path, 20)
    for name in ("lock", "wandb/offline", "logs/ray", ".report.html.partial"):
        (path / name).parent.mkdir(exist_ok=True)
        (path / name).write_text("not copied")
    copy(mirror, path, checkpoints)
    assert not {"lock", "wandb/offline", "logs/ray", ".report.html.partial"} & mirror.files().keys()
    (path / "rollouts" / "step-000003.parquet").unlink()
    put, really = [], Mirror.put

    def noted(self, source, name, *more):
        put.append(name)
        return really(self, source, name, *more)

    monkeypatch.setattr(Mirror, "put", noted)
    copy(mirror, path, checkpoints)
    assert "rollouts/step-000003.parquet" not in mirror.files()
    assert not [name for name in put if name.startswith(("rollouts/", "checkpoints/"))] and "run.json" in put


def break_file(mirror: Mirror, name: str, how: str) -> None:
    files, path = mirror._files, mirror._path(name)
    if how == "missing":
        files.rm(path)
    else:
        data = files.cat(path)
        files.pipe(path, data[:-1] if how == "cut" else data[:-1] + b"?")


@pytest.mark.parametrize("how", ["missing", "cut", "changed"])
@pytest.mark.parametrize("name", ["manifest.json", "state/learner.json", "policy/tokenizer.json"])
def test_a_damaged_checkpoint_is_named_and_the_one_before_is_used(mirror, tmp_path, how, name, capsys):
    here, there = tmp_path / "here" / NAME, tmp_path / "there" / NAME
    copy(mirror, here, begin(here, 24))
    break_file(mirror, f"checkpoints/step-000020/{name}", how)
    fetch(mirror, there)
    assert Checkpoints(there / "checkpoints", 0).usable(print).name == "step-000010"
    said = capsys.readouterr().out
    assert "step-000010 of a-run" in said
    assert ("checkpoint step-000020 of the mirror is damaged" in said) == ((name, how) != ("manifest.json", "missing"))


def test_no_whole_checkpoint_is_no_beginning(mirror, tmp_path):
    here, there = tmp_path / "here" / NAME, tmp_path / "there" / NAME
    copy(mirror, here, begin(here, 10))
    break_file(mirror, "checkpoints/step-000010/state/learner.json", "cut")
    with pytest.raises(UserError, match=r"No checkpoint in .*mirror/a-run is whole"):
        fetch(mirror, there)
    assert RunFolder(there).info is None


def test_a_damaged_checkpoint_here_is_replaced_by_the_mirrors(mirror, tmp_path):
    path = tmp_path / "here" / NAME
    copy(mirror, path, begin(path, 24))
    (path / "checkpoints" / "step-000020" / "policy" / "config.json").write_text("{}")
    fetch(mirror, path)
    checkpoints = Checkpoints(path / "checkpoints", 0)
    assert checkpoints.usable(print).name == "step-000020"
    assert "step-000020.damaged" in names(checkpoints)


def test_a_copy_that_is_cut_off_anywhere_leaves_one_to_go_on_from(tmp_path, monkeypatch):
    """After each operation on the mirror in turn: a whole checkpoint, and every row up to it."""
    operations = [Mirror.put, Mirror.remove]
    monkeypatch.setattr(mirroring, "_LAST_TRIES", 1)
    cuts, reached = 0, set()
    while True:
        path, found = tmp_path / f"here{cuts}" / NAME, Mirror(f"memory://cut{cuts}", NAME)
        checkpoints = begin(path, 14)
        copy(found, path, checkpoints)
        with RunFolder(path) as folder:
            (folder.rollouts / "step-000002.parquet").unlink()
            go_on(folder, checkpoints, 15, 30)
        left = iter(range(cuts))

        def counted(operation, left=left):
            def limited(*given):
                if next(left, None) is None:
                    raise ConnectionError("cut off")
                return operation(*given)

            return limited

        for operation in operations:
            monkeypatch.setattr(Mirror, operation.__name__, counted(operation))
        copy(found, path, checkpoints)
        for operation in operations:
            monkeypatch.setattr(Mirror, operation.__name__, operation)
        there = tmp_path / f"there{cuts}" / NAME
        fetch(found, there)
        step = Checkpoints.state(Checkpoints(there / "checkpoints", 0).usable(print)).step
        assert [row["step"] for row in RunFolder(there).metrics][:step] == list(range(1, step + 1))
        reached.add(step)
        if next(left, None) is not None:
            break
        cuts += 1
    assert reached == {10, 30} and cuts > 20


def test_a_mirror_that_fails_is_told_once_and_tried_until_it_works(tmp_path, monkeypatch):
    monkeypatch.setattr(mirroring, "_LOOK_S", 0.01)
    monkeypatch.setattr(mirroring, "_RETRY_S", 0.01)
    path = tmp_path / "here" / NAME
    checkpoints = begin(path, 10)
    (tmp_path / "mirror").write_text("in the way")
    found, said = Mirror(str(tmp_path / "mirror"), NAME), []
    with Mirroring(found, path) as copying:
        copying.start(checkpoints, said.append)
        while copying._failures < 3:
            time.sleep(0.01)
        (tmp_path / "mirror").unlink()
        while len(said) < 2:
            time.sleep(0.01)
    assert "warning: copying to" in said[0] and "is up to date again" in said[1]
    assert is_complete(found, path)


def test_an_ended_run_says_what_the_mirror_lacks(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(mirroring, "_LOOK_S", 0.01)
    path = tmp_path / "here" / NAME
    (tmp_path / "mirror").write_text("in the way")
    copy(Mirror(str(tmp_path / "mirror"), NAME), path, begin(path, 10))
    assert "lacks the last of" in capsys.readouterr().out


def test_a_checkpoint_is_not_dropped_while_it_is_copied(tmp_path):
    checkpoints = Checkpoints(tmp_path, keep=0)
    first = write(checkpoints, 1)
    with checkpoints.held(first) as there:
        assert there
        write(checkpoints, 2)
        assert names(checkpoints) == ["step-000001", "step-000002"]
    write(checkpoints, 3)
    assert names(checkpoints) == ["step-000003"]
    with checkpoints.held(first) as there:
        assert not there


def test_another_run_of_the_name_is_not_mixed_with_this_one(mirror, tmp_path):
    first, second = tmp_path / "first" / NAME, tmp_path / "second" / NAME
    copy(mirror, first, begin(first, 10))
    begin(second, 10)
    with pytest.raises(UserError, match="holds another run of this name.*--fresh"):
        fetch(mirror, second)
    assert mirror.address in _set_aside(second, mirror) and not second.exists()
    fetch(mirror, second)
    assert not second.exists() and mirror.files() == {}


def recipe(*overrides: str):
    return load_recipe(find_recipe("livecodebench", "sdpo"), "cpu", [f"name={NAME}", *overrides])


def test_addresses_that_cannot_work_are_refused_with_the_remedy(tmp_path):
    fsspec.register_implementation("absent", "no_such_package.Files", errtxt="Install nosuch", clobber=True)
    path = tmp_path / NAME
    assert mirror_of(recipe(), path) is None
    for address, said in {
        "absent://bucket/runs": "package for absent:// is missing.*uv pip install s3fs",
        "s9://bucket/runs": "Protocol not known: s9.*s3://bucket/runs",
        str(tmp_path): "into itself",
        f"file://{path}/copy": "into itself",
    }.items():
        with pytest.raises(UserError, match=said):
            mirror_of(recipe(f"run.mirror={address}"), path)
    (tmp_path / "mirror" / NAME).mkdir(parents=True)
    (tmp_path / "mirror" / NAME / "run.json").write_text("cut o")
    with pytest.raises(UserError, match="cannot be read.*leave run.mirror out"):
        fetch(Mirror(str(tmp_path / "mirror"), NAME), path)


def test_the_mirror_makes_no_other_run():
    from sdpo.config.identity import configuration
    from sdpo.config.resume import refused
    from sdpo.config.run_name import named

    plain, mirrored = recipe(), recipe("run.mirror=s3://bucket/runs")
    assert configuration(plain.model_dump(mode="json")) == configuration(mirrored.model_dump(mode="json"))
    assert refused(plain, mirrored) == []
    file = find_recipe("livecodebench", "sdpo")
    assert named(file, "cpu", ["run.mirror=s3://bucket/runs"]).name == named(file, "cpu", []).name
