import random

import numpy as np
import pytest

from asyncval.core.errors import InvalidData, InvalidOption
from asyncval.core.sampling import (
    Rankings,
    Reservoir,
    Wanted,
    fitting_depth,
    judged_passages,
    share_out,
)
from asyncval.core.types import Retrieved


def scored(query_id, passage_id, score):
    return Retrieved(query_id=query_id, passage_id=passage_id, rank=None, score=score)


def ranked(query_id, passage_id, rank):
    return Retrieved(query_id=query_id, passage_id=passage_id, rank=rank, score=None)


def best(lines, depth):
    return sorted(Rankings(lines, depth=depth).passages(1, depth))


def test_a_scored_run_is_ordered_by_score_and_not_by_line():
    lines = [scored("1", "c", 0.1), scored("1", "a", 0.9), scored("1", "b", 0.5)]
    assert best(lines, 2) == ["a", "b"]


def test_a_tie_at_the_cut_is_resolved_by_id_downwards():
    lines = [scored("1", "10", 0.5), scored("1", "9", 0.5), scored("1", "8", 0.5)]
    assert best(lines, 2) == ["8", "9"]


def test_scores_are_compared_as_float32():
    assert best([scored("1", "a", 1.0 + 1e-9), scored("1", "b", 1.0)], 1) == ["b"]


def test_a_ranked_run_is_taken_by_rank_also_where_ranks_are_missing():
    lines = [ranked("1", "x", 3), ranked("1", "y", 1), ranked("2", "z", 2)]
    assert best(lines, 2) == ["y", "z"]
    assert Rankings(lines).deepest == 3


def test_the_depth_counts_for_every_query_apart():
    lines = [scored("1", "a", 3), scored("2", "b", 1), scored("1", "c", 2), scored("2", "d", 0)]
    assert best(lines, 1) == ["a", "b"]


def test_some_ranks_of_a_ranking_are_those_from_the_first_to_the_last():
    lines = [scored("1", name, score) for name, score in zip("abcde", (5, 4, 3, 2, 1), strict=True)]
    assert list(Rankings(lines).passages(2, 4)) == ["b", "c", "d"]
    assert list(Rankings(lines).passages(5, 100)) == ["e"]
    assert Rankings(lines).deepest == 5
    assert Rankings(lines, depth=2).deepest == 2


def test_a_run_without_lines_has_no_passages():
    assert Rankings([]).deepest == 0
    assert best([], 10) == []


@pytest.mark.parametrize("seed", range(10))
def test_long_runs_in_any_order_give_what_sorting_them_gives(seed):
    draw = random.Random(seed)
    lines = [
        scored(f"q{query}", f"d{passage}", draw.choice([0.1, 0.2, 0.3, draw.random()]))
        for query in range(4)
        for passage in draw.sample(range(500), 90)
    ]
    if seed % 2:
        draw.shuffle(lines)
    rankings: dict[str, list[tuple[np.float32, str]]] = {}
    for line in lines:
        rankings.setdefault(line.query_id, []).append((np.float32(line.score), line.passage_id))
    expected = [p for hits in rankings.values() for _, p in sorted(hits, reverse=True)[:7]]
    assert best(lines, 7) == sorted(expected)


@pytest.mark.parametrize("make", [scored, ranked])
def test_a_query_that_has_a_passage_twice_is_refused_with_both_names(make):
    with pytest.raises(InvalidData, match="query '1' has the passage 'a' twice"):
        Rankings([make("1", "a", 1), make("1", "b", 2), make("1", "a", 3)])


def test_judged_passages_are_those_that_are_relevant_or_those_that_are_not():
    judgements = [{"1": {"a": 1, "b": 0}}, {"2": {"c": -1, "d": 3}}]
    assert list(judged_passages(judgements, relevant=True)) == ["a", "d"]
    assert list(judged_passages(judgements, relevant=False)) == ["b", "c"]


def test_what_is_wanted_knows_its_sources_and_what_was_found():
    wanted = Wanted()
    wanted.add(["a", "b"], source="run")
    wanted.add(["b", "c"], source="qrels")
    wanted.add([], source="nothing")
    assert len(wanted) == 3
    assert "a" in wanted
    assert "d" not in wanted
    assert [wanted.find(each) for each in ("b", "a", "b")] == [True, True, False]
    assert wanted.missing() == ["c"]
    assert wanted.counts() == {"run": (2, 2), "qrels": (2, 1), "nothing": (0, 0)}


def drawn(reservoir, stream):
    places = {}
    for each in stream:
        place = reservoir.offer()
        if place is not None:
            places[place] = each
    return sorted(places.values())


def test_a_reservoir_draws_so_many_from_a_stream_and_the_same_with_the_same_seed():
    first = drawn(Reservoir(20, seed=1), range(1000))
    assert len(set(first)) == 20
    assert drawn(Reservoir(20, seed=1), range(1000)) == first
    assert drawn(Reservoir(20, seed=2), range(1000)) != first


def test_a_reservoir_takes_all_of_a_stream_that_is_short():
    assert drawn(Reservoir(20, seed=1), range(7)) == list(range(7))
    assert drawn(Reservoir(0, seed=1), range(7)) == []


def test_every_passage_of_a_stream_is_drawn_equally_often():
    counts = np.zeros(20)
    for seed in range(3000):
        counts[drawn(Reservoir(5, seed=seed), range(20))] += 1
    assert np.abs(counts / 3000 - 0.25).max() < 0.05  # six standard deviations


def test_the_depth_that_fits_a_budget_is_the_largest_that_does():
    lines = [scored(f"q{q}", f"d{q * 10 + i}", -i) for q in range(3) for i in range(10)]
    rankings = [Rankings(lines)]
    wanted = Wanted()
    wanted.add(["d0", "other"], source="qrels")
    sizes = {depth: len({*rankings[0].passages(1, depth), "d0", "other"}) for depth in range(1, 11)}
    for budget in range(sizes[1], sizes[10] + 5):
        depth = fitting_depth(rankings, wanted=wanted, num_passages=budget)
        assert sizes[depth] <= budget
        assert depth == 10 or sizes[depth + 1] > budget


def test_a_budget_that_not_even_the_first_of_each_ranking_fit_is_refused():
    wanted = Wanted()
    wanted.add(["a"], source="qrels")
    with pytest.raises(InvalidOption, match="1 passages are judged, and depth 1 makes that 3"):
        fitting_depth(
            [Rankings([ranked("1", "b", 1), ranked("2", "c", 1)])], wanted=wanted, num_passages=2
        )


@pytest.mark.parametrize(
    ("total", "parts", "sizes"),
    [(10, 3, [4, 3, 3]), (6, 3, [2, 2, 2]), (2, 3, [1, 1, 0]), (5, 1, [5])],
)
def test_passages_are_shared_out_evenly_the_first_parts_getting_one_more(total, parts, sizes):
    assert list(share_out(total, parts)) == sizes
