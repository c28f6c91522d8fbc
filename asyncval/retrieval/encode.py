"""Token ids become vectors: batches by a token budget, every core or the device kept busy.

Texts are taken in portions. A batch never reaches over the end of a portion, whether the vectors
are kept or not, so a result does not depend on what is kept, and memory does not grow with the
number of texts.
"""

import os
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from asyncval.core.errors import CheckpointBroken
from asyncval.retrieval.batches import pad, plan_batches
from asyncval.retrieval.tokens import TokenStore

if TYPE_CHECKING:
    from torch import Tensor

CPU_TOKENS = 2048  # keeps the activations near a core's cache
GPU_TOKENS = 32768
CPU_TEXTS = 65536  # enough texts of every length, and what FAISS likes to search at once
GPU_TEXTS = 2**20


@dataclass(frozen=True, slots=True, kw_only=True)
class Encoding:
    """Where and in what portions texts are encoded.

    `batch_size` caps the texts of a batch; each `shrink` divides the portions by four, after
    memory ran out.
    """

    device: str
    batch_size: int | None = None
    shrink: int = 0

    @property
    def max_tokens(self) -> int:
        """The token budget of one batch."""
        budget = CPU_TOKENS if self.device == "cpu" else GPU_TOKENS
        return max(budget >> (2 * self.shrink), 1)

    @property
    def texts_at_once(self) -> int:
        """How many texts a portion has."""
        return CPU_TEXTS if self.device == "cpu" else GPU_TEXTS

    @property
    def num_workers(self) -> int:
        """Threads that run forward passes: one per core, each with one thread of torch's own.

        Without a barrier between them a busy neighbour costs only its share, and the
        result does not depend on their number.
        """
        return len(os.sched_getaffinity(0)) if self.device == "cpu" else 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Portion:
    """Vectors of consecutive texts, float32 [N, D], the first of which has the position `first`."""

    first: int
    vectors: NDArray[np.float32]


def encode(
    tokens: TokenStore,
    forward: Callable[["Tensor", "Tensor"], "Tensor"],
    *,
    encoding: Encoding,
    on_progress: Callable[[int], None] = lambda done: None,
) -> NDArray[np.float32]:
    """Return the vectors of all texts, float32 [N, D], in the store's order.

    The arguments and errors are those of `encode_portions`.
    """
    portions = encode_portions(tokens, forward, encoding=encoding, on_progress=on_progress)
    buffer = VectorBuffer(len(tokens))
    for portion in portions:
        buffer.add(portion)
    return buffer.vectors


def encode_portions(
    tokens: TokenStore,
    forward: Callable[["Tensor", "Tensor"], "Tensor"],
    *,
    encoding: Encoding,
    on_progress: Callable[[int], None] = lambda done: None,
) -> Iterator[Portion]:
    """Yield the vectors of all texts in portions, in the store's order.

    Args:
        tokens: The texts.
        forward: Ids and mask, int64 [B, T] on the device, to vectors [B, D].
        encoding: Device and batch size.
        on_progress: Told how many texts are done.

    Raises:
        CheckpointBroken: A vector has a value that is not a finite number.
    """
    with ThreadPoolExecutor(encoding.num_workers, initializer=_one_thread) as pool:
        for first in range(0, len(tokens), encoding.texts_at_once):
            vectors = _encode_some(
                tokens[first : first + encoding.texts_at_once],
                forward,
                encoding=encoding,
                pool=pool,
                on_progress=partial(_advance, on_progress, first),
            )
            yield Portion(first=first, vectors=vectors)
            del vectors  # whoever has searched it is done with it


class VectorBuffer:
    """One array for the vectors of N texts that come in portions."""

    def __init__(self, num_texts: int) -> None:
        self._num_texts = num_texts
        self._vectors: NDArray[np.float32] | None = None

    def add(self, portion: Portion) -> None:
        """Copy a portion to its place; one that is everything is kept as it is."""
        if len(portion.vectors) == self._num_texts:
            self._vectors = portion.vectors
            return
        if self._vectors is None:
            shape = (self._num_texts, portion.vectors.shape[1])
            self._vectors = np.empty(shape, dtype=np.float32)
        self._vectors[portion.first : portion.first + len(portion.vectors)] = portion.vectors

    @property
    def vectors(self) -> NDArray[np.float32]:
        """All vectors, float32 [N, D]."""
        assert self._vectors is not None, "there is always at least one text"
        return self._vectors


def _encode_some(
    tokens: TokenStore,
    forward: Callable[["Tensor", "Tensor"], "Tensor"],
    *,
    encoding: Encoding,
    pool: ThreadPoolExecutor,
    on_progress: Callable[[int], None],
) -> NDArray[np.float32]:
    """Return the vectors of the texts of one portion, float32 [N, D]."""
    import torch

    def run(rows: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        ids, mask = pad(tokens.ids, tokens.offsets, rows)
        with torch.inference_mode():
            vectors = forward(
                torch.from_numpy(ids).to(encoding.device),
                torch.from_numpy(mask).to(encoding.device),
            )
        return rows, vectors.float().cpu().numpy()

    embeddings: NDArray[np.float32] | None = None
    done = 0
    futures = [pool.submit(run, rows) for rows in batches_of(tokens, encoding=encoding)]
    try:
        for future in as_completed(futures):
            rows, vectors = future.result()
            if embeddings is None:
                embeddings = np.empty((len(tokens), vectors.shape[1]), dtype=np.float32)
            embeddings[rows] = vectors
            done += len(rows)
            on_progress(done)
    except BaseException:
        _cancel(futures)
        raise
    assert embeddings is not None, "there is always at least one text"
    if not np.isfinite(embeddings).all():
        bad = int((~np.isfinite(embeddings).all(axis=1)).sum())
        raise CheckpointBroken(
            f"{bad} of {len(tokens)} vectors have values that are no finite numbers (NaN): the "
            "training diverged, or the precision is too small for this model."
        )
    return embeddings


def batches_of(tokens: TokenStore, *, encoding: Encoding) -> Iterator[NDArray[np.int64]]:
    """Yield the rows of the texts of each batch of one portion.

    The texts of some of these batches, taken out in this order, are put into the same batches.
    """
    return plan_batches(
        tokens.lengths, max_tokens=encoding.max_tokens, max_texts=encoding.batch_size
    )


def _advance(on_progress: Callable[[int], None], before: int, done: int) -> None:
    on_progress(before + done)


def _one_thread() -> None:
    import torch

    torch.set_num_threads(1)


def _cancel(futures: list[Future[tuple[NDArray[np.int64], NDArray[np.float32]]]]) -> None:
    for future in futures:
        future.cancel()
