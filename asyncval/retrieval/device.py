"""Encoding on a GPU: the tokens of a portion lie on it, and so do the vectors.

A batch is cut out of them there, so a forward pass waits for nothing from the host, and nothing
is waited for until a portion is done. It runs on a CPU too, for tests.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from asyncval.retrieval.batches import Batch
from asyncval.retrieval.tokens import TokenStore

if TYPE_CHECKING:
    from torch import Tensor

SIGNED = {2: np.int16, 4: np.int32}
"""Torch has hardly any arithmetic for unsigned integers."""


def full_mask(ids: "Tensor") -> "Tensor":
    """Return the mask of texts without padding: a single 1, expanded, that none has to look at."""
    return ids.new_ones(()).expand(ids.shape)


def encode_on_device(
    tokens: TokenStore,
    batches: Sequence[Batch],
    forward: Callable[["Tensor", "Tensor"], "Tensor"],
    *,
    device: str,
    on_progress: Callable[[int], None],
) -> "Tensor":
    """Return the vectors of one portion, float32 [N, D] on the device.

    Args:
        tokens: The texts of the portion.
        batches: All of its batches.
        forward: Ids and mask, int64 [B, T] on the device, to vectors [B, D].
        device: Where.
        on_progress: Told how many texts were handed to the device.
    """
    import torch

    rows = np.concatenate([batch.rows for batch in batches])
    begin = int(tokens.offsets[0])
    ids = _ids_on(device, tokens.ids[begin : int(tokens.offsets[-1])])
    starts = torch.from_numpy(tokens.offsets[rows] - begin).to(device)
    lengths = torch.from_numpy(tokens.lengths[rows]).to(device)
    places = torch.from_numpy(rows).to(device)
    all_vectors: Tensor | None = None
    done = 0
    with torch.inference_mode():
        for batch in batches:
            some = slice(done, done + len(batch.rows))
            columns = torch.arange(batch.width, device=device)
            where = starts[some, None] + columns
            if batch.is_padded:
                mask = columns < lengths[some, None]
                inputs = ids[where.where(mask, 0)].long() * mask
                vectors = forward(inputs, mask.long())
            else:
                inputs = ids[where].long()
                vectors = forward(inputs, full_mask(inputs))
            if all_vectors is None:
                shape = (len(tokens), vectors.shape[1])
                all_vectors = torch.empty(shape, dtype=torch.float32, device=device)
            all_vectors[places[some]] = vectors.float()
            done = some.stop
            on_progress(done)
    assert all_vectors is not None, "there is always at least one text"
    return all_vectors


def _ids_on(device: str, ids: NDArray[np.unsignedinteger]) -> "Tensor":
    """Copy token ids to the device, as int32 there: half the way for those of 16 bits."""
    import torch

    signed = torch.from_numpy(ids.view(SIGNED[ids.dtype.itemsize]).copy()).to(device)
    return signed.int() & 0xFFFF if ids.dtype.itemsize == 2 else signed
