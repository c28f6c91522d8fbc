"""Signs that a checkpoint was loaded wrongly, or has nothing left to tell passages apart."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from asyncval.core.errors import CheckpointBroken

if TYPE_CHECKING:
    from torch import Tensor

SAMPLE = 2048
COLLAPSED = 0.9999
SUSPICIOUS = 0.98


def mean_cosine(vectors: NDArray[np.float32]) -> float:
    """Return the mean cosine between different vectors, float32 [N, D].

    The squared length of the mean of n unit vectors is the mean over all n² pairs; the n pairs
    of a vector with itself are taken out.
    """
    sample = vectors.astype(np.float64)
    lengths = np.linalg.norm(sample, axis=1, keepdims=True)
    mean = (sample / np.maximum(lengths, 1e-30)).mean(axis=0)
    n = len(sample)
    return float((mean @ mean * n - 1) / (n - 1)) if n > 1 else 0.0


class PassageCheck:
    """Looks at the vectors of all passages, which come in portions, by an evenly spaced sample.

    Args:
        num_passages: How many there are in all.
        expected_dimension: That of the checkpoints before, None where there were none.
    """

    def __init__(self, num_passages: int, *, expected_dimension: int | None) -> None:
        self._spacing = max(num_passages // SAMPLE, 1)
        self._expected_dimension = expected_dimension
        self._sample: list[NDArray[np.float32]] = []

    def add(self, vectors: "Tensor", *, first: int) -> None:
        """Look at the vectors of some passages, the first of which has the position `first`.

        Raises:
            CheckpointBroken: They have another dimension than those of the checkpoints before.
        """
        expected, dimension = self._expected_dimension, vectors.shape[1]
        if expected is not None and dimension != expected:
            raise CheckpointBroken(
                f"Its vectors have {dimension} dimensions where those of the checkpoints before "
                f"have {expected}: a part of the model is missing or was not recognised."
            )
        sample = vectors[-first % self._spacing :: self._spacing]
        self._sample.append(sample.cpu().numpy().copy())

    def warnings(self) -> Iterator[str]:
        """Yield what is odd about all of them.

        Raises:
            CheckpointBroken: They are nearly all the same.
        """
        cosine = mean_cosine(np.concatenate(self._sample))
        if cosine > COLLAPSED:
            raise CheckpointBroken(
                f"All passages have nearly the same vector (mean cosine {cosine:.6f}): the model "
                "collapsed, or its texts are tokenised wrongly."
            )
        if cosine > SUSPICIOUS:
            yield f"The vectors of passages are much alike (mean cosine above {SUSPICIOUS})."
