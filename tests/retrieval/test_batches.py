import numpy as np
import pytest

from asyncval.retrieval.batches import pad, plan_batches, round_up


def plan(lengths, **limits):
    return [batch.rows.tolist() for batch in plan_batches(np.array(lengths), **limits)]


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("max_texts", [None, 1, 5])
def test_every_text_is_in_one_batch_and_no_batch_is_above_its_limits(seed, max_texts):
    lengths = np.random.default_rng(seed).integers(0, 50, size=200)
    batches = plan(lengths, max_tokens=120, max_texts=max_texts)
    assert sorted(row for rows in batches for row in rows) == list(range(200))
    for rows in batches:
        assert len(rows) * max(lengths[rows]) <= 120
        assert len(rows) <= (max_texts or 200)


def test_the_longest_texts_come_first_and_equal_ones_in_their_order():
    assert plan([3, 9, 3, 5, 9], max_tokens=18) == [[1, 4], [3, 0, 2]]


def test_a_batch_that_is_half_full_ends_where_texts_are_shorter():
    assert plan([8, 8, 8, 7, 7, 7, 7], max_tokens=32) == [[0, 1, 2], [3, 4, 5, 6]]
    assert plan([8, 8, 7, 7, 7], max_tokens=32) == [[0, 1], [2, 3, 4]]
    assert plan([8, 7, 7, 7, 7], max_tokens=32) == [[0, 1, 2, 3], [4]]


@pytest.mark.parametrize("seed", range(5))
def test_only_batches_of_several_lengths_are_padded(seed):
    lengths = np.random.default_rng(seed).integers(5, 60, size=300)
    batches = list(plan_batches(lengths, max_tokens=500))
    for batch in batches:
        assert batch.width == lengths[batch.rows].max()
        assert batch.is_padded == (len(set(lengths[batch.rows])) > 1)
    assert {batch.is_padded for batch in batches} == {True, False}


def test_a_large_corpus_is_hardly_padded():
    lengths = np.random.default_rng(1).integers(10, 120, size=65536)
    batches = list(plan_batches(lengths, max_tokens=2048))
    padded = sum(len(batch.rows) * batch.width for batch in batches)
    assert padded / lengths.sum() < 1.002


@pytest.mark.parametrize("seed", range(5))
def test_the_texts_of_some_batches_are_put_into_the_same_batches(seed):
    lengths = np.random.default_rng(seed).integers(5, 60, size=500)
    batches = list(plan_batches(lengths, max_tokens=300, widths=round_up(lengths, 4)))
    for step in (2, 3, 7):
        some = batches[seed % step :: step]
        rows = np.concatenate([batch.rows for batch in some])
        again = plan_batches(lengths[rows], max_tokens=300, widths=round_up(lengths[rows], 4))
        for batch, expected in zip(again, some, strict=True):
            assert rows[batch.rows].tolist() == expected.rows.tolist()
            assert batch.width == expected.width


def test_lengths_are_rounded_up_but_not_beyond_what_the_model_takes():
    lengths = np.array([1, 16, 17, 33, 40])
    assert round_up(lengths, 16).tolist() == [16, 16, 32, 48, 48]
    assert round_up(lengths, 16, longest=40).tolist() == [16, 16, 32, 40, 40]
    assert round_up(lengths, 16, longest=35).tolist() == [16, 16, 32, 35, 40]
    assert round_up(lengths, 1).tolist() == lengths.tolist()
    [batch] = plan_batches(np.array([5, 5]), max_tokens=100, widths=np.array([16, 16]))
    assert batch.width == 16
    assert batch.is_padded


def test_a_text_above_the_budget_is_a_batch_of_its_own():
    assert plan([5, 500, 2], max_tokens=15) == [[1], [0, 2]]


def test_a_batch_is_filled_before_the_next_begins():
    assert [len(rows) for rows in plan([4] * 10, max_tokens=12)] == [3, 3, 3, 1]


def test_without_texts_there_is_no_batch():
    assert plan([], max_tokens=10) == []


def test_texts_are_padded_on_the_right_to_the_longest():
    offsets = np.array([0, 2, 2, 5])
    ids, mask = pad(
        np.array([7, 8, 4, 5, 6], dtype=np.uint16), offsets, np.array([2, 0, 1]), width=3
    )
    assert ids.tolist() == [[4, 5, 6], [7, 8, 0], [0, 0, 0]]
    assert mask.tolist() == [[1, 1, 1], [1, 1, 0], [0, 0, 0]]
    assert ids.dtype == np.int64
