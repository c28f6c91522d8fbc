"""How long the exact search takes: ours, one call of FAISS's flat index, the first Asyncval's.

    python bench/search.py

In turns, against the raw matrix product of the same sizes, whose result is thrown away: by
PyTorch and by NumPy, which bring BLAS libraries of their own; the faster one counts.
"""

import argparse
import os
import statistics
import time
from collections.abc import Callable
from typing import Any

import faiss
import numpy as np
import torch
import workload
from numpy.typing import NDArray

from asyncval.retrieval.search import TopK

DEPTH = 100
BLOCK = 2048
Vectors = NDArray[np.float32]
Matrix = Any
"""An array of NumPy or a tensor."""


def raw(queries: Matrix, passages: Matrix) -> None:
    """Multiply in blocks of passages and look at nothing."""
    for start in range(0, len(passages), BLOCK):
        _ = queries @ passages[start : start + BLOCK].T


def ours(queries: Vectors, passages: Vectors) -> NDArray[np.int64]:
    """Search as a validation does."""
    top = TopK(queries, depth=DEPTH)
    top.add(passages, first=0)
    return top.answers()[1]


def flat(queries: Vectors, passages: Vectors, at_once: int) -> NDArray[np.int64]:
    """Search in FAISS's flat index, so many queries in one call."""
    index = faiss.IndexFlatIP(queries.shape[1])
    index.add(passages)
    calls = range(0, len(queries), at_once)
    return np.concatenate([index.search(queries[s : s + at_once], DEPTH)[1] for s in calls])


def main() -> None:
    """Measure, print a table and write it."""
    parser = argparse.ArgumentParser(description="Exact search against a matrix product.")
    parser.add_argument("--queries", type=int, default=7000)
    parser.add_argument("--passages", type=int, default=100_000)
    parser.add_argument("--dimension", type=int, default=384)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    cores = len(os.sched_getaffinity(0))
    torch.set_num_threads(cores)
    faiss.omp_set_num_threads(cores)
    draw = np.random.default_rng(1)
    queries, passages = (
        draw.normal(size=(number, options.dimension)).astype(np.float32)
        for number in (options.queries, options.passages)
    )
    ways: dict[str, Callable[[], object]] = {
        "the raw matrix product, PyTorch": lambda: raw(*map(torch.from_numpy, (queries, passages))),
        "the raw matrix product, NumPy": lambda: raw(queries, passages),
        "Asyncval": lambda: ours(queries, passages),
        "FAISS, one call": lambda: flat(queries, passages, len(queries)),
        "FAISS, 64 queries a call (Asyncval 0.2.0)": lambda: flat(queries, passages, 64),
    }
    expected = np.sort(flat(queries[:100], passages, 100), axis=1)
    best = ours(queries[:100], passages)
    missed = sum(len(set(a) - set(b)) for a, b in zip(expected, best, strict=True))
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(options.repeats):
        for name, way in ways.items():
            start = time.perf_counter()
            way()
            seconds[name].append(time.perf_counter() - start)
    products = [each for name, each in seconds.items() if name.startswith("the raw")]
    floor = min(products, key=statistics.median)
    rows = [
        [
            name,
            f"{statistics.median(each):.2f}",
            f"{statistics.median(a / b for a, b in zip(each, floor, strict=True)):.2f}",
        ]
        for name, each in seconds.items()
    ]
    title = (
        f"Exact search: {options.queries} queries, {options.passages} passages, "
        f"{options.dimension} dimensions, depth {DEPTH}, {cores} cores, {options.repeats} rounds; "
        f"{missed} of {expected.size} answers of the flat index missed"
    )
    header = ["", "median s", "times the raw product (median of rounds)"]
    workload.save("search", workload.table(title, header, rows), {"title": title, **seconds})


if __name__ == "__main__":
    main()
