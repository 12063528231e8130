"""What an algorithm says of one group, before the others are there, is what it makes of it in the whole batch."""

from __future__ import annotations

import numpy as np
import pytest

from sdpo.algorithms import build_algorithm
from sdpo.algorithms.base import PerGroup
from sdpo.config.files import find_recipe, load_recipe
from sdpo.config.registry import ALGORITHMS
from tests.helpers.prompts import builder
from tests.helpers.tasks import group, problem

PASSED = ([True, False, True, True], [False, True, True, False], [True, True, True, False])
GROUPS = [group(row, task=problem(f"Add {i} numbers.", f"p{i}")) for i, row in enumerate(PASSED)]


def teachers(samples):
    return [None if s.teacher is None else (s.teacher.prompt_ids, s.teacher.contrasts) for s in samples]


def built(name):
    return build_algorithm(load_recipe(find_recipe("livecodebench", name), "cpu", ()))


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("name", ["sdpo", "sc-sdpo", "srpo", "rlcsd"])
def test_a_group_is_foreseen_whatever_the_order(tokenizer, name, seed):
    algorithm, rng = built(name), np.random.default_rng(seed)
    foreseen = {i: algorithm.foreseen(GROUPS[i], i, builder(tokenizer), rng) for i in (2, 0, 1)}
    assigned = algorithm.assign(GROUPS, builder(tokenizer), rng)
    assert [teachers(foreseen[i]) for i in range(3)] == [teachers(samples) for samples in assigned]
    assert any(teacher is not None for samples in assigned for teacher in teachers(samples))
    later = algorithm.assign(GROUPS, builder(tokenizer), rng)
    assert [teachers(a) for a in later] != [teachers(a) for a in assigned]  # other draws in the next batch


def test_an_algorithm_that_needs_the_batch_foresees_nothing(tokenizer):
    algorithm = built("drift")
    before = algorithm.state_dict()
    assert algorithm.foreseen(GROUPS[0], 0, builder(tokenizer), np.random.default_rng(0)) == []
    assert algorithm.state_dict() == before


@pytest.mark.parametrize("name", ALGORITHMS)
def test_an_algorithm_that_looks_at_one_group_at_a_time_remembers_nothing(tokenizer, name):
    """It may be asked before its turn, and more than once."""
    algorithm = built(name)
    if isinstance(algorithm, PerGroup):
        before = repr(vars(algorithm))
        algorithm.foreseen(GROUPS[0], 0, builder(tokenizer), np.random.default_rng(0))
        assert repr(vars(algorithm)) == before
