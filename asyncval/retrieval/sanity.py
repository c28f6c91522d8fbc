"""Signs that a checkpoint was loaded wrongly, or has nothing left to tell passages apart."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from asyncval.core.errors import CheckpointBroken

SAMPLE = 2048
COLLAPSED = 0.9999
SUSPICIOUS = 0.98


def mean_cosine(vectors: NDArray[np.float32]) -> float:
    """Return the mean cosine between different vectors of an evenly spaced sample.

    The squared length of the mean of n unit vectors is the mean over all n² pairs; the n pairs
    of a vector with itself are taken out.
    """
    sample = vectors[:: max(len(vectors) // SAMPLE, 1)].astype(np.float64)
    lengths = np.linalg.norm(sample, axis=1, keepdims=True)
    mean = (sample / np.maximum(lengths, 1e-30)).mean(axis=0)
    n = len(sample)
    return float((mean @ mean * n - 1) / (n - 1)) if n > 1 else 0.0


def check_passages(
    vectors: NDArray[np.float32], *, expected_dimension: int | None
) -> Iterator[str]:
    """Yield warnings about the vectors of all passages, float32 [P, D].

    Raises:
        CheckpointBroken: They have another dimension than those of the checkpoints before, or
            are nearly all the same.
    """
    dimension = vectors.shape[1]
    if expected_dimension is not None and dimension != expected_dimension:
        raise CheckpointBroken(
            f"Its vectors have {dimension} dimensions where those of the checkpoints before have "
            f"{expected_dimension}: a part of the model is missing or was not recognised."
        )
    cosine = mean_cosine(vectors)
    if cosine > COLLAPSED:
        raise CheckpointBroken(
            f"All passages have nearly the same vector (mean cosine {cosine:.6f}): the model "
            "collapsed, or its texts are tokenised wrongly."
        )
    if cosine > SUSPICIOUS:
        yield f"The vectors of passages are much alike (mean cosine above {SUSPICIOUS})."
