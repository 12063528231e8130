"""Who may know whom, by reading the imports of every file."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from sdpo.config.paths import PROJECT
from sdpo.config.registry import ALGORITHMS, DEFAULT_ALGORITHM

BASE = "errors types config"
BELOW_TRAINING = f"{BASE} checkpoints envs prompts losses algorithms weights supervision"
# What each part of the package may import of the others.
MAY_IMPORT = {
    "errors": "",
    "types": "errors",
    "config": "errors types",
    "checkpoints": "errors",
    "envs": BASE,
    "prompts": BASE,
    "losses": BASE,
    "algorithms": f"{BASE} envs prompts losses",
    "supervision": BASE,
    "weights": f"{BASE} envs prompts losses algorithms supervision",
    "rollout": BELOW_TRAINING,
    "learner": BELOW_TRAINING,
    "evaluation": BASE,
    "tracking": BASE,
    "report": f"{BASE} losses evaluation tracking",
    "training": f"{BELOW_TRAINING} rollout learner evaluation tracking report",
    "discovery": f"{BELOW_TRAINING} rollout learner evaluation tracking report training",
    "api": f"{BASE} evaluation tracking report training",
    "cli": f"{BELOW_TRAINING} rollout learner evaluation tracking report training discovery",
}
CORE = {"envs", "prompts", "algorithms", "rollout", "learner", "losses", "weights", "training", "config", "checkpoints"}
CORE |= {"supervision"}
HEAVY = {"torch", "ray", "vllm", "sandbox", "transformers", "deepspeed"}

FILES = sorted((PROJECT / "sdpo").rglob("*.py"))


def name_of(file: Path) -> str:
    """sdpo/a/b.py → sdpo.a.b; sdpo/a/__init__.py → sdpo.a"""
    parts = file.relative_to(PROJECT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {name_of(file): file for file in FILES}


def part_of(module: str) -> str:
    return module.split(".")[1] if "." in module else ""


@cache
def tree(file: Path) -> ast.Module:
    return ast.parse(file.read_text())


def imported(node: ast.AST, top_level: bool = False) -> Iterator[str]:
    """Names of modules, and of what is taken out of them; `top_level`: only what runs when the module is imported."""
    for child in ast.iter_child_nodes(node):
        if top_level and isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if top_level and isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING":
            continue
        if isinstance(child, ast.Import):
            yield from (alias.name for alias in child.names)
        elif isinstance(child, ast.ImportFrom):
            module = "." * child.level + (child.module or "")
            yield module
            yield from (f"{module}.{alias.name}" for alias in child.names)
        else:
            yield from imported(child, top_level)


def importers(package: str, files: list[Path]) -> set[str]:
    """The files that import a package."""
    return {
        str(file.relative_to(PROJECT))
        for file in files
        if any(name.split(".")[0] == package for name in imported(tree(file)))
    }


def test_every_part_has_its_place_and_says_where_it_imports_from():
    assert {part_of(module) for module in MODULES} - {""} == set(MAY_IMPORT)
    assert not [file for file in FILES if any(name.startswith(".") for name in imported(tree(file)))]


@pytest.mark.parametrize("part", MAY_IMPORT)
def test_a_part_imports_those_below_it_only(part):
    allowed = {part, *MAY_IMPORT[part].split()}
    for module, file in MODULES.items():
        if part_of(module) == part:
            used = {part_of(name) for name in imported(tree(file)) if name.startswith("sdpo.")} & set(MAY_IMPORT)
            assert used <= allowed, f"{module} imports {used - allowed}"


def test_no_import_leads_back_to_where_it_began():
    graph = {}
    for module, file in MODULES.items():
        names = set(imported(tree(file), top_level=True))
        # `from a import b` needs a unless b is a module of its own
        whole = {name for name in names if name in MODULES and not any(n.startswith(f"{name}.") for n in names)}
        attributes = {n.rpartition(".")[0] for n in names if n not in MODULES and n.rpartition(".")[0] in MODULES}
        graph[module] = (whole | attributes) - {module}
    try:
        order = list(TopologicalSorter(graph).static_order())
    except CycleError as error:
        pytest.fail(f"a cycle of imports: {' → '.join(error.args[1])}")
    assert len(order) == len(MODULES)


@pytest.mark.parametrize("part", ["report", "evaluation", "tracking"])
def test_numbers_and_pages_need_no_machinery(part):
    for module, file in MODULES.items():
        if part_of(module) == part:
            assert not {name.split(".")[0] for name in imported(tree(file))} & HEAVY, module
    loaded = f"import sys, sdpo.{part}; print(*({HEAVY!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", loaded], capture_output=True, text=True, cwd=PROJECT, check=True)
    assert done.stdout.split() == []


def test_the_sandbox_knows_nothing_of_training_and_stays_with_the_code_environment():
    """The reader of rows takes from it what a file is by its first bytes."""
    assert importers("sdpo", sorted((PROJECT / "sandbox").rglob("*.py"))) == set()
    users = importers("sandbox", FILES)
    assert {user for user in users if not user.startswith("sdpo/envs/code/")} <= {
        "sdpo/cli/doctor.py",
        "sdpo/__init__.py",
        "sdpo/envs/rows/files.py",
    }


def test_the_package_is_without_its_studies_tests_and_benchmarks():
    for outside in ("studies", "tests", "benchmarks"):
        assert importers(outside, FILES) == set()


def test_the_sandbox_is_there_by_a_lazy_name():
    script = (
        "import sys, sdpo; before = set(sys.modules); found = sdpo.Sandbox;"
        "print('sandbox' in before, found.__module__.split('.')[0], 'Sandbox' in dir(sdpo), 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=PROJECT, check=True)
    assert done.stdout.split() == ["False", "sandbox", "True", "False"]
    import sdpo

    with pytest.raises(AttributeError, match="no attribute 'Sandbocks'"):
        sdpo.Sandbocks  # noqa: B018


def constants(file: Path) -> Iterator[tuple[int, str]]:
    for node in ast.walk(tree(file)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.lineno, node.value


def named(files: list[Path]) -> list[str]:
    """Where the names of algorithms stand as strings; that of the default is the package's own, too."""
    names = set(ALGORITHMS) - {DEFAULT_ALGORITHM}
    found = []
    for file in files:
        own = file.stem if file.parent.name == "algorithms" else None
        place = file.relative_to(PROJECT)
        found += [f"{place}:{line}: {text}" for line, text in constants(file) if text in names - {own}]
    return found


def test_algorithms_are_named_in_their_own_file_and_in_one_list():
    registry = PROJECT / "sdpo" / "config" / "registry.py"
    assert named([file for file in FILES if file != registry]) == []


def test_nothing_is_decided_by_comparing_with_an_algorithms_name():
    for file in FILES:
        for node in ast.walk(tree(file)):
            if isinstance(node, ast.Compare | ast.MatchValue):
                compared = {n.value for n in ast.walk(node) if isinstance(n, ast.Constant) and isinstance(n.value, str)}
                assert not compared & set(ALGORITHMS), f"{file.relative_to(PROJECT)}:{node.lineno}"


def test_files_are_short_and_few_lie_at_the_top():
    assert len([file for file in FILES if file.parent.name == "sdpo"]) <= 3
    long = {str(f.relative_to(PROJECT)): n for f in FILES if (n := len(f.read_text().splitlines())) > 400}
    assert not long


def test_the_core_is_at_least_twice_the_rest():
    lines = {True: 0, False: 0}
    for module, file in MODULES.items():
        lines[part_of(module) in CORE] += len(file.read_text().splitlines())
    assert lines[True] >= 2 * lines[False], lines
