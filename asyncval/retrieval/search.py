"""Exact search by inner product: FAISS on a CPU or a GPU, or torch on either."""

import os
from collections.abc import Callable
from functools import cache, partial
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from asyncval.core.errors import DependencyMissing
from asyncval.core.types import SearchBackend

if TYPE_CHECKING:
    from torch import Tensor

    Vectors = NDArray[np.float32] | Tensor
    """float32 [N, D]; a tensor lies on the device, where it is searched by torch or there."""

PASSAGES_AT_ONCE = 65536
"""Smaller portions make FAISS slower; larger ones gain nothing."""
SCORES_AT_ONCE = 2**28
"""How many scores torch has in memory: a gibibyte."""
SPARE = 16
"""How many more answers are fetched than wanted, so that ties at the cut can be resolved."""
FAISS_GPU_DEPTH = 2048
"""The most answers that FAISS gives on a GPU."""


class TopK:
    """The best passages of every query so far; passages may come in portions.

    Args:
        queries: [Q, D] float32.
        depth: How many answers a query gets; `SPARE` more are kept.
        queries_at_once: The most queries in one call, None for all.
        backend: What searches. `auto` and `faiss` are FAISS on the CPU where the device is
            one; see `resolve_backend` for others.
        device: Where torch and FAISS's CUDA build search.
    """

    def __init__(
        self,
        queries: NDArray[np.float32],
        *,
        depth: int,
        queries_at_once: int | None = None,
        backend: SearchBackend = "auto",
        device: str = "cpu",
    ) -> None:
        self._depth = depth + SPARE
        kind = resolve_backend(backend, device=device, depth=self._depth)
        on_host = np.ascontiguousarray(queries, dtype=np.float32)
        self._queries: Vectors = on_host if kind == "faiss" else _on_device(on_host, device)
        self._find = _finder(kind, device=device)
        self._queries_at_once = queries_at_once or max(len(queries), 1)
        self._scores = np.empty((len(queries), 0), dtype=np.float32)
        self._positions = np.empty((len(queries), 0), dtype=np.int64)

    def add(self, passages: "Vectors", *, first: int) -> None:
        """Search some passages, [P, D] float32, the first of which has the position `first`."""
        for start in range(0, len(passages), PASSAGES_AT_ONCE):
            scores, rows = self._search(passages[start : start + PASSAGES_AT_ONCE])
            scores = np.concatenate([self._scores, scores], axis=1)
            positions = np.concatenate([self._positions, rows + (first + start)], axis=1)
            if scores.shape[1] > self._depth:
                best = np.argpartition(-scores, self._depth - 1, axis=1)[:, : self._depth]
                scores = np.take_along_axis(scores, best, 1)
                positions = np.take_along_axis(positions, best, 1)
            self._scores, self._positions = scores, positions

    def _search(self, passages: "Vectors") -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        depth = min(self._depth, len(passages))  # FAISS pads a longer row with position -1
        parts = [
            self._find(self._queries[start : start + self._queries_at_once], passages, depth)
            for start in range(0, len(self._queries), self._queries_at_once)
        ]
        return np.concatenate([scores for scores, _ in parts]), np.concatenate(
            [rows for _, rows in parts]
        )

    def answers(self) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Return scores and positions, [Q, K], in no particular order within a row."""
        return self._scores, self._positions


Finder = Callable[["Vectors", "Vectors", int], tuple[NDArray[np.float32], NDArray[np.int64]]]
"""Queries, passages and depth to scores and rows, [Q, depth]."""


def resolve_backend(backend: SearchBackend, *, device: str, depth: int) -> str:
    """Return `faiss`, `faiss-gpu` or `torch`.

    On a GPU, `auto` is FAISS where its CUDA build is installed, else torch; `faiss` is FAISS
    on the CPU where that build is not.
    """
    if backend == "torch":
        return "torch"
    if device == "cpu":
        return "faiss"
    if _faiss_has_gpus() and depth <= FAISS_GPU_DEPTH:
        return "faiss-gpu"
    return "faiss" if backend == "faiss" else "torch"


def check_backend(backend: SearchBackend, *, device: str, depth: int) -> None:
    """Raise DependencyMissing where FAISS is needed and not installed."""
    if resolve_backend(backend, device=device, depth=depth + SPARE) != "torch":
        import_faiss()


def _faiss_has_gpus() -> bool:
    try:
        import faiss
    except ImportError:
        return False
    return hasattr(faiss, "StandardGpuResources") and faiss.get_num_gpus() > 0


def _finder(backend: str, *, device: str) -> Finder:
    if backend == "torch":
        return partial(_find_with_torch, device=device)
    if backend == "faiss-gpu":
        return partial(_find_with_faiss_gpu, resources=_gpu_resources(), device=device)
    return _find_with_faiss


@cache
def _gpu_resources() -> Any:  # noqa: ANN401
    """Return what all searches of this process share: FAISS takes 1.5 GiB for each of them."""
    import faiss

    return faiss.StandardGpuResources()


def _find_with_faiss(
    queries: "Vectors", passages: "Vectors", depth: int
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    faiss = import_faiss()
    faiss.omp_set_num_threads(len(os.sched_getaffinity(0)))
    found = faiss.knn(queries, _on_host(passages), depth, metric=faiss.METRIC_INNER_PRODUCT)
    return cast(tuple[NDArray[np.float32], NDArray[np.int64]], found)


def _find_with_faiss_gpu(
    queries: "Vectors",
    passages: "Vectors",
    depth: int,
    *,
    resources: Any,  # noqa: ANN401
    device: str,
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    import faiss

    scores, rows = faiss.knn_gpu(
        resources,
        _on_device(queries, device),
        _on_device(passages, device),
        depth,
        metric=faiss.METRIC_INNER_PRODUCT,
    )
    return scores.cpu().numpy(), rows.cpu().numpy()


def _find_with_torch(
    queries: "Vectors", passages: "Vectors", depth: int, *, device: str
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    import torch

    on_device = _on_device(passages, device)
    scores = np.empty((len(queries), depth), dtype=np.float32)
    rows = np.empty((len(queries), depth), dtype=np.int64)
    size = max(SCORES_AT_ONCE // len(passages), 1)
    for start in range(0, len(queries), size):
        some = slice(start, start + size)
        products = _on_device(queries[some], device) @ on_device.T
        best = torch.topk(products, depth, dim=1, sorted=False)
        scores[some], rows[some] = best.values.cpu().numpy(), best.indices.cpu().numpy()
    return scores, rows


def _on_host(vectors: "Vectors") -> NDArray[np.float32]:
    array = vectors if isinstance(vectors, np.ndarray) else vectors.cpu().numpy()
    return np.ascontiguousarray(array, dtype=np.float32)


def _on_device(vectors: "Vectors", device: str) -> "Tensor":
    import torch

    tensor = torch.from_numpy(vectors) if isinstance(vectors, np.ndarray) else vectors
    return tensor.to(device)


def import_faiss() -> Any:  # noqa: ANN401
    """Return the module, or say how to install it."""
    try:
        import faiss
    except ImportError as error:
        raise DependencyMissing(
            "FAISS is not installed: run `pip install asyncval[cpu]`, or `pip install "
            "asyncval[gpu]` for its CUDA build; or give --search_backend torch."
        ) from error
    return faiss
