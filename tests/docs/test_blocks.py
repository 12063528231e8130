"""The commands and programs in the documents work: all can be read, and those that need no more than this machine run.

A block that is not run says why, in a comment on the line above it: `<!-- not run: GPUs -->`.
"""

from __future__ import annotations

import ast
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from sdpo.cli import _parser
from sdpo.config.files import nearest
from sdpo.config.options import all_options
from sdpo.config.paths import PROJECT

README = PROJECT / "README.md"
PAGES = [README, *sorted(PROJECT.glob("docs/*.md")), PROJECT / "docker" / "README.md"]
_COMMAND = r"(\w+=\S* )*(make|sdpo|python|pip|export|git|cd|docker|ray|bwrap|\.venv/bin/\w+) "
# As in a checkout that is set up.  Only the README's runs are made; elsewhere a run is planned, which checks all of it.
_SHELL = """
make() {
    case $1 in
        test | test-all) command make --dry-run --old-file=setup "$@" ;;
        *) command make --old-file=setup "$@" ;;
    esac
}
sdpo() {
    local plan=
    if [ "$1" = train ]; then plan=--dry-run; fi
    PYTHONPATH="$PYTHONPATH:$CHECKOUT" command sdpo "$@" $plan
}
"""


@dataclass(frozen=True)
class Block:
    line: int
    language: str
    text: str
    note: str  # the comment above it

    @property
    def is_shell(self) -> bool:
        return self.language in ("", "bash", "sh") and re.match(_COMMAND, self.text) is not None

    @property
    def runs(self) -> bool:
        return (self.is_shell or self.language == "python") and not self.note.startswith("not run:")


def blocks(page: Path) -> list[Block]:
    found, lines = [], page.read_text().splitlines()
    starts = [number for number, line in enumerate(lines) if line.startswith("```")]
    for start, end in zip(starts[::2], starts[1::2], strict=True):
        comment = re.fullmatch(r"<!-- (.+) -->", lines[start - 1])
        text = "\n".join(lines[start + 1 : end])
        found.append(Block(start + 1, lines[start].strip("` "), text, comment[1] if comment else ""))
    return found


def name_of(page: Path) -> str:
    return str(page.relative_to(PROJECT))


def commands(block: Block) -> Iterator[list[str]]:
    """The words of every `sdpo` command of a shell block."""
    for line in block.text.replace("\\\n", " ").splitlines():
        words = [word for word in shlex.split(line, comments=True) if not re.match(r"[A-Z_]+=", word)]
        if words and Path(words[0]).name == "sdpo" and "[" not in {word[0] for word in words}:
            yield words[1:]


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_blocks_can_be_read(page):
    paths = {option.path for option in all_options()}
    for block in blocks(page):
        where = f"{name_of(page)}:{block.line}"
        assert block.note in ("", "run in docs/examples") or re.match(r"not run: \w", block.note), where
        if block.language == "python":
            ast.parse(block.text, where)
        if block.language == "json":
            [json.loads(line) for line in block.text.splitlines()]
        if block.language == "yaml":
            yaml.safe_load(block.text)
        if block.is_shell:
            done = subprocess.run(["bash", "-n"], input=block.text, capture_output=True, text=True)
            assert done.returncode == 0, (where, done.stderr)
        for words in commands(block) if block.is_shell and "brackets" not in block.note else ():
            options, rest = _parser().parse_known_args(words)  # exits where there is no such command
            given = [word for word in [*getattr(options, "overrides", []), *rest] if "=" in word]
            assert set(rest) <= set(given), (where, words)
            for key in (word.partition("=")[0] for word in given):
                known = key in paths or key.startswith(("rollout.engine_args.", "learner.deepspeed."))
                assert known, f"{where}: {key}.{nearest(key, paths)}"


@pytest.fixture(scope="module")
def checkout(tmp_path_factory) -> Path:
    """A copy of the repository, set up, in which a run has five steps."""
    folder = tmp_path_factory.mktemp("docs") / "sdpo"
    left_out = shutil.ignore_patterns("runs", "build", "dist", ".*", "__pycache__", "*.egg-info", "wandb")
    shutil.copytree(PROJECT, folder, ignore=left_out)
    (folder / ".venv").symlink_to(sys.prefix)
    base = folder / "recipes" / "livecodebench" / "base.yaml"
    recipe = yaml.safe_load(base.read_text())
    recipe["profiles"]["cpu"]["run"] = {"steps": 5}
    recipe["profiles"]["cpu"]["evaluation"]["every"] = 0
    base.write_text(yaml.safe_dump(recipe))
    return folder


@pytest.fixture(scope="module")
def after_readme(checkout) -> Path:
    """The checkout after the README's commands, on which other pages go on."""
    run_blocks(README, checkout)
    return checkout


def environment(checkout: Path) -> dict[str, str]:
    makes_own = ("MAKEFLAGS", "MFLAGS", "MAKELEVEL", "RECIPE", "ALGORITHM", "PROFILE", "ARGS", "TESTS", "RAY_ADDRESS")
    kept = {name: value for name, value in os.environ.items() if name not in makes_own}
    path = f"{checkout}/.venv/bin:{kept['PATH']}"
    ours = {"PATH": path, "PYTHONPATH": str(checkout), "CHECKOUT": str(checkout), "WANDB_MODE": "offline"}
    return {**kept, **ours, "CUDA_VISIBLE_DEVICES": ""}  # the cpu profile, wherever this is


def run_blocks(page: Path, checkout: Path) -> None:
    for block in blocks(page):
        if not block.runs:
            continue
        program = [sys.executable, "-c", block.text]
        if block.is_shell:
            program = ["bash", "-euo", "pipefail", "-c", _SHELL + block.text]
        folder = checkout / block.note.removeprefix("run in ")
        done = subprocess.run(program, cwd=folder, env=environment(checkout), capture_output=True, text=True)
        assert done.returncode == 0, f"{name_of(page)}:{block.line}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_commands_of_the_readme_run(after_readme):
    assert (after_readme / "runs" / "compare" / "livecodebench" / "index.html").is_file()


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("page", [p for p in PAGES[1:] if any(b.runs for b in blocks(p))], ids=name_of)
def test_blocks_run(page, after_readme):
    run_blocks(page, after_readme)
