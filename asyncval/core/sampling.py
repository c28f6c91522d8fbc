"""Which passages a corpus subset keeps. Pure."""

import random
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby

import numpy as np
from numpy.typing import NDArray

from asyncval.core.errors import InvalidData, InvalidOption
from asyncval.core.types import Judgements, Retrieved

FOUND = 1
"""The bit of a wanted passage that says that the corpus has it; its sources have the others."""
Hits = tuple[NDArray[np.bytes_], NDArray[np.float32]]
"""Passage ids and their keys, the higher the better; once in order, their ranks."""


class Rankings:
    """The best passages of every query of one run.

    Lines with a rank are taken by it. Lines with a score are ordered as trec_eval orders
    them: the score as float32 down, equal scores by id down. A query costs two arrays of at
    most `depth` ids and numbers. Its lines may stand anywhere in the run.

    Args:
        lines: The run, all lines with a rank or all with a score.
        name: What the run is called in messages.
        depth: The lowest rank that is kept; None keeps all.

    Raises:
        InvalidData: A query has a passage twice.
    """

    def __init__(
        self, lines: Iterable[Retrieved], *, name: str = "", depth: int | None = None
    ) -> None:
        self._name = name
        self._depth = depth
        self._by_rank = False
        self._hits: dict[str, Hits] = {}
        for query_id, group in groupby(lines, key=lambda line: line.query_id):
            self._add(query_id, list(group))
        for query_id, hits in self._hits.items():
            self._hits[query_id] = self._ranked(query_id, hits)

    @property
    def queries(self) -> Sequence[str]:
        """The queries' ids, in the order in which they first stand in the run."""
        return list(self._hits)

    @property
    def deepest(self) -> int:
        """The lowest rank of all, 0 where there is no line."""
        return max((int(ranks[-1]) for _, ranks in self._hits.values() if len(ranks)), default=0)

    def passages(self, first: int, last: int) -> Iterator[str]:
        """Yield the passages from one rank to another, both included, of all queries."""
        for query_id in self._hits:
            yield from self.of(query_id, first, last)

    def of(self, query_id: str, first: int, last: int) -> list[str]:
        """Return the passages from one rank to another, both included, of one query, best first."""
        if query_id not in self._hits:
            return []
        ids, ranks = self._hits[query_id]
        start, end = np.searchsorted(ranks, (first, last + 1))
        return [passage_id.decode() for passage_id in ids[start:end].tolist()]

    def _add(self, query_id: str, lines: Sequence[Retrieved]) -> None:
        self._by_rank = lines[0].rank is not None
        ids = np.array([line.passage_id.encode() for line in lines])
        keys = np.array([_key(line) for line in lines], dtype=np.float32)
        if query_id in self._hits:
            known_ids, known_keys = self._hits[query_id]
            ids, keys = np.concatenate([known_ids, ids]), np.concatenate([known_keys, keys])
        if self._depth is not None and len(keys) > 2 * self._depth:
            ids, keys = _in_order(ids, keys, most=self._depth)
        self._hits[query_id] = ids, keys

    def _ranked(self, query_id: str, hits: Hits) -> Hits:
        ids, keys = _in_order(*hits, most=self._depth)
        sorted_ids = np.sort(ids)
        twice = sorted_ids[1:][sorted_ids[1:] == sorted_ids[:-1]]
        if len(twice):
            raise InvalidData(
                f"{self._name!r}: query {query_id!r} has the passage {twice[0].decode()!r} twice. "
                "A ranking names each passage once."
            )
        return ids, -keys if self._by_rank else np.arange(1, len(ids) + 1, dtype=np.float32)


def _key(line: Retrieved) -> float:
    return -float(line.rank) if line.rank is not None else line.score or 0.0


def _in_order(ids: NDArray[np.bytes_], keys: NDArray[np.float32], *, most: int | None) -> Hits:
    """Return the best `most`, the highest key first, equal keys by id down."""
    order = np.lexsort((ids, keys))[::-1][:most]
    return ids[order], keys[order]


class Wanted:
    """Passage ids to keep, from which sources each comes, and which of them were found."""

    def __init__(self) -> None:
        self._bits: dict[str, int] = {}
        self._sources: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._bits)

    def __contains__(self, passage_id: str) -> bool:
        return passage_id in self._bits

    def add(self, passage_ids: Iterable[str], *, source: str) -> None:
        """Want some passages on account of a source, which may be empty-handed."""
        bit = self._sources.setdefault(source, FOUND << (len(self._sources) + 1))
        for passage_id in passage_ids:
            self._bits[passage_id] = self._bits.get(passage_id, 0) | bit

    def find(self, passage_id: str) -> bool:
        """Note that a wanted passage is there; return False where that was known already."""
        bits = self._bits[passage_id]
        self._bits[passage_id] = bits | FOUND
        return not bits & FOUND

    def missing(self) -> list[str]:
        """Return the passages that were not found, in the order in which they were wanted."""
        return [passage_id for passage_id, bits in self._bits.items() if not bits & FOUND]

    def counts(self) -> dict[str, tuple[int, int]]:
        """Return how many passages each source wants, and how many of them were found."""
        values = np.fromiter(self._bits.values(), dtype=np.int64, count=len(self._bits))
        return {
            source: (int(np.count_nonzero(values & bit)), _count_both(values, bit))
            for source, bit in self._sources.items()
        }


def _count_both(values: NDArray[np.int64], bit: int) -> int:
    return int(np.count_nonzero((values & (bit | FOUND)) == (bit | FOUND)))


class Reservoir:
    """Draws passages from a stream of unknown length, all equally likely, with a seed.

    Args:
        size: How many are drawn.
        seed: The same stream and seed give the same passages on every machine.
    """

    def __init__(self, size: int, *, seed: int) -> None:
        self.size = size
        self._random = random.Random(seed).random  # the one method that never changes
        self._offered = 0

    def offer(self) -> int | None:
        """Return the place that the next passage takes, from 0, or None if it is not drawn.

        Whatever had the place before is drawn no more.
        """
        self._offered += 1
        if self._offered <= self.size:
            return self._offered - 1
        place = int(self._random() * self._offered)
        return place if place < self.size else None


def judged_passages(judgements: Iterable[Judgements], *, relevant: bool) -> Iterator[str]:
    """Yield the passages that are relevant (a grade of 1 or more), or those that are not."""
    for each in judgements:
        for grades in each.values():
            for passage_id, grade in grades.items():
                if (grade > 0) == relevant:
                    yield passage_id


def fitting_depth(rankings: Sequence[Rankings], *, wanted: Wanted, num_passages: int) -> int:
    """Return the largest depth with which `num_passages` are wanted at most.

    Args:
        rankings: The runs, which all get this depth.
        wanted: What is wanted already.
        num_passages: The budget.

    Raises:
        InvalidOption: Even the first of every ranking are too many.
    """
    pool: set[str] = set()
    deepest = max(each.deepest for each in rankings)
    for depth in range(1, deepest + 1):
        layer = {p for each in rankings for p in each.passages(depth, depth) if p not in wanted}
        pool |= layer
        if len(wanted) + len(pool) > num_passages:
            if depth == 1:
                raise InvalidOption(
                    f"--target_size: {len(wanted)} passages are judged, and depth 1 makes that "
                    f"{len(wanted) + len(pool)}. Give at least so many, and what --random adds."
                )
            return depth - 1
    return deepest


def share_out(total: int, parts: int) -> Sequence[int]:
    """Return how many of `total` each part gets, the first ones one more where it is uneven."""
    return [total // parts + (number < total % parts) for number in range(parts)]
