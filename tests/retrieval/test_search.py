import sys

import numpy as np
import pytest
import torch

from asyncval.core.errors import DependencyMissing
from asyncval.core.ranking import PAD, in_trec_order
from asyncval.retrieval import search as search_module
from asyncval.retrieval.search import TopK, check_backend, resolve_backend


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


@pytest.mark.parametrize("at_once", [1, 500, 2**20])
@pytest.mark.parametrize("portions", [1, 3])
def test_torch_finds_what_faiss_finds(monkeypatch, at_once, portions):
    monkeypatch.setattr(search_module, "SCORES_AT_ONCE", at_once)
    monkeypatch.setattr(search_module, "PASSAGES_AT_ONCE", 300)
    queries, passages = make_vectors(9, 1), make_vectors(1000, 2)
    found = search(queries, passages, depth=20, portions=portions, backend="torch")
    reference = search(queries, passages, depth=20, portions=portions, backend="faiss")
    assert found[0].dtype == np.float32
    np.testing.assert_array_equal(found[1], reference[1])
    np.testing.assert_allclose(found[0], reference[0], rtol=1e-5, atol=1e-5)
    assert_same(found, expected(queries, passages, 20))


def test_tensors_are_searched_as_arrays_are():
    queries, passages = make_vectors(3, 1), make_vectors(100, 2)
    for backend in ("faiss", "torch"):
        top = TopK(queries, depth=5, backend=backend)
        top.add(torch.from_numpy(passages), first=0)
        reference = TopK(queries, depth=5, backend=backend)
        reference.add(passages, first=0)
        for one, other in zip(top.answers(), reference.answers(), strict=True):
            np.testing.assert_array_equal(one, other)


class FaissWithGpus:
    """What tells FAISS's CUDA build."""

    StandardGpuResources = object

    def __init__(self, number):
        self.get_num_gpus = lambda: number


@pytest.mark.parametrize(
    ("backend", "device", "gpus", "depth", "expected"),
    [
        ("auto", "cpu", 1, 100, "faiss"),
        ("faiss", "cpu", 0, 100, "faiss"),
        ("torch", "cpu", 0, 100, "torch"),
        ("auto", "cuda:0", 1, 100, "faiss-gpu"),
        ("auto", "cuda:0", 0, 100, "torch"),
        ("auto", "cuda:0", 1, 5000, "torch"),
        ("faiss", "cuda:0", 1, 100, "faiss-gpu"),
        ("faiss", "cuda:0", 0, 100, "faiss"),
        ("faiss", "cuda:0", 1, 5000, "faiss"),
        ("torch", "cuda:0", 1, 100, "torch"),
    ],
)
def test_what_searches_follows_from_what_there_is(
    monkeypatch, backend, device, gpus, depth, expected
):
    monkeypatch.setitem(sys.modules, "faiss", FaissWithGpus(gpus))
    assert resolve_backend(backend, device=device, depth=depth) == expected


def test_without_faiss_torch_still_searches(monkeypatch):
    monkeypatch.setitem(sys.modules, "faiss", None)
    check_backend("torch", device="cpu", depth=100)
    check_backend("auto", device="cuda:0", depth=100)
    with pytest.raises(DependencyMissing, match="--search_backend torch"):
        check_backend("auto", device="cpu", depth=100)


def test_a_single_query_and_many_answers_are_found_too():
    queries, passages = make_vectors(1, 1), make_vectors(3000, 2)
    assert_same(search(queries, passages, depth=1000), expected(queries, passages, 1000))
