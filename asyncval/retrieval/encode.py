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
from threading import Lock
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from asyncval.core.errors import CheckpointBroken
from asyncval.core.types import Precision
from asyncval.retrieval.batches import Batch, pad, plan_batches, round_up
from asyncval.retrieval.device import encode_on_device, full_mask
from asyncval.retrieval.heap import give_back
from asyncval.retrieval.tokens import TokenStore

if TYPE_CHECKING:
    from torch import Tensor

CPU_TOKENS = 2048  # keeps the activations near a core's cache
GPU_TOKENS = 65536
CPU_TEXTS = 65536  # enough texts of every length, and what FAISS likes to search at once
GPU_TEXTS = 2**20
BF16_MULTIPLE = 16
"""The attention of a CPU in bfloat16 takes twice as long for other lengths."""
Forward = Callable[["Tensor", "Tensor"], "Tensor"]
"""Ids and mask, int64 [B, T] on the device, to vectors [B, D]."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Encoding:
    """Where, how exactly and in what portions texts are encoded.

    `batch_size` caps the texts of a batch; each `shrink` divides portions and batches by four,
    after memory ran out. `longest` is the most tokens that the model takes.
    """

    device: str
    precision: Precision = "fp32"
    batch_size: int | None = None
    shrink: int = 0
    longest: int | None = None

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

    def portions(self, num_texts: int) -> Iterator[slice]:
        """Yield the texts of each portion."""
        size = max((CPU_TEXTS if self.device == "cpu" else GPU_TEXTS) >> (2 * self.shrink), 1)
        for first in range(0, num_texts, size):
            yield slice(first, min(first + size, num_texts))

    def batches(self, lengths: NDArray[np.int64]) -> list[Batch]:
        """Return the batches of one portion, whose texts have these numbers of tokens.

        The texts of some of these batches, taken out in this order, are put into the same batches.
        """
        is_rounded = self.device == "cpu" and self.precision == "bf16"
        widths = round_up(lengths, BF16_MULTIPLE if is_rounded else 1, longest=self.longest)
        return list(
            plan_batches(
                lengths, max_tokens=self.max_tokens, max_texts=self.batch_size, widths=widths
            )
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Portion:
    """Vectors of consecutive texts, float32 [N, D] on the device, the first at position `first`.

    `num_tokens` counts those of the texts, `num_padded` those that were encoded, and
    `sum_of_squares` is over the texts' numbers of tokens.
    """

    first: int
    vectors: "Tensor"
    num_tokens: int
    num_padded: int
    sum_of_squares: int


def encode(
    tokens: TokenStore,
    forward: Forward,
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
    forward: Forward,
    *,
    encoding: Encoding,
    on_progress: Callable[[int], None] = lambda done: None,
) -> Iterator[Portion]:
    """Yield the vectors of all texts in portions, in the store's order.

    Args:
        tokens: The texts.
        forward: The encoder.
        encoding: Device and batch size.
        on_progress: Told how many texts are done.

    Raises:
        CheckpointBroken: A vector has a value that is not a finite number.
    """
    with ThreadPoolExecutor(encoding.num_workers, initializer=_one_thread) as pool:
        for texts in encoding.portions(len(tokens)):
            some = tokens[texts]
            lengths = some.lengths
            batches = encoding.batches(lengths)
            advance = partial(_advance, on_progress, texts.start)
            if encoding.device == "cpu":
                vectors = _encode_on_cores(some, batches, forward, pool=pool, on_progress=advance)
            else:
                vectors = encode_on_device(
                    some, batches, forward, device=encoding.device, on_progress=advance
                )
            _check_numbers(vectors)
            yield Portion(
                first=texts.start,
                vectors=vectors,
                num_tokens=int(lengths.sum()),
                num_padded=sum(len(batch.rows) * batch.width for batch in batches),
                sum_of_squares=int((lengths**2).sum()),
            )
            del vectors  # whoever has searched it is done with it
            give_back()


class VectorBuffer:
    """One array for the vectors of N texts that come in portions."""

    def __init__(self, num_texts: int) -> None:
        self._num_texts = num_texts
        self._vectors: NDArray[np.float32] | None = None

    def add(self, portion: Portion) -> None:
        """Copy a portion to its place; one that is everything is kept as it is."""
        vectors = portion.vectors.cpu().numpy()
        if len(vectors) == self._num_texts:
            self._vectors = vectors
            return
        if self._vectors is None:
            self._vectors = np.empty((self._num_texts, vectors.shape[1]), dtype=np.float32)
        self._vectors[portion.first : portion.first + len(vectors)] = vectors

    @property
    def vectors(self) -> NDArray[np.float32]:
        """All vectors, float32 [N, D]."""
        assert self._vectors is not None, "there is always at least one text"
        return self._vectors


def _encode_on_cores(
    tokens: TokenStore,
    batches: list[Batch],
    forward: Forward,
    *,
    pool: ThreadPoolExecutor,
    on_progress: Callable[[int], None],
) -> "Tensor":
    """Return the vectors of one portion, float32 [N, D]; each thread takes the next batch."""
    import torch

    all_vectors: list[Tensor] = []  # one, once the first batch says how many dimensions there are
    lock = Lock()

    def run(batch: Batch) -> int:
        padded, is_token = pad(tokens.ids, tokens.offsets, batch.rows, width=batch.width)
        ids = torch.from_numpy(padded)
        mask = torch.from_numpy(is_token).long() if batch.is_padded else full_mask(ids)
        with torch.inference_mode():
            vectors = forward(ids, mask).float()
        with lock:
            if not all_vectors:
                all_vectors.append(torch.empty((len(tokens), vectors.shape[1])))
            all_vectors[0][torch.from_numpy(batch.rows)] = vectors
        return len(batch.rows)

    done = 0
    futures = [pool.submit(run, batch) for batch in batches]
    try:
        for future in as_completed(futures):
            done += future.result()
            on_progress(done)
    except BaseException:
        _cancel(futures)
        raise
    return all_vectors[0]  # there is always at least one text


def _check_numbers(vectors: "Tensor") -> None:
    import torch

    lowest, highest = torch.aminmax(vectors, dim=1)  # NaN where there is one; makes no copy
    finite = torch.isfinite(lowest) & torch.isfinite(highest)
    if not finite.all():
        raise CheckpointBroken(
            f"{int((~finite).sum())} of {len(vectors)} vectors have values that are no finite "
            "numbers (NaN): the training diverged, or the precision is too small for this model."
        )


def _advance(on_progress: Callable[[int], None], before: int, done: int) -> None:
    on_progress(before + done)


def _one_thread() -> None:
    import torch

    torch.set_num_threads(1)


def _cancel(futures: "list[Future[int]]") -> None:
    for future in futures:
        future.cancel()
