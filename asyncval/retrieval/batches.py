"""Which texts go into one forward pass: as little padding as the hardware likes. Pure."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray


def plan_batches(
    lengths: NDArray[np.int64], *, max_tokens: int, max_texts: int | None = None
) -> Iterator[NDArray[np.int64]]:
    """Yield the positions of the texts of each batch, the longest texts first.

    The longest first, so that what runs out of memory does so at once, and so that the last
    batches, which several workers finish at slightly different times, are small ones.

    Args:
        lengths: [N] tokens of each text.
        max_tokens: The most tokens in a batch, padding included. One text always fits.
        max_texts: The most texts in a batch, None for no limit.
    """
    order = np.argsort(-lengths, kind="stable")
    start = 0
    while start < len(order):
        longest = max(int(lengths[order[start]]), 1)
        size = max(max_tokens // longest, 1)
        if max_texts is not None:
            size = min(size, max_texts)
        yield order[start : start + size]
        start += size


def pad(
    ids: NDArray[np.unsignedinteger], offsets: NDArray[np.int64], rows: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return token ids and mask, int64 [B, T], of some texts, padded on the right with 0."""
    lengths = offsets[rows + 1] - offsets[rows]
    width = int(lengths.max(initial=1))
    mask = np.arange(width)[None, :] < lengths[:, None]
    tokens = np.zeros(mask.shape, dtype=np.int64)
    tokens[mask] = np.concatenate([ids[offsets[row] : offsets[row + 1]] for row in rows])
    return tokens, mask.astype(np.int64)
