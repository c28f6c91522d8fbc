"""One checkpoint becomes numbers: load, tokenise, encode, search, rank, score."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from asyncval.core.ports import Clock, ProgressListener
from asyncval.core.ranking import in_trec_order
from asyncval.core.types import Checkpoint, LoadedCheckpoint, Progress, QuerySet, Result, Text
from asyncval.retrieval.encode import Encoding, VectorBuffer, encode_portions
from asyncval.retrieval.profile import Cost, Speedometer, Work, matmul_rate
from asyncval.retrieval.sanity import PassageCheck
from asyncval.retrieval.score import Scorer
from asyncval.retrieval.search import TopK
from asyncval.retrieval.task import EncodedCorpus, Outcome, Ranking, Task
from asyncval.retrieval.texts import Tokenizers, load_tokenizers, load_tokens
from asyncval.retrieval.tokens import TextIds, TokenCache, TokenStore


@dataclass(slots=True)
class _Phases:
    """Measures how long each phase takes and tells the listener how far it is."""

    clock: Clock
    listener: ProgressListener
    seconds: dict[str, float] = field(default_factory=dict)
    _now: Progress = field(default_factory=lambda: Progress(phase=""))

    @contextmanager
    def phase(self, name: str, *, done: int = 0, total: int = 0) -> Iterator[None]:
        """Measure a part of a phase; a name may come again."""
        start = self.clock.monotonic()
        self._now = Progress(phase=name, done=done, total=total)
        self.listener(self._now)
        yield
        self.seconds[name] = self.seconds.get(name, 0.0) + self.clock.monotonic() - start

    def advance(self, done: int, *, before: int = 0) -> None:
        """Tell how much of this phase is done, beside what was done `before`."""
        self.listener(replace(self._now, done=before + done))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Tokens:
    """The tokenised texts of all corpora, by name, and of all query sets, in their order."""

    corpora: Mapping[str, TokenStore]
    queries: Sequence[TokenStore]
    shortened: tuple[str, ...]

    @property
    def num_passages(self) -> int:
        return sum(map(len, self.corpora.values()))

    @property
    def num_queries(self) -> int:
        return sum(map(len, self.queries))


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
        self._rate: float | None = None
        self._costs: dict[str, Cost] = {}
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
        encoding = replace(self._encoding, shrink=shrink)
        phases = _Phases(self._clock, listener)
        if self._rate is None:
            self._rate = matmul_rate(encoding, self._clock)
        start = self._clock.monotonic()
        with phases.phase("load"):
            loaded = self._load(checkpoint)
            tokenizers = load_tokenizers(loaded, self._task.options, name=checkpoint.name)
        with phases.phase("tokenize"):
            tokens = self._tokenize(loaded, tokenizers, phases)
        meter = Speedometer(encoding.device, self._rate, self._costs)
        queries = self._encode_queries(tokens, loaded, encoding, phases=phases, meter=meter)
        answers = [
            TopK(
                vectors,
                depth=self._task.depth,
                queries_at_once=self._task.queries_at_once,
                backend=self._task.search_backend,
                device=encoding.device,
            )
            for vectors in queries
        ]
        corpora: dict[str, EncodedCorpus] = {}
        passages = meter.work("passages", loaded.encoder.encode_passages)
        warnings = [*loaded.assumed, *tokens.shortened]
        for name in tokens.corpora:
            check = PassageCheck(len(tokens.corpora[name]), expected_dimension=dimension)
            corpora[name] = self._search(
                name,
                tokens,
                answers,
                loaded=loaded,
                encoding=encoding,
                check=check,
                phases=phases,
                work=passages,
            )
            warnings += check.warnings()
        with phases.phase("score"):
            rankings = tuple(
                self._rank(query_set, vectors, found, corpora[query_set.corpus].passage_ids)
                for query_set, vectors, found in zip(
                    self._task.query_sets, queries, answers, strict=True
                )
            )
        seconds = {**phases.seconds, "total": self._clock.monotonic() - start}
        speed = meter.speed(seconds["encode queries"] + seconds["encode passages"])
        return Outcome(
            result=Result(
                metrics=_means(rankings),
                seconds=seconds,
                speed=speed,
                num_texts=tokens.num_passages + tokens.num_queries,
                dimension=queries[0].shape[1],
                warnings=tuple(dict.fromkeys(warnings)),
            ),
            rankings=rankings,
            corpora=corpora,
        )

    def tokenize(
        self,
        loaded: LoadedCheckpoint,
        *,
        name: str,
        listener: ProgressListener = lambda progress: None,
    ) -> int:
        """Tokenise all texts for a checkpoint, which is called `name`; return their number."""
        phases = _Phases(self._clock, listener)
        tokenizers = load_tokenizers(loaded, self._task.options, name=name)
        with phases.phase("tokenize"):
            tokens = self._tokenize(loaded, tokenizers, phases)
        return tokens.num_passages + tokens.num_queries

    def _tokenize(
        self, loaded: LoadedCheckpoint, tokenizers: Tokenizers, phases: _Phases
    ) -> _Tokens:
        task = self._task
        remarks: list[str] = []

        def store(
            content: str,
            texts: Callable[[], Sequence[Text] | Iterator[Text]],
            *,
            is_query: bool,
        ) -> TokenStore:
            tokens, remark = load_tokens(
                loaded,
                tokenizers,
                options=task.options,
                cache=self._cache,
                content=content,
                texts=texts,
                is_query=is_query,
                on_progress=phases.advance,
            )
            remarks.extend(remark)
            return tokens

        return _Tokens(
            corpora={
                name: store(corpus.digest, corpus.passages, is_query=False)
                for name, corpus in task.corpora.items()
            },
            queries=[
                store(digest, partial(iter, each.queries), is_query=True)
                for digest, each in zip(task.query_digests, task.query_sets, strict=True)
            ],
            shortened=tuple(remarks),
        )

    def _encode_queries(
        self,
        tokens: _Tokens,
        loaded: LoadedCheckpoint,
        encoding: Encoding,
        *,
        phases: _Phases,
        meter: Speedometer,
    ) -> list[NDArray[np.float32]]:
        vectors = []
        done = 0
        encoding = replace(encoding, longest=loaded.queries.max_length)
        work = meter.work("queries", loaded.encoder.encode_queries)
        for queries in tokens.queries:
            with phases.phase("encode queries", done=done, total=tokens.num_queries):
                advance = partial(phases.advance, before=done)
                buffer = VectorBuffer(len(queries))
                for portion in encode_portions(
                    queries,
                    loaded.encoder.encode_queries,
                    encoding=encoding,
                    on_progress=advance,
                ):
                    buffer.add(portion)
                    work.add(portion)
                vectors.append(buffer.vectors)
            done += len(queries)
        return vectors

    def _search(
        self,
        name: str,
        tokens: _Tokens,
        answers: Sequence[TopK],
        *,
        loaded: LoadedCheckpoint,
        encoding: Encoding,
        check: PassageCheck,
        phases: _Phases,
        work: Work,
    ) -> EncodedCorpus:
        """Encode one corpus, portion by portion, and search each for what concerns it."""
        passages = tokens.corpora[name]
        names = list(tokens.corpora)
        before = sum(len(tokens.corpora[each]) for each in names[: names.index(name)])
        concerned = [
            top
            for query_set, top in zip(self._task.query_sets, answers, strict=True)
            if query_set.corpus == name
        ]
        buffer = VectorBuffer(len(passages)) if self._task.keep_vectors else None
        portions = encode_portions(
            passages,
            loaded.encoder.encode_passages,
            encoding=replace(encoding, longest=loaded.passages.max_length),
            on_progress=partial(phases.advance, before=before),
        )
        done = before
        while True:
            with phases.phase("encode passages", done=done, total=tokens.num_passages):
                portion = next(portions, None)
            if portion is None:
                break
            check.add(portion.vectors, first=portion.first)
            work.add(portion)
            with phases.phase("search"):
                for top in concerned:
                    top.add(portion.vectors, first=portion.first)
            if buffer is not None:
                buffer.add(portion)
            done += len(portion.vectors)
            del portion  # its memory is what the next one needs
        return EncodedCorpus(
            passage_ids=passages.text_ids, embeddings=buffer.vectors if buffer else None
        )

    def _rank(
        self,
        query_set: QuerySet,
        vectors: NDArray[np.float32],
        found: TopK,
        passage_ids: TextIds,
    ) -> Ranking:
        scores, positions = in_trec_order(
            *found.answers(), passage_ids=passage_ids, depth=self._task.depth
        )
        scorer = self._scorers.get(query_set.name)
        if scorer is None:  # the corpus is the same for all checkpoints, so its numbers are too
            scorer = Scorer(query_set, passage_ids=passage_ids, measures=self._task.measures)
            self._scorers[query_set.name] = scorer
        return Ranking(
            query_set=query_set,
            passage_ids=passage_ids,
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
