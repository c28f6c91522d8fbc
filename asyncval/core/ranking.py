"""Order the answers of one exact search as trec_eval orders a run file.

Pure: arrays in, arrays out. A search pads a short row with position -1; that sentinel
ends here, so no other module has to know it.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

PAD = -1


def in_trec_order(
    scores: NDArray[np.float32],
    positions: NDArray[np.int64],
    *,
    passage_ids: Sequence[str],
    depth: int,
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Return the first `depth` answers of every query: score down, equal scores by id down.

    trec_eval compares scores as float32 and ids as byte strings (`9` comes before `10`);
    the order of UTF-8 bytes is that of Python's strings.

    Args:
        scores: [Q, K] float32 inner products, in any order within a row.
        positions: [Q, K] int64 rows of `passage_ids`, or PAD. Every row has the same
            number of pads, since every query met the same corpus.
        passage_ids: [P] ids.
        depth: How many to keep; K may be larger, so that ties at the cut are resolved.

    Returns:
        Scores and positions, [Q, k] with k the smallest of `depth`, K and P.
    """
    if scores.shape != positions.shape:
        raise ValueError(f"Scores {scores.shape} and positions {positions.shape} differ in shape.")
    found = np.unique(positions[positions != PAD])
    by_id = sorted(range(len(found)), key=lambda i: passage_ids[int(found[i])])
    id_order = np.empty(len(found) + 1, dtype=np.int64)
    id_order[by_id] = np.arange(len(found))
    id_order[-1] = PAD  # a pad has the lowest of all ids, and below the lowest of all scores
    is_pad = positions == PAD
    ties = np.where(is_pad, PAD, id_order[np.searchsorted(found, positions)])
    down = np.where(is_pad, np.float32(np.inf), -scores)
    order = np.lexsort((-ties, down), axis=-1)
    kept = min(depth, positions.shape[1] - int(is_pad.sum(axis=1).max(initial=0)))
    order = order[:, :kept]
    return np.take_along_axis(scores, order, 1), np.take_along_axis(positions, order, 1)
