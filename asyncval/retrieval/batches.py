"""Which texts go into one forward pass: as little padding as the hardware likes. Pure."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """The positions of its texts, [B], and to how many tokens they are brought."""

    rows: NDArray[np.int64]
    width: int
    is_padded: bool


def round_up(
    lengths: NDArray[np.int64], multiple: int, *, longest: int | None = None
) -> NDArray[np.int64]:
    """Return the lengths, rounded up to a multiple, but to no more than `longest`."""
    rounded = -(-lengths // multiple) * multiple
    return rounded if longest is None else np.maximum(np.minimum(rounded, longest), lengths)


def plan_batches(
    lengths: NDArray[np.int64],
    *,
    max_tokens: int,
    max_texts: int | None = None,
    widths: NDArray[np.int64] | None = None,
) -> Iterator[Batch]:
    """Yield batches, the longest texts first.

    The longest first, so that what runs out of memory does so at once, and so that the last
    batches, which several workers finish at slightly different times, are small ones. A batch
    that is at least half full ends where the next text is shorter: a large corpus has so many
    texts of each length that hardly a batch is padded.

    Args:
        lengths: [N] tokens of each text.
        max_tokens: The most tokens in a batch, padding included. One text always fits.
        max_texts: The most texts in a batch, None for no limit.
        widths: [N] tokens that each text takes, where that is more than it has.
    """
    widths = lengths if widths is None else widths
    order = np.argsort(-widths, kind="stable")
    falling = widths[order]
    start = 0
    while start < len(order):
        width = max(int(falling[start]), 1)
        size = max(max_tokens // width, 1)
        if max_texts is not None:
            size = min(size, max_texts)
        alike = int(np.searchsorted(-falling[start : start + size], -falling[start], side="right"))
        if 2 * alike >= size:
            size = alike
        rows = order[start : start + size]
        yield Batch(rows=rows, width=width, is_padded=bool((lengths[rows] < width).any()))
        start += len(rows)


def pad(
    ids: NDArray[np.unsignedinteger],
    offsets: NDArray[np.int64],
    rows: NDArray[np.int64],
    *,
    width: int,
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Return token ids, int64 [B, T], and mask, of some texts, padded on the right with 0."""
    lengths = offsets[rows + 1] - offsets[rows]
    mask = np.arange(width)[None, :] < lengths[:, None]
    tokens = np.zeros(mask.shape, dtype=np.int64)
    tokens[mask] = np.concatenate([ids[offsets[row] : offsets[row + 1]] for row in rows])
    return tokens, mask
