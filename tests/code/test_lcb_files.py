"""Which files are read, from a folder and from the hub (its cache, offline: tests have no network)."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from sdpo.envs.code import load_livecodebench
from sdpo.envs.code.lcb_files import HUB_REVISION, find_files, release_files
from sdpo.errors import UserError


@pytest.mark.parametrize(
    ("release", "files"),
    [
        ("release_v1", ["test.jsonl"]),
        ("release_v3", ["test.jsonl", "test2.jsonl", "test3.jsonl"]),
        ("release_v6", ["test.jsonl", *(f"test{n}.jsonl" for n in range(2, 7))]),
        ("release_latest", ["test.jsonl", *(f"test{n}.jsonl" for n in range(2, 7))]),
        ("v1", ["test.jsonl"]),
        ("v6", ["test6.jsonl"]),
        ("v5_v6", ["test5.jsonl", "test6.jsonl"]),
    ],
)
def test_releases(release, files):
    assert list(release_files(release)) == files


@pytest.mark.parametrize("release", ["release_v7", "release_v0", "v7", "v0", "v6_v5", "v5_v7", "latest", "", "6"])
def test_an_unknown_release_names_the_known_ones(release):
    with pytest.raises(UserError, match="release_v1 … release_v6"):
        release_files(release)


def test_a_folder_is_read_in_the_order_of_its_numbers(tmp_path):
    for name in ("test10.jsonl", "test2.jsonl", "test.jsonl", "notes.txt"):
        (tmp_path / name).touch()
    assert [file.name for file in find_files(tmp_path)] == ["test.jsonl", "test2.jsonl", "test10.jsonl"]
    assert find_files(tmp_path / "test2.jsonl") == [tmp_path / "test2.jsonl"]
    assert [file.name for file in find_files(tmp_path, "release_v2")] == ["test.jsonl", "test2.jsonl"]


def test_what_is_not_there_is_named_with_the_remedy(tmp_path):
    with pytest.raises(UserError, match="no folder or file .*nowhere.*data.path"):
        find_files(tmp_path / "nowhere")
    with pytest.raises(UserError, match="holds no .jsonl file"):
        find_files(tmp_path)
    (tmp_path / "test.jsonl").touch()
    with pytest.raises(UserError, match=r"release_v3 needs test2.jsonl, test3.jsonl.*hf download"):
        find_files(tmp_path, "release_v3")


def test_a_git_lfs_pointer_is_recognised(tmp_path):
    (tmp_path / "test.jsonl").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    with pytest.raises(UserError, match="git lfs pull"):
        load_livecodebench(tmp_path, test_split="published", problem_split="none", max_bad_rows=1)


SCRIPT = """
import sys
from sdpo.envs.code import load_livecodebench
from sdpo.errors import UserError
try:
    data = load_livecodebench(release="release_v2", test_split="official", problem_split="none", max_bad_rows=0)
    print("loaded", data.name, [problem.id for problem in data.train])
except UserError as error:
    print("UserError", error)
"""


def in_offline_hub(cache: Path) -> str:
    """The loader in a process of its own, because the hub library reads its environment when it is imported."""
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HUB_CACHE": str(cache), "HF_HUB_DISABLE_TELEMETRY": "1"}
    done = subprocess.run([sys.executable, "-c", SCRIPT], env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_files_of_the_pinned_revision_are_taken_from_the_hub_cache(tmp_path, official_row):
    snapshot = tmp_path / "datasets--livecodebench--code_generation_lite" / "snapshots" / HUB_REVISION
    snapshot.mkdir(parents=True)
    for name, question in (("test.jsonl", "a"), ("test2.jsonl", "b")):
        (snapshot / name).write_text(json.dumps(official_row(question)) + "\n")
    assert in_offline_hub(tmp_path) == "loaded livecodebench release_v2 ['a', 'b']\n"


def test_without_network_and_cache_the_message_says_what_to_do(tmp_path):
    said = in_offline_hub(tmp_path)
    assert said.startswith("UserError test.jsonl of livecodebench/code_generation_lite cannot be fetched")
    assert "data.path" in said
