"""Mine hard negatives: passages that a model or a run ranks high and that are not relevant.

They come from a range of ranks, are drawn with a seed, and are written in the form that a
training reads.
"""

import logging
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal, Protocol

import numpy as np
import tyro
from numpy.typing import NDArray

from asyncval.api import (
    EncodingConfig,
    Judgements,
    Rankings,
    Text,
    TextConfig,
    TextForm,
    TopK,
    check_encoding,
    check_texts,
    in_trec_order,
    passage_files,
    read_qrels,
    read_run,
    read_texts,
)
from trainer.encode import load_encoder, tokenize
from trainer.errors import InputError
from trainer.flags import Flag, MaybeInt, check_target, log_to_stderr, parse
from trainer.negatives import Mined, id_rows, list_rows, text_rows, with_texts, write_lines
from trainer.wording import QUERY_KEYS, columns_of

logger = logging.getLogger("trainer")
PASSAGES_AT_ONCE = 1 << 18
"""How many passages are encoded before they are searched and forgotten."""


@dataclass(frozen=True, kw_only=True)
class MineConfig(EncodingConfig, TextConfig):
    """Write hard negatives for the judged queries, found by a checkpoint or taken from a run."""

    qrel_file: Annotated[Path, tyro.conf.arg(metavar="FILE")]
    """Judgements: what has a grade of 1 or more is never a negative."""
    output_file: Annotated[Path, tyro.conf.arg(metavar="FILE")]
    """Where the negatives go."""
    form: Literal["texts", "ids", "commas", "spaces"] = "texts"
    """Texts: Tevatron's JSON lines; ids: its later ones, for a corpus apart; `query<TAB>n1,n2`
    for RetroMAE and OpenMatch; `query<TAB>n1 n2` for Disentangled-Retriever."""
    model_name_or_path: Annotated[Path | None, tyro.conf.arg(metavar="CKPT")] = None
    """The checkpoint that searches. Either this or a run."""
    run_file: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """A run for the training queries, as `search` or another toolkit wrote it."""
    query_file: Annotated[tuple[Path, ...], tyro.conf.arg(metavar="FILE...")] = ()
    """The training queries: for a checkpoint, and for the forms with texts and ids."""
    candidate_dir: Annotated[tuple[Path, ...], tyro.conf.arg(metavar="PATH...")] = ()
    """The corpus, a folder or files: for a checkpoint, and for the form with texts."""
    depth_range: tuple[int, int] = (1, 200)
    """The first and the last rank that negatives come from."""
    num_negatives: MaybeInt = None
    """Draw so many for each query. Default: all in the range."""
    seed: int = 0
    """Decides which those are; the draw of a query does not depend on the other queries."""
    write_scores: Flag = False
    """With a checkpoint and texts: give each passage the checkpoint's score, to be distilled."""
    device: str = "auto"
    """Where the checkpoint runs: cpu, 0 or cuda:0. Default: the first GPU, else the CPU."""

    def __post_init__(self) -> None:
        """Refuse what cannot be meant."""
        first, last = self.depth_range
        if not 1 <= first <= last:
            raise InputError(f"--depth_range is {first} {last}. Give the first rank and the last.")
        if self.num_negatives is not None and self.num_negatives < 1:
            raise InputError(f"--num_negatives is {self.num_negatives}. It must be at least 1.")
        if (self.model_name_or_path is None) == (self.run_file is None):
            raise InputError("Give either --model_name_or_path or --run_file.")
        searches = self.model_name_or_path is not None
        if not self.query_file and (searches or self.form in ("texts", "ids")):
            raise InputError("--query_file is needed, for a checkpoint and for texts and ids.")
        if not self.candidate_dir and (searches or self.form == "texts"):
            raise InputError("--candidate_dir is needed, for a checkpoint and for texts.")
        if self.write_scores and not (searches and self.form == "texts"):
            raise InputError("--write_scores needs --model_name_or_path and --form texts.")
        check_texts(self)
        check_encoding(self)
        if self.form in ("texts", "ids"):
            check_written(self.query_template, QUERY_KEYS, option="--query_template")
        if self.form == "texts":
            check_written(self.doc_template, ("title", "text"), option="--doc_template")
        check_target(self.output_file, option="--output_file")


class Ranking(Protocol):
    """What was found for each query."""

    def of(self, query_id: str, first: int, last: int) -> list[str]:
        """Return the passages from one rank to another, both included, best first."""


def main(flags: Sequence[str]) -> None:
    """Find negatives, draw from them, and write them."""
    config = parse(MineConfig, flags, command="mine")
    log_to_stderr()
    positives = relevant_passages(read_qrels(config.qrel_file))
    query_form = config.query_form()
    if config.form in ("texts", "ids"):
        query_form = as_written(query_form)
    queries = {
        query.id: query
        for file in config.query_file
        for query in read_texts(file, option="--query_file", form=query_form)
        if query.id in positives
    }
    if config.query_file:
        if not queries:
            raise InputError(
                f"--query_file: none of the {len(positives)} judged queries is in it; the first is "
                f"{next(iter(positives), '')!r}."
            )
        positives = {query_id: positives[query_id] for query_id in queries}
    ranking = find(config, positives)
    mined = mine(
        positives,
        ranking,
        depth_range=config.depth_range,
        num_negatives=config.num_negatives,
        seed=config.seed,
    )
    rows = rows_of(mined, config, queries, ranking)
    num_rows = write_lines(rows, config.output_file)
    logger.info("%s is written: %d queries.", config.output_file, num_rows)
    if num_rows < len(positives):
        logger.warning(
            "%d queries are left out: nothing in their ranking is a negative, or nothing in the "
            "corpus is a positive.",
            len(positives) - num_rows,
        )


def rows_of(
    mined: Iterator[Mined], config: MineConfig, queries: Mapping[str, Text], ranking: Ranking
) -> Iterator[str]:
    """Return the lines of the form that is wanted."""
    if config.form == "texts":
        form = as_written(config.passage_form())
        found, passages = with_texts(mined, config.candidate_dir, form)
        scores = ranking.scores if config.write_scores and isinstance(ranking, Found) else None
        return text_rows(found, queries, passages, scores)
    if config.form == "ids":
        return id_rows(mined, queries)
    return list_rows(mined, separator="," if config.form == "commas" else " ")


def check_written(template: str | None, written: Sequence[str], *, option: str) -> None:
    """Refuse a template with a column that the output will not have."""
    lost = next((each for each in columns_of(template) if each not in written), None)
    if lost is not None:
        raise InputError(
            f"{option} has <{lost}>, which the output would not have. Use --form commas or spaces: "
            "the training then reads the texts where they are."
        )


def as_written(form: TextForm) -> TextForm:
    """Return how the texts of the output are read: the training that reads them words them."""
    return replace(form, template=None)


def relevant_passages(judgements: Judgements) -> dict[str, list[str]]:
    """Return the passages with a grade of 1 or more of each query that has any."""
    positives = {
        query_id: [passage_id for passage_id, grade in grades.items() if grade > 0]
        for query_id, grades in judgements.items()
    }
    return {query_id: found for query_id, found in positives.items() if found}


def mine(
    positives: Mapping[str, Sequence[str]],
    ranking: Ranking,
    *,
    depth_range: tuple[int, int],
    num_negatives: int | None,
    seed: int,
) -> Iterator[Mined]:
    """Yield each query that has a negative; its negatives are in the order of the ranking.

    Ranks are those of the whole ranking: positives are removed from the range, and nothing
    takes their place.
    """
    for query_id, relevant in positives.items():
        known = set(relevant)
        found = [each for each in ranking.of(query_id, *depth_range) if each not in known]
        if num_negatives is not None and len(found) > num_negatives:
            generator = random.Random(f"{seed} {query_id}")
            drawn = sorted(generator.sample(range(len(found)), num_negatives))
            found = [found[place] for place in drawn]
        if found:
            yield Mined(query_id=query_id, positives=[*relevant], negatives=found)


def find(config: MineConfig, positives: Mapping[str, Sequence[str]]) -> Ranking:
    """Return what the run or the checkpoint ranks."""
    if config.run_file is not None:
        lines = read_run(config.run_file)
        return Rankings(lines, name=str(config.run_file), depth=config.depth_range[1])
    return search(config, positives)


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What a checkpoint found: scores and positions [Q, K], best first.

    `rows` has the row of each query. With scores wanted, `query_vectors` are [Q, D] and
    `relevant_vectors` those of relevant passages, which may be found or not.
    """

    rows: Mapping[str, int]
    positions: NDArray[np.int64]
    passage_scores: NDArray[np.float32]
    passage_ids: Sequence[str]
    query_vectors: NDArray[np.float32]
    relevant_vectors: Mapping[str, NDArray[np.float32]]

    def of(self, query_id: str, first: int, last: int) -> list[str]:
        """Return the passages from one rank to another, both included, best first."""
        places = self.positions[self.rows[query_id], first - 1 : last]
        return [self.passage_ids[place] for place in places.tolist()]

    def scores(self, query_id: str, passage_ids: Sequence[str]) -> dict[str, float]:
        """Return the scores of some passages that were found or are relevant."""
        row = self.rows[query_id]
        found = self.of(query_id, 1, self.positions.shape[1])
        known = dict(zip(found, self.passage_scores[row].tolist(), strict=True))
        query = self.query_vectors[row]
        return {
            each: known[each] if each in known else float(query @ self.relevant_vectors[each])
            for each in passage_ids
        }


def search(config: MineConfig, positives: Mapping[str, Sequence[str]]) -> Found:
    """Search the whole corpus with the checkpoint, for the queries that have positives."""
    assert config.model_name_or_path is not None
    depth = config.depth_range[1]
    encoder = load_encoder(config.model_name_or_path, config, device=config.device)
    queries = tokenize(encoder, config.query_file, is_query=True, form=config.query_form())
    queries = queries.take(
        np.array([row for row, each in enumerate(queries.text_ids) if each in positives])
    )
    form = config.passage_form()
    files = passage_files(config.candidate_dir, form=form)
    passages = tokenize(encoder, files, is_query=False, form=form)
    query_vectors = encoder.encode(queries, is_query=True)  # [Q, D]
    top = TopK(query_vectors, depth=depth)
    relevant = {each for some in positives.values() for each in some}
    relevant_vectors: dict[str, NDArray[np.float32]] = {}
    for start in range(0, len(passages), PASSAGES_AT_ONCE):
        some = passages[start : start + PASSAGES_AT_ONCE]
        vectors = encoder.encode(some, is_query=False)
        top.add(vectors, first=start)
        if config.write_scores:
            relevant_vectors |= {
                each: vectors[row].copy()
                for row, each in enumerate(some.text_ids)
                if each in relevant
            }
        logger.info("%d of %d passages are searched.", start + len(some), len(passages))
    scores, positions = in_trec_order(*top.answers(), passage_ids=passages.text_ids, depth=depth)
    return Found(
        rows={query_id: row for row, query_id in enumerate(queries.text_ids)},
        positions=positions,
        passage_scores=scores,
        passage_ids=passages.text_ids,
        query_vectors=query_vectors,
        relevant_vectors=relevant_vectors,
    )
