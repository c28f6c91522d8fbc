"""Exact search in vectors on disk: one shard at a time, the best of all of them in the end."""

import logging
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import tyro
from numpy.typing import NDArray

from asyncval.api import (
    TopK,
    in_trec_order,
    mean_measures,
    read_embeddings,
    read_qrels,
    run_lines,
    write_run,
)
from trainer.errors import InputError
from trainer.flags import MaybeInt, check_target, log_to_stderr, parse
from trainer.shards import difference, embedding_files, origin_of

logger = logging.getLogger("trainer")
TAG = "trainer"


@dataclass(frozen=True, kw_only=True)
class SearchConfig:
    """Search vectors that `encode` or another toolkit wrote, by inner product, exactly."""

    query_reps: Annotated[tuple[Path, ...], tyro.conf.arg(metavar="PATH...")]
    """The queries' vectors: a folder that `encode` wrote, or files."""
    passage_reps: Annotated[tuple[Path, ...], tyro.conf.arg(metavar="PATH...")]
    """The passages' vectors, which may be in several files: one at a time is in memory."""
    save_ranking_to: Annotated[Path, tyro.conf.arg(metavar="FILE")]
    """Where the run goes."""
    save_format: Literal["trec", "msmarco"] = "trec"
    """TREC's six columns, or query, passage and rank."""
    depth: int = 100
    """How many passages are retrieved for a query."""
    batch_size: MaybeInt = None
    """The most queries in one call of FAISS. Default: all."""
    qrel_file: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """Judgements: print how good the run is."""
    metrics: Annotated[tuple[str, ...], tyro.conf.arg(metavar="MEASURE...")] = ("RR@10", "nDCG@10")
    """Measures, as ir_measures spells them: RR@10, nDCG@10, R@100, AP."""

    def __post_init__(self) -> None:
        """Refuse what cannot be meant."""
        for name in ("depth", "batch_size"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InputError(f"--{name} is {value}. It must be at least 1.")
        check_target(self.save_ranking_to, option="--save_ranking_to")


def main(flags: Sequence[str]) -> None:
    """Search, and write the run."""
    config = parse(SearchConfig, flags, command="search")
    log_to_stderr()
    query_files = embedding_files(config.query_reps, side="queries", option="--query_reps")
    passage_files = embedding_files(config.passage_reps, side="passages", option="--passage_reps")
    judgements = read_qrels(config.qrel_file) if config.qrel_file else None
    warn_of_two_models(query_files[0], passage_files[0])
    queries, query_ids = read_embeddings(query_files)
    if not query_ids:
        raise InputError("--query_reps: there is no vector in these files.")
    top = TopK(queries, depth=config.depth, queries_at_once=config.batch_size)
    passage_ids = search(top, passage_files, dimension=queries.shape[1])
    scores, positions = top.answers()
    refuse_repetition(positions, passage_ids)
    scores, positions = in_trec_order(
        scores, positions, passage_ids=passage_ids, depth=config.depth
    )
    config.save_ranking_to.parent.mkdir(parents=True, exist_ok=True)
    lines = run_lines(query_ids, scores, positions, passage_ids=passage_ids)
    write_run(lines, config.save_ranking_to, run_type=config.save_format, tag=TAG)
    logger.info("%s is written: %d queries.", config.save_ranking_to, len(query_ids))
    if judgements is not None:
        means = mean_measures(
            config.metrics,
            judgements=judgements,
            query_ids=query_ids,
            positions=positions,
            passage_ids=passage_ids,
        )
        sys.stdout.writelines(f"{name}\t{value:.4f}\n" for name, value in means.items())


def search(top: TopK, files: Sequence[Path], *, dimension: int) -> list[str]:
    """Search the files one after another; return all passage ids, in order."""
    ids: list[str] = []
    for file in files:
        vectors, some = read_embeddings([file])
        if not some:  # a process of OpenMatch that had no texts
            continue
        if vectors.shape[1] != dimension:
            raise InputError(
                f"{str(file)!r} has vectors of {vectors.shape[1]} dimensions where those of the "
                f"queries have {dimension}: they are not of one model."
            )
        top.add(vectors, first=len(ids))
        ids += some
        logger.info("%d passages are searched.", len(ids))
    if not ids:
        raise InputError("--passage_reps: there is no vector in these files.")
    return ids


def warn_of_two_models(queries: Path, passages: Path) -> None:
    """Say so where our shards tell that their vectors were made in different ways."""
    one, other = ({**origin_of(each), "texts": ""} for each in (queries, passages))
    different = difference(one, other)
    if len(one) > 1 and len(other) > 1 and different:
        logger.warning("Queries and passages were encoded with another %s each.", different)


def refuse_repetition(positions: NDArray[np.int64], passage_ids: Sequence[str]) -> None:
    """Refuse a passage that was found in two files."""
    found = Counter(passage_ids[position] for position in np.unique(positions).tolist())
    twice, times = found.most_common(1)[0]
    if times > 1:
        raise InputError(f"--passage_reps: the passage {twice!r} stands twice in these files.")
