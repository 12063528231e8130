"""The driver's side of a teacher of its own: what is asked once, what is kept, and what happens when a rank is lost."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from ray.exceptions import RayActorError

from sdpo.algorithms import build_algorithm
from sdpo.errors import PartFailed, UserError
from sdpo.learner.answers import Answers
from sdpo.learner.rows import loss_weighted_rows
from sdpo.learner.scorer import Scorer
from sdpo.learner.teacher_pool import TeacherPool, key_of, pieces
from sdpo.learner.teacher_rank import TeacherRank
from sdpo.supervision.part import Part
from tests.learner.tiny import recipe, samples

OWN = ("teacher.placement=own", "teacher.rate=0.3")
BLEND = ("distillation.blend={largest: 0.5, beta: 10}",)


class RankHere:
    """A `TeacherRank` of this process, called as its actor is; `dead` from some call on."""

    def __init__(self, settings, name: str, scorer: Scorer) -> None:
        self.rank = TeacherRank.__new__(TeacherRank)
        self.rank.recipe, self.rank.name, self.rank.scorer = settings, name, scorer
        self.rank.version, self.rank.busy_seconds = 0, 0.0
        self.asked, self.dies_at = [], 10**9

    def _score(self, count: int):
        def remote(pairs, version):
            self.asked.append(list(pairs))

            async def scored():
                await asyncio.sleep(0)
                if len(self.asked) >= self.dies_at:
                    raise RayActorError
                found = self.rank.score(pairs, version)
                assert len(found) == count
                return found

            task = asyncio.ensure_future(scored())

            async def one(number):
                return (await task)[number]

            return [asyncio.ensure_future(one(number)) for number in range(count)]

        return SimpleNamespace(remote=remote)

    @property
    def score(self):
        return SimpleNamespace(options=lambda num_returns: self._score(num_returns))


class PoolHere(TeacherPool):
    def __init__(self, settings) -> None:
        self.scorer = Scorer(settings)
        super().__init__(settings, {})

    def _rank(self, index):
        part = Part(f"teacher rank {index}", self._longest)
        return RankHere(self.recipe, part.name, self.scorer), part

    async def _started(self, place) -> None:
        pass

    async def _kill(self, place) -> None:
        pass


class Permitted:
    """What a trainer does for a rank that was lost."""

    def __init__(self, pool: PoolHere, most: int = 9) -> None:
        self.pool, self.most, self.causes = pool, most, []

    def permit(self, failure: PartFailed) -> None:
        self.causes.append(failure.cause)
        if len(self.causes) > self.most:
            raise UserError("too often")

    async def give_weights(self, rank: RankHere) -> None:
        rank.rank.version = self.pool.version


def pairs_of(batch):
    return [
        (np.array(s.teacher.prompt_ids), np.array(s.response_ids)) for s in batch if s.teacher is not None
    ]  # fmt: skip


@pytest.fixture
def pool(model):
    return PoolHere(recipe(model, "sdpo", *OWN, "teacher.ranks=2", "learner.micro_batch_tokens=40"))


def asked(pool):
    return [key_of(*pair) for place in pool._places for call in place.handle.asked for pair in call]


async def test_every_pair_is_scored_once_and_by_all_ranks(pool):
    pairs = pairs_of(samples(20))
    await pool.ask(pairs[:6])
    await asyncio.gather(pool.ask(pairs), pool.ask(pairs[3:]))
    assert sorted(asked(pool)) == sorted({key_of(*pair) for pair in pairs})
    assert all(place.handle.asked and place.load == 0 for place in pool._places)
    for prompt, response in pairs:
        [alone] = pool.scorer.score([(prompt, response)])
        found = await pool.answer(prompt, response)
        assert found.shape == (len(response), 32)
        np.testing.assert_allclose(found, alone, atol=1e-5)


async def test_what_belongs_to_a_later_batch_outlives_an_earlier_one(pool):
    now, later = pairs_of(samples(4)), pairs_of(samples(4, seed=1))
    await pool.ask(now, step=1)
    await pool.ask(later, step=2)
    await pool.ask(later[:1])  # an update asks for what it needs, whatever the batch
    before = len(asked(pool))
    pool.forget(1)
    await pool.ask(later, step=2)
    assert len(asked(pool)) == before
    await pool.ask(now, step=3)
    assert len(asked(pool)) == before + len(now)
    pool.forget()
    assert not pool._answers and not pool._steps


async def test_a_lost_rank_is_replaced_and_its_work_done_by_any(pool):
    recovery = Permitted(pool)
    pool.supervise(recovery)
    first = pool._places[0].handle
    first.dies_at = 1
    pairs = pairs_of(samples(20))
    await pool.ask(pairs)
    assert recovery.causes and "process died" in recovery.causes[0]
    while pool._places[0].replacing is not None:
        await asyncio.sleep(0.01)
    assert pool._places[0].handle is not first and pool.parts[0].failure is None
    for prompt, response in pairs:
        assert len(await pool.answer(prompt, response)) == len(response)
    assert pool._places[0].load == 0


async def test_a_rank_with_other_weights_is_not_believed(pool):
    recovery = Permitted(pool)
    pool.supervise(recovery)
    pool.version = 3
    pool._places[1].handle.rank.version = 3
    await pool.ask(pairs_of(samples(12)))
    assert set(recovery.causes) == {"it holds version 0 of its weights instead of 3"}


async def test_a_rank_that_is_lost_again_and_again_ends_what_waits_for_it(pool):
    pool.supervise(Permitted(pool, most=1))
    pool.version = 1
    for place in pool._places:
        place.handle.rank.version = 0
    with pytest.raises(UserError, match="too often"):
        await pool.ask(pairs_of(samples(12)))


async def test_without_supervision_a_loss_is_an_error(pool):
    pool._places[0].handle.dies_at = pool._places[1].handle.dies_at = 1
    with pytest.raises(PartFailed, match="teacher rank .: its process died"):
        await pool.ask(pairs_of(samples(4)))


@pytest.mark.parametrize("more", [(), BLEND], ids=["plain", "blend"])
async def test_rows_get_what_was_foreseen_of_their_samples(model, more):
    settings = recipe(model, "sdpo", *OWN, *more)
    pool, plan, batch = PoolHere(settings), build_algorithm(settings).plan, samples(7)
    answers = Answers(pool, plan)
    await pool.ask(answers.foreseen(batch), step=1)
    before = asked(pool)
    rows = await answers.given(loss_weighted_rows(batch, plan, 16))
    assert asked(pool) == before and answers.waited >= 0
    for row, sample in zip(rows, batch, strict=True):
        assert (row.told is None) == (sample.teacher is None)
        if sample.teacher is not None:
            told, untold = (
                pool.scorer.score([(p, row.response_ids)])[0] for p in (row.teacher_prompt_ids, row.prompt_ids)
            )
            np.testing.assert_allclose(await row.told, told, atol=1e-5)
            assert (row.untold is not None) == bool(more)
            if more:
                np.testing.assert_allclose(await row.untold, untold, atol=1e-5)


def test_pieces_hold_every_pair_once_and_about_the_same(model):
    pairs = pairs_of(samples(40))
    tokens = sum(len(prompt) + len(response) for prompt, response in pairs)
    for ranks, least in ((1, 10), (3, 10), (3, 10**6), (64, 1)):
        cut = pieces(pairs, least, ranks)
        assert sorted(key_of(*p) for piece in cut for p in piece) == sorted(key_of(*p) for p in pairs)
        assert len(cut) <= max(1, ranks) and (least < tokens or len(cut) == 1)
    assert pieces([], 10, 2) == []


def test_a_key_says_where_the_response_begins():
    a, b = np.array([1, 2, 3]), np.array([4])
    assert key_of(a, b) == key_of(a.copy(), b) != key_of(a[:2], np.array([3, 4]))


def test_bf16_arrays_come_back_bit_for_bit():
    from sdpo.weights.arrays import as_array, as_tensor

    for dtype in (torch.bfloat16, torch.float32, torch.float16, torch.int64):
        tensor = (torch.randn(7, 5) * 100).to(dtype)
        assert torch.equal(as_tensor(as_array(tensor), dtype), tensor)
