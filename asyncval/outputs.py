"""What a validation leaves on disk: run files, values per query, embeddings if wanted."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from asyncval.core.types import WriteRun
from asyncval.data.runs import write_run
from asyncval.retrieval.task import Outcome, Ranking

SUFFIX = {"trec": "trec", "msmarco": "tsv"}
TAG = "asyncval"


def write_outputs(
    outcome: Outcome, folder: Path, *, name: str, runs: WriteRun, embeddings: bool
) -> None:
    """Write the files of one checkpoint; each is complete or not there.

    Args:
        outcome: What the validation found.
        folder: The output folder.
        name: The checkpoint's name, the first part of every file's.
        runs: The form of run files.
        embeddings: Whether to write all vectors, float32, and the ids of their rows.
    """
    several = len(outcome.rankings) > 1
    for ranking in outcome.rankings:
        stem = f"{name}.{ranking.query_set.name}" if several else name
        if runs != "none":
            path = folder / "runs" / f"{stem}.{SUFFIX[runs]}"
            path.parent.mkdir(parents=True, exist_ok=True)
            lines = run_lines(
                [query.id for query in ranking.query_set.queries],
                ranking.scores,
                ranking.positions,
                passage_ids=ranking.passage_ids,
            )
            write_run(lines, path, run_type=runs, tag=TAG)
        _write_per_query(ranking, folder / "per_query" / f"{stem}.tsv")
        if embeddings:
            ids = [query.id for query in ranking.query_set.queries]
            _write_vectors(ranking.query_embeddings, ids, folder / "embeddings", f"{stem}.queries")
    for corpus, encoded in outcome.corpora.items():
        if embeddings and encoded.embeddings is not None:
            stem = f"{name}.{corpus}" if corpus else name
            ids = list(encoded.passage_ids)
            _write_vectors(encoded.embeddings, ids, folder / "embeddings", f"{stem}.passages")


def remove_partials(folder: Path) -> None:
    """Remove what processes that were killed, or found no space, left half-written.

    Args:
        folder: An output folder that nobody writes to now.
    """
    for place in ("runs", "per_query", "embeddings"):
        for path in (folder / place).glob(".*.partial*"):
            path.unlink(missing_ok=True)


def run_lines(
    query_ids: Iterable[str],
    scores: NDArray[np.float32],
    positions: NDArray[np.int64],
    *,
    passage_ids: Sequence[str],
) -> Iterator[tuple[str, str, int, str]]:
    """Yield what `write_run` takes; a score is the shortest text that gives the same float32.

    Args:
        query_ids: [Q] ids.
        scores: [Q, K] scores, best first.
        positions: [Q, K] rows of `passage_ids`.
        passage_ids: [P] ids.
    """
    for query_id, row, places in zip(query_ids, scores, positions.tolist(), strict=True):
        for rank, (score, position) in enumerate(zip(row, places, strict=True), start=1):
            yield query_id, passage_ids[position], rank, str(score)


def _write_per_query(ranking: Ranking, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    with partial.open("w", encoding="utf-8") as file:
        file.write("\t".join(["query_id", *ranking.per_query]) + "\n")
        columns = [values.tolist() for values in ranking.per_query.values()]
        for query_id, *values in zip(ranking.judged, *columns, strict=True):
            file.write("\t".join([query_id, *map(repr, values)]) + "\n")
    partial.replace(path)


def _write_vectors(vectors: NDArray[np.float32], ids: list[str], folder: Path, stem: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    partial = folder / f".{stem}.partial.npy"
    np.save(partial, vectors)
    (folder / f"{stem}.ids.txt").write_text("".join(f"{each}\n" for each in ids), "utf-8")
    partial.replace(folder / f"{stem}.npy")
