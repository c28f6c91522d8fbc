import numpy as np
import pytest

from asyncval.retrieval.batches import pad, plan_batches


def plan(lengths, **limits):
    return [rows.tolist() for rows in plan_batches(np.array(lengths), **limits)]


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


def test_a_text_above_the_budget_is_a_batch_of_its_own():
    assert plan([5, 500, 2], max_tokens=10) == [[1], [0, 2]]


def test_a_batch_is_filled_before_the_next_begins():
    assert [len(rows) for rows in plan([4] * 10, max_tokens=12)] == [3, 3, 3, 1]


def test_without_texts_there_is_no_batch():
    assert plan([], max_tokens=10) == []


def test_texts_are_padded_on_the_right_to_the_longest():
    offsets = np.array([0, 2, 2, 5])
    ids, mask = pad(np.array([7, 8, 4, 5, 6], dtype=np.uint16), offsets, np.array([2, 0, 1]))
    assert ids.tolist() == [[4, 5, 6], [7, 8, 0], [0, 0, 0]]
    assert mask.tolist() == [[1, 1, 1], [1, 1, 0], [0, 0, 0]]
    assert ids.dtype == mask.dtype == np.int64
