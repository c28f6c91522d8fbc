"""What the numbers of a fidelity report mean, on scores whose answer is known."""

import numpy as np
import pytest

from asyncval.core.fidelity import cost_ratio, fidelity

DRAW = np.random.default_rng(3)
QUERIES = DRAW.random(40)


def scores(*levels):
    """Return [C, Q] scores whose means are apart by the levels."""
    return np.array(levels)[:, None] + QUERIES


def compare(subset, full, **options):
    return fidelity(subset, full, **({"num_resamples": 200, "seed": 1} | options))


def values(estimate):
    return estimate.value, estimate.low, estimate.high


def test_a_subset_that_scores_all_alike_higher_orders_as_the_full_corpus_does():
    full = scores(0.1, 0.3, 0.2, 0.25)
    found = compare(full + 0.1, full)
    assert values(found.tau) == pytest.approx((1, 1, 1))
    assert values(found.spearman) == pytest.approx((1, 1, 1))
    assert (found.same_best, found.same_best_share) == (True, 1)
    assert values(found.regret) == (0, 0, 0)
    assert values(found.inflation) == pytest.approx((0.1, 0.1, 0.1))
    assert values(found.slope) == pytest.approx((1, 1, 1))


def test_a_reversed_order_costs_the_whole_range():
    full = scores(0.1, 0.2, 0.4)
    found = compare(-full, full)
    assert found.tau.value == pytest.approx(-1)
    assert found.slope.value == pytest.approx(-1)
    assert not found.same_best
    assert found.regret.value == pytest.approx(0.3)


def test_one_swapped_pair_of_four_gives_the_tau_of_the_textbook():
    full = scores(1, 2, 3, 4)
    subset = scores(1, 2, 4, 3)
    found = compare(subset, full)
    assert found.tau.value == pytest.approx(4 / 6)
    assert found.spearman.value == pytest.approx(0.8)
    assert found.regret.value == pytest.approx(1)


def test_half_the_differences_is_a_slope_of_a_half():
    full = scores(0.0, 0.2, 0.4)
    assert compare(0.5 * full, full).slope.value == pytest.approx(0.5)


def test_of_equals_the_earliest_is_the_best_on_both_sides():
    full = scores(0.1, 0.3, 0.3)
    found = compare(scores(0.1, 0.2, 0.2), full)
    assert found.same_best
    assert found.regret.value == 0


def test_an_order_of_equals_is_undefined_and_not_a_number_that_looks_like_one():
    found = compare(scores(0.2, 0.2, 0.2), scores(0.1, 0.2, 0.3))
    assert values(found.tau) == (None, None, None)
    assert values(found.spearman) == (None, None, None)
    assert found.slope.value == pytest.approx(0)
    assert compare(scores(0.1, 0.2, 0.3), scores(0.2, 0.2, 0.2)).slope.value is None


def test_intervals_are_those_of_a_plain_loop_over_resampled_queries():
    full = DRAW.random((6, 40))
    subset = full + 0.3 * DRAW.random((6, 40))
    found = compare(subset, full, num_resamples=4000)
    rows = np.random.default_rng(0).integers(40, size=(4000, 40))
    inflations = [(subset[:, row] - full[:, row]).mean() for row in rows]
    expected = np.quantile(inflations, [0.025, 0.975])
    assert (found.inflation.low, found.inflation.high) == pytest.approx(expected, abs=0.003)


def test_the_same_seed_gives_the_same_intervals():
    full, subset = DRAW.random((5, 30)), DRAW.random((5, 30))
    assert compare(subset, full) == compare(subset, full)
    assert compare(subset, full) != compare(subset, full, seed=2)


def test_more_queries_make_an_interval_narrower():
    full = DRAW.random((5, 2000))
    subset = full + DRAW.random((5, 2000))
    few, many = compare(subset[:, :20], full[:, :20]), compare(subset, full)
    assert many.inflation.high - many.inflation.low < few.inflation.high - few.inflation.low


def test_a_single_query_has_values_and_intervals_of_no_width():
    found = compare(scores(1, 2, 3)[:, :1], scores(1, 3, 2)[:, :1])
    assert values(found.tau) == pytest.approx((1 / 3,) * 3)


@pytest.mark.parametrize("shape", [(2, 5), (3, 0)])
def test_too_little_to_compare_is_refused(shape):
    with pytest.raises(ValueError, match="shapes"):
        compare(np.zeros(shape), np.zeros(shape))
    with pytest.raises(ValueError, match="shapes"):
        compare(np.zeros((3, 5)), np.zeros((3, 4)))


def test_a_cost_ratio_is_that_of_the_medians_so_that_one_slow_start_does_not_count():
    subset = {str(i): 2.0 for i in range(9)} | {"first": 50.0}
    full = {str(i): 10.0 for i in range(9)} | {"first": 60.0}
    found = cost_ratio(subset, full, num_resamples=200, seed=0)
    assert values(found) == pytest.approx((5, 5, 5))


def test_a_cost_ratio_of_no_time_is_undefined():
    times = {"a": 0.0, "b": 0.0, "c": 0.0}
    assert cost_ratio(times, times, num_resamples=10, seed=0).value is None
