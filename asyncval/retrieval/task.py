"""What is to be found out about every checkpoint, and what was."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from asyncval.core.measures import Measure
from asyncval.core.types import EncoderOptions, QuerySet, Result, SearchBackend, Text
from asyncval.retrieval.tokens import TextIds


@dataclass(frozen=True, slots=True, kw_only=True)
class CorpusTexts:
    """A corpus: `passages` gives it in reading order, and its files have the digest `digest`."""

    digest: str
    passages: Callable[[], Iterator[Text]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """What is to be found out about every checkpoint.

    `corpora` has every corpus by the name that query sets know it by. `query_digests` are
    those of the query files. Vectors of passages outlive their search only with
    `keep_vectors`.
    """

    query_sets: Sequence[QuerySet]
    query_digests: Sequence[str]
    corpora: Mapping[str, CorpusTexts]
    measures: Sequence[Measure]
    depth: int
    options: EncoderOptions
    queries_at_once: int | None = None
    search_backend: SearchBackend = "auto"
    keep_vectors: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranking:
    """The answers to one query set, best first: scores float32 and positions int64, [Q, K].

    A position is a row of `passage_ids`. `per_query` has every measure's value for each id in
    `judged`.
    """

    query_set: QuerySet
    passage_ids: TextIds
    scores: NDArray[np.float32]
    positions: NDArray[np.int64]
    judged: tuple[str, ...]
    per_query: dict[str, NDArray[np.float64]]
    query_embeddings: NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class EncodedCorpus:
    """The passages of one corpus and their vectors, float32 [P, D], None where none are kept."""

    passage_ids: TextIds
    embeddings: NDArray[np.float32] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """Everything that a validation found; the result is its summary."""

    result: Result
    rankings: tuple[Ranking, ...]
    corpora: Mapping[str, EncodedCorpus]
