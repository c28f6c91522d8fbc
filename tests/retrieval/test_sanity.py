import numpy as np
import pytest
import torch

from asyncval.core.errors import CheckpointBroken
from asyncval.retrieval.sanity import SAMPLE, PassageCheck, mean_cosine


def make_vectors(number, *, spread):
    """Return vectors around one direction, the more apart the larger `spread` is."""
    draw = np.random.default_rng(1)
    return (10 + spread * draw.normal(size=(number, 8))).astype(np.float32)


def check(vectors, *, portions=1, expected_dimension=None):
    one = PassageCheck(len(vectors), expected_dimension=expected_dimension)
    first = 0
    for portion in np.array_split(vectors, portions):
        one.add(torch.from_numpy(portion), first=first)
        first += len(portion)
    return list(one.warnings())


def test_the_mean_cosine_is_that_of_all_pairs():
    vectors = make_vectors(30, spread=9)
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    pairs = (unit @ unit.T)[~np.eye(30, dtype=bool)]
    assert mean_cosine(vectors) == pytest.approx(pairs.mean(), abs=1e-6)
    assert mean_cosine(vectors[:1]) == 0.0


@pytest.mark.parametrize("portions", [1, 3, 50])
def test_vectors_that_are_alike_are_told_however_they_come(portions):
    assert check(make_vectors(900, spread=10), portions=portions) == []
    [warning] = check(make_vectors(900, spread=1), portions=portions)
    assert "much alike" in warning
    with pytest.raises(CheckpointBroken, match="nearly the same vector"):
        check(make_vectors(900, spread=0.01), portions=portions)


@pytest.mark.parametrize("portions", [1, 2, 7])
def test_the_sample_is_spaced_evenly_over_all_portions(portions):
    vectors = make_vectors(5 * SAMPLE, spread=0.01)
    vectors[np.arange(len(vectors)) % 5 != 0] *= np.random.default_rng(2).choice(
        [-1, 1], size=(4 * SAMPLE, 1)
    )
    with pytest.raises(CheckpointBroken, match="nearly the same vector"):
        check(vectors, portions=portions)  # every fifth vector is looked at, and no other


def test_another_dimension_than_before_is_refused():
    vectors = make_vectors(20, spread=10)
    assert check(vectors, expected_dimension=8) == []
    with pytest.raises(CheckpointBroken, match=r"8 dimensions where .* have 16"):
        check(vectors, expected_dimension=16)
