"""What a validation leaves on disk: run files, values per query, embeddings if wanted."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from asyncval.core.types import WriteRun
from asyncval.data.runs import write_run
from asyncval.retrieval.validate import Outcome, Ranking

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
            write_run(_run_lines(ranking, outcome), path, run_type=runs, tag=TAG)
        _write_per_query(ranking, folder / "per_query" / f"{stem}.tsv")
        if embeddings:
            ids = [query.id for query in ranking.query_set.queries]
            _write_vectors(ranking.query_embeddings, ids, folder / "embeddings", f"{stem}.queries")
    if embeddings:
        ids = list(outcome.passage_ids)
        _write_vectors(outcome.passage_embeddings, ids, folder / "embeddings", f"{name}.passages")


def _run_lines(ranking: Ranking, outcome: Outcome) -> Iterator[tuple[str, str, int, str]]:
    """Yield the lines of a run; a score is the shortest text that gives the same float32."""
    for query, scores, positions in zip(
        ranking.query_set.queries, ranking.scores, ranking.positions.tolist(), strict=True
    ):
        for rank, (score, position) in enumerate(zip(scores, positions, strict=True), start=1):
            yield query.id, outcome.passage_ids[position], rank, str(score)


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
