"""One checkpoint becomes numbers: load, tokenise, encode, search, rank, score."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from asyncval.core.measures import Measure
from asyncval.core.ports import Clock, ProgressListener
from asyncval.core.ranking import in_trec_order
from asyncval.core.types import (
    Checkpoint,
    EncoderOptions,
    LoadedCheckpoint,
    Progress,
    QuerySet,
    Result,
    Text,
)
from asyncval.retrieval.encode import Encoding, encode
from asyncval.retrieval.sanity import check_passages
from asyncval.retrieval.score import Scorer
from asyncval.retrieval.search import TopK
from asyncval.retrieval.texts import Tokenizers, load_tokenizers, load_tokens
from asyncval.retrieval.tokens import TextIds, TokenCache, TokenStore


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranking:
    """The answers to one query set, best first: scores float32 and positions int64, [Q, K].

    `per_query` has every measure's value for each id in `judged`.
    """

    query_set: QuerySet
    scores: NDArray[np.float32]
    positions: NDArray[np.int64]
    judged: tuple[str, ...]
    per_query: dict[str, NDArray[np.float64]]
    query_embeddings: NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """Everything that a validation found; the result is its summary."""

    result: Result
    rankings: tuple[Ranking, ...]
    passage_ids: TextIds
    passage_embeddings: NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """What is to be found out about every checkpoint.

    `passages` gives the corpus in reading order, whose files have the digest
    `corpus_digest`; `query_digests` are those of the query files.
    """

    query_sets: Sequence[QuerySet]
    query_digests: Sequence[str]
    passages: Callable[[], Iterator[Text]]
    corpus_digest: str
    measures: Sequence[Measure]
    depth: int
    options: EncoderOptions
    queries_at_once: int | None = None


@dataclass(slots=True)
class _Phases:
    """Measures how long each phase takes and tells the listener how far it is."""

    clock: Clock
    listener: ProgressListener
    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def phase(self, name: str, total: int = 0) -> Iterator[Callable[[int], None]]:
        start = self.clock.monotonic()
        self.listener(Progress(phase=name, total=total))
        yield lambda done: self.listener(Progress(phase=name, done=done, total=total))
        self.seconds[name] = self.seconds.get(name, 0.0) + self.clock.monotonic() - start


class Validator:
    """Validates one checkpoint after another; texts are tokenised once for all of them.

    Args:
        task: What to find out.
        load: Turns a checkpoint into an encoder.
        encoding: Device and batch size.
        cache: Where tokens are kept.
        clock: Measures the phases.
    """

    def __init__(
        self,
        task: Task,
        *,
        load: Callable[[Checkpoint], LoadedCheckpoint],
        encoding: Encoding,
        cache: TokenCache,
        clock: Clock,
    ) -> None:
        self._task = task
        self._load = load
        self._encoding = encoding
        self._cache = cache
        self._clock = clock
        self._scorers: dict[str, Scorer] = {}

    def validate(
        self,
        checkpoint: Checkpoint,
        *,
        listener: ProgressListener = lambda progress: None,
        shrink: int = 0,
        dimension: int | None = None,
    ) -> Outcome:
        """Validate one checkpoint.

        Args:
            checkpoint: The checkpoint.
            listener: Told how far it is.
            shrink: How often the batches are made smaller.
            dimension: That of the checkpoints before, None where there were none.

        Raises:
            CheckpointError: It cannot be evaluated, or its numbers could not be trusted.
        """
        task = self._task
        encoding = replace(self._encoding, shrink=shrink)
        phases = _Phases(self._clock, listener)
        start = self._clock.monotonic()
        with phases.phase("load"):
            loaded = self._load(checkpoint)
            tokenizers = load_tokenizers(loaded, task.options, name=checkpoint.name)
        with phases.phase("tokenize") as advance:
            passages, shortened = self._tokens(
                loaded,
                tokenizers,
                task.corpus_digest,
                task.passages,
                is_query=False,
                advance=advance,
            )
            asked = [
                self._tokens(
                    loaded, tokenizers, digest, partial(iter, query_set.queries), is_query=True
                )
                for digest, query_set in zip(task.query_digests, task.query_sets, strict=True)
            ]
        queries = [store for store, _ in asked]
        shortened += asked[0][1]
        with phases.phase("encode queries", sum(map(len, queries))) as advance:
            query_vectors = [
                encode(q, loaded.encoder.encode_queries, encoding=encoding, on_progress=advance)
                for q in queries
            ]
        with phases.phase("encode passages", len(passages)) as advance:
            passage_vectors = encode(
                passages,
                loaded.encoder.encode_passages,
                encoding=encoding,
                on_progress=advance,
            )
            alike = tuple(check_passages(passage_vectors, expected_dimension=dimension))
        with phases.phase("search"):
            found = [self._search(vectors, passage_vectors) for vectors in query_vectors]
        with phases.phase("score"):
            rankings = tuple(
                self._rank(each, vectors, scores, positions, passages.text_ids)
                for each, vectors, (scores, positions) in zip(
                    task.query_sets, query_vectors, found, strict=True
                )
            )
        seconds = {**phases.seconds, "total": self._clock.monotonic() - start}
        return Outcome(
            result=Result(
                metrics=_means(rankings),
                seconds=seconds,
                num_texts=len(passages) + sum(map(len, queries)),
                dimension=passage_vectors.shape[1],
                warnings=(*loaded.assumed, *shortened, *alike),
            ),
            rankings=rankings,
            passage_ids=passages.text_ids,
            passage_embeddings=passage_vectors,
        )

    def _tokens(
        self,
        loaded: LoadedCheckpoint,
        tokenizers: Tokenizers,
        digest: str,
        texts: Callable[[], Sequence[Text] | Iterator[Text]],
        *,
        is_query: bool,
        advance: Callable[[int], None] = lambda done: None,
    ) -> tuple[TokenStore, tuple[str, ...]]:
        return load_tokens(
            loaded,
            tokenizers,
            options=self._task.options,
            cache=self._cache,
            content=digest,
            texts=texts,
            is_query=is_query,
            on_progress=advance,
        )

    def _search(
        self, queries: NDArray[np.float32], passages: NDArray[np.float32]
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        top = TopK(queries, depth=self._task.depth, queries_at_once=self._task.queries_at_once)
        top.add(passages, first=0)
        return top.answers()

    def _rank(
        self,
        query_set: QuerySet,
        vectors: NDArray[np.float32],
        scores: NDArray[np.float32],
        positions: NDArray[np.int64],
        passage_ids: TextIds,
    ) -> Ranking:
        scores, positions = in_trec_order(
            scores, positions, passage_ids=passage_ids, depth=self._task.depth
        )
        scorer = self._scorers.get(query_set.name)
        if scorer is None:  # the corpus is the same for all checkpoints, so its numbers are too
            scorer = Scorer(query_set, passage_ids=passage_ids, measures=self._task.measures)
            self._scorers[query_set.name] = scorer
        return Ranking(
            query_set=query_set,
            scores=scores,
            positions=positions,
            judged=scorer.query_ids,
            per_query=scorer.score(positions),
            query_embeddings=vectors,
        )


def _means(rankings: Sequence[Ranking]) -> dict[str, float]:
    """Return each measure's mean, under `<set>/<measure>` where there are several sets."""
    several = len(rankings) > 1
    return {
        f"{ranking.query_set.name}/{measure}" if several else measure: float(values.mean())
        for ranking in rankings
        for measure, values in ranking.per_query.items()
    }
