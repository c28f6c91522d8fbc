import numpy as np
import pytest

from asyncval.core.ranking import PAD, in_trec_order
from asyncval.retrieval import search as search_module
from asyncval.retrieval.search import TopK


def make_vectors(number, seed, *, dimension=16):
    return np.random.default_rng(seed).normal(size=(number, dimension)).astype(np.float32)


def search(queries, passages, *, depth, portions=1, **options):
    top = TopK(queries, depth=depth, **options)
    first = 0
    for portion in np.array_split(passages, portions):
        top.add(portion, first=first)
        first += len(portion)
    ids = [f"{number:06}" for number in range(len(passages))]
    return in_trec_order(*top.answers(), passage_ids=ids, depth=depth)


def expected(queries, passages, depth):
    scores = queries.astype(np.float64) @ passages.astype(np.float64).T
    order = np.argsort(-scores, axis=1, kind="stable")[:, :depth]
    return np.take_along_axis(scores, order, 1), order


def assert_same(found, reference):
    np.testing.assert_array_equal(found[1], reference[1])
    np.testing.assert_allclose(found[0], reference[0], atol=1e-5)


@pytest.mark.parametrize("portions", [1, 2, 7])
@pytest.mark.parametrize("at_once", [50, 97, 100_000])
def test_the_answers_are_those_of_sorting_all_products(monkeypatch, portions, at_once):
    monkeypatch.setattr(search_module, "PASSAGES_AT_ONCE", at_once)
    queries, passages = make_vectors(9, 1), make_vectors(1000, 2)
    found = search(queries, passages, depth=20, portions=portions)
    assert found[0].dtype == np.float32
    assert_same(found, expected(queries, passages, 20))


@pytest.mark.parametrize("number", [1, 5, 19])
def test_a_corpus_smaller_than_the_depth_is_answered_whole_and_without_padding(number):
    queries, passages = make_vectors(4, 1), make_vectors(number, 2)
    found = search(queries, passages, depth=20)
    assert found[1].shape == (4, number)
    assert (found[1] != PAD).all()
    assert_same(found, expected(queries, passages, 20))


@pytest.mark.parametrize("queries_at_once", [1, 4, 9, 100])
def test_the_number_of_queries_in_one_call_does_not_matter(queries_at_once):
    queries, passages = make_vectors(9, 1), make_vectors(300, 2)
    found = search(queries, passages, depth=10, queries_at_once=queries_at_once)
    assert_same(found, expected(queries, passages, 10))


@pytest.mark.parametrize("at_once", [64, 100_000])
def test_equal_scores_at_the_cut_are_resolved_by_id(monkeypatch, at_once):
    monkeypatch.setattr(search_module, "PASSAGES_AT_ONCE", at_once)
    passages = make_vectors(200, 3, dimension=8)
    passages[[10, 70, 130, 190]] = passages[[4]] = 10.0
    queries = np.ones((1, 8), dtype=np.float32)
    for depth in (1, 3, 5):
        _, positions = search(queries, passages, depth=depth)
        assert positions[0].tolist() == [190, 130, 70, 10, 4][:depth]


def test_a_single_query_and_many_answers_are_found_too():
    queries, passages = make_vectors(1, 1), make_vectors(3000, 2)
    assert_same(search(queries, passages, depth=1000), expected(queries, passages, 1000))
