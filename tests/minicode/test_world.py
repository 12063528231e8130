"""Worlds: reproducible, complete, composed of fresh words, with tests that tell the alternatives apart."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace

import pytest
from rich.console import Console

from sandbox import Job, Sandbox
from sdpo.cli import main
from sdpo.config.files import find_recipe, load_recipe
from sdpo.envs import build_environment
from sdpo.envs.minicode import LISTS, TEXTS, load_minicode, make_world, show_problems, write_world
from sdpo.envs.minicode.family import KNOWN_WORDS
from sdpo.envs.minicode.operations import AGGREGATE, MAP
from sdpo.envs.minicode.rows import world_rows
from sdpo.envs.minicode.world import LIBRARY, hard_world
from sdpo.envs.words import PRETRAINING, WORLD, half_of
from studies.pretrain.code_corpus import random_task
from studies.pretrain.shortcut import judge
from studies.pretrain.worlds import CORPORA


@pytest.fixture(scope="module")
def dataset():
    return load_minicode(5)


def test_same_seed_same_bytes_other_seed_other_world(tmp_path):
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        write_world(tmp_path / name, seed=seed)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert (tmp_path / "a").read_bytes() != (tmp_path / "c").read_bytes()


@pytest.mark.parametrize("seed", range(20))
def test_composition_of_a_world(seed):
    world = make_world(seed)
    assert (len(world.train), len(world.held_out)) == (64, 32)
    words = [slot.word for kind in (AGGREGATE, MAP, LIBRARY) for slot in world.vocabulary[kind]]
    assert len(set(words)) == 24
    assert all(half_of(word) == WORLD and word not in KNOWN_WORDS for word in words)
    for kind in (AGGREGATE, MAP):
        assert len({slot.meaning.name for slot in world.vocabulary[kind]}) == 8
    assert Counter(t.difficulty for t in world.train) == {"easy": 28, "medium": 22, "hard": 14}
    assert Counter(t.difficulty for t in world.held_out) == {"medium": 16, "hard": 16}
    trained = {slot.word for task in world.train for slot in task.slots}
    assert {slot.word for task in world.held_out for slot in task.slots if not slot.known} <= trained
    pairs = Counter((t.map.word, t.aggregate.word) for t in world.train + world.held_out if len(t.slots) == 2)
    assert set(pairs.values()) == {1}, "a held-out composition was trained on"
    both = [t for t in world.train + world.held_out if t.unknown == 2]
    assert not any(t.kit for t in both)


def test_loader_reads_a_world(dataset):
    assert (len(dataset.train), len(dataset.evaluation)) == (64, 32)
    assert not dataset.report.bad_rows and not dataset.report.left_out
    assert {p.difficulty for p in dataset.train} == {"easy", "medium", "hard"}
    assert sum(p.functional for p in dataset.train) == 4
    assert any("kit.py" in p.files for p in dataset.train)
    for problem in dataset.train + dataset.evaluation:
        assert len(problem.training_tests) >= 4 and len(problem.evaluation_tests) >= 4
        assert not set(problem.training_tests) & set(problem.evaluation_tests)


def test_reference_programs_pass_in_the_sandbox(dataset):
    problems = dataset.train + dataset.evaluation
    with Sandbox() as sandbox:
        jobs = [Job(p.solution, p.training_tests + p.evaluation_tests, p.limits, p.files) for p in problems]
        assert all(judgement.passed for judgement in sandbox.judge_many(jobs))


def test_each_half_of_the_tests_refutes_every_other_meaning(dataset):
    world = make_world(5)
    tasks = {f"minicode-5-train-{k:03d}": t for k, t in enumerate(world.train)}
    tasks |= {f"minicode-5-heldout-{k:03d}": t for k, t in enumerate(world.held_out)}
    survivors, count = [], 0
    for problem in dataset.train + dataset.evaluation:
        task = tasks[problem.id]
        assert problem.statement == task.statement and problem.solution == task.program
        for tests in (problem.training_tests, problem.evaluation_tests):
            for program in _rival_programs(task):
                count += 1
                if all(judge(program, test, problem.files).passed for test in tests):
                    survivors.append((task.statement, task.program, program))
    # After a known map such as "sorted", two meanings can be one and the same ("first" is then "min"); no others may.
    assert count > 1000
    assert len(survivors) <= 0.02 * count, survivors


def _rival_programs(task):
    for name in ("map", "aggregate"):
        slot = getattr(task, name)
        if slot is None or (name == "aggregate" and task.kit):
            continue
        for meaning in task.family.operations[name]:
            if meaning is not slot.meaning:
                yield replace(task, **{name: replace(slot, meaning=meaning)}).program


def test_texts_family_loads(tmp_path):
    dataset = load_minicode(1, family=TEXTS)
    assert (len(dataset.train), len(dataset.evaluation)) == (27, 12)
    with Sandbox() as sandbox:
        for problem in dataset.train[:12]:
            assert sandbox.judge(problem.solution, problem.evaluation_tests).passed


def test_families_share_no_word():
    assert not LISTS.known_words & TEXTS.known_words


def test_corpus_uses_pretraining_words_only_and_repeats():
    rng = random.Random(1)
    for _ in range(500):
        for slot in random_task(rng).slots:
            assert slot.known == (slot.word in KNOWN_WORDS)
            assert slot.known or half_of(slot.word) == PRETRAINING
    assert list(CORPORA["minicode"].examples(7, 50)) == list(CORPORA["minicode"].examples(7, 50))
    assert list(CORPORA["minicode"].examples(7, 50)) != list(CORPORA["minicode"].examples(8, 50))


def test_show_problems_prints_statement_tests_and_program():
    console = Console(record=True, width=100, file=open("/dev/null", "w"))  # noqa: SIM115
    show_problems(3, 2, console=console)
    text = console.export_text()
    rows = [row for row in world_rows(make_world(2)) if row.question_id in text]
    assert len(rows) == 3
    for row in rows:
        assert row.content in text and row.public_tests[0].input in text and row.solution.split("\n")[-1] in text


def test_problems_that_are_written_load_with_datasets_and_as_rows_of_a_recipe(tmp_path, capsys):
    import datasets

    out = tmp_path / "world.jsonl"
    assert main(["tasks", "show", "minicode", "--seed", "2", "--out", str(out)]) == 0
    assert f"data.path={out}" in capsys.readouterr().out
    found = datasets.load_dataset("json", data_files=str(out), split="train", cache_dir=str(tmp_path / "cache"))
    assert list(found["question_id"]) == [row.question_id for row in world_rows(make_world(2))]
    assert [name for name, feature in found.features.items() if feature.dtype != "string"] == ["contest_date"]
    code = ["environment.kind=code", "data.source=null", f"data.path={out}"]
    tasks = build_environment(load_recipe(find_recipe("livecodebench", "sdpo"), "cpu", code)).load()
    assert {task.id for task in (*tasks.train, *tasks.evaluation)} == set(found["question_id"])


def test_hard_problems_are_all_pairs_of_a_worlds_unknown_words():
    world, usual = hard_world(5), make_world(5)
    assert world.vocabulary == usual.vocabulary
    pairs = {(a.word, b.word) for a in usual.vocabulary[MAP] for b in usual.vocabulary[AGGREGATE]}
    for tasks, conditioned in ((world.train, False), (world.held_out, True)):
        assert len(tasks) == 64 and {tuple(slot.word for slot in task.slots) for task in tasks} == pairs
        assert all((task.condition is not None) == conditioned for task in tasks)
    found = load_minicode(5, hard=True)
    assert (len(found.train), len(found.evaluation)) == (64, 64)
    assert not {p.id for p in found.train} & {p.id for p in load_minicode(5).train}
