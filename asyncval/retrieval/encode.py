"""Token ids become vectors: batches by a token budget, every core or the device kept busy."""

import os
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import dataclass
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
    def num_workers(self) -> int:
        """Threads that run forward passes: one per core, each with one thread of torch's own.

        Without a barrier between them a busy neighbour costs only its share, and the
        result does not depend on their number.
        """
        return len(os.sched_getaffinity(0)) if self.device == "cpu" else 1


def encode(
    tokens: TokenStore,
    forward: Callable[["Tensor", "Tensor"], "Tensor"],
    *,
    encoding: Encoding,
    on_progress: Callable[[int], None] = lambda done: None,
) -> NDArray[np.float32]:
    """Return the vectors of all texts, float32 [N, D], in the store's order.

    Args:
        tokens: The texts.
        forward: Ids and mask, int64 [B, T] on the device, to vectors [B, D].
        encoding: Device and batch size.
        on_progress: Told how many texts are done.

    Raises:
        CheckpointBroken: A vector has a value that is not a finite number.
    """
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
    batches = plan_batches(
        tokens.lengths, max_tokens=encoding.max_tokens, max_texts=encoding.batch_size
    )
    with ThreadPoolExecutor(encoding.num_workers, initializer=_one_thread) as pool:
        futures = [pool.submit(run, rows) for rows in batches]
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


def _one_thread() -> None:
    import torch

    torch.set_num_threads(1)


def _cancel(futures: list[Future[tuple[NDArray[np.int64], NDArray[np.float32]]]]) -> None:
    for future in futures:
        future.cancel()
