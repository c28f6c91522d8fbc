"""Exact search by inner product, with FAISS."""

import os
from typing import Any

import numpy as np
from numpy.typing import NDArray

from asyncval.core.errors import DependencyMissing

PASSAGES_AT_ONCE = 65536
"""Smaller portions make FAISS slower; larger ones gain nothing."""
SPARE = 16
"""How many more answers are fetched than wanted, so that ties at the cut can be resolved."""


class TopK:
    """The best passages of every query so far; passages may come in portions.

    Args:
        queries: [Q, D] float32.
        depth: How many answers a query gets; `SPARE` more are kept.
        queries_at_once: The most queries in one call of FAISS, None for all.
    """

    def __init__(
        self, queries: NDArray[np.float32], *, depth: int, queries_at_once: int | None = None
    ) -> None:
        self._queries = np.ascontiguousarray(queries, dtype=np.float32)
        self._depth = depth + SPARE
        self._queries_at_once = queries_at_once or max(len(queries), 1)
        self._scores = np.empty((len(queries), 0), dtype=np.float32)
        self._positions = np.empty((len(queries), 0), dtype=np.int64)

    def add(self, passages: NDArray[np.float32], *, first: int) -> None:
        """Search some passages, [P, D] float32, the first of which has the position `first`."""
        for start in range(0, len(passages), PASSAGES_AT_ONCE):
            portion = passages[start : start + PASSAGES_AT_ONCE]
            scores, rows = self._search(portion)
            scores = np.concatenate([self._scores, scores], axis=1)
            positions = np.concatenate([self._positions, rows + (first + start)], axis=1)
            if scores.shape[1] > self._depth:
                best = np.argpartition(-scores, self._depth - 1, axis=1)[:, : self._depth]
                scores = np.take_along_axis(scores, best, 1)
                positions = np.take_along_axis(positions, best, 1)
            self._scores, self._positions = scores, positions

    def _search(
        self, passages: NDArray[np.float32]
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        faiss = import_faiss()
        faiss.omp_set_num_threads(len(os.sched_getaffinity(0)))
        depth = min(self._depth, len(passages))  # FAISS pads a longer row with position -1
        parts = [
            faiss.knn(
                self._queries[start : start + self._queries_at_once],
                np.ascontiguousarray(passages, dtype=np.float32),
                depth,
                metric=faiss.METRIC_INNER_PRODUCT,
            )
            for start in range(0, len(self._queries), self._queries_at_once)
        ]
        return np.concatenate([scores for scores, _ in parts]), np.concatenate(
            [rows for _, rows in parts]
        )

    def answers(self) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Return scores and positions, [Q, K], in no particular order within a row."""
        return self._scores, self._positions


def import_faiss() -> Any:  # noqa: ANN401
    """Return the module, or say how to install it."""
    try:
        import faiss
    except ImportError as error:
        raise DependencyMissing(
            "FAISS is not installed: run `pip install asyncval[cpu]`, or `pip install "
            "asyncval[gpu]` for its CUDA build."
        ) from error
    return faiss
