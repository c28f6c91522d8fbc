"""Mine hard negatives: passages that a model or a run ranks high and that are not relevant.

They come from a range of ranks, are drawn with a seed, and are written in the form that a
training reads.
"""

import json
import logging
import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Protocol

import numpy as np
import tyro

from asyncval.api import (
    EncodingConfig,
    Judgements,
    Rankings,
    Text,
    TextConfig,
    TextForm,
    TopK,
    in_trec_order,
    passage_files,
    read_qrels,
    read_run,
    read_texts,
)
from trainer.encode import load_encoder
from trainer.errors import InputError
from trainer.flags import Flag, MaybeInt, log_to_stderr, parse

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


class Ranking(Protocol):
    """What was found for each query."""

    def of(self, query_id: str, first: int, last: int) -> list[str]:
        """Return the passages from one rank to another, both included, best first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mined:
    """A query, what is relevant to it, and what only looks so."""

    query_id: str
    positives: list[str]
    negatives: list[str]


def main(flags: Sequence[str]) -> None:
    """Find negatives, draw from them, and write them."""
    config = parse(MineConfig, flags, command="mine")
    log_to_stderr()
    positives = relevant_passages(read_qrels(config.qrel_file))
    queries = {
        query.id: query
        for file in config.query_file
        for query in read_texts(file, option="--query_file", form=config.query_form())
        if query.id in positives
    }
    if config.query_file:
        positives = {query_id: positives[query_id] for query_id in queries}
    ranking, scores = find(config, positives)
    mined = list(
        mine(
            positives,
            ranking,
            depth_range=config.depth_range,
            num_negatives=config.num_negatives,
            seed=config.seed,
        )
    )
    if not mined:
        raise InputError(
            f"None of the {len(positives)} queries has a negative at the ranks of --depth_range. "
            "Do run, queries and judgements belong together?"
        )
    if len(mined) < len(positives):
        logger.warning("%d queries have no negative: left out.", len(positives) - len(mined))
    if config.form == "texts":
        mined, passages = with_texts(mined, config.candidate_dir, config.passage_form())
        rows = text_rows(mined, queries, passages, scores)
    elif config.form == "ids":
        rows = id_rows(mined, queries)
    else:
        rows = list_rows(mined, separator="," if config.form == "commas" else " ")
    num_rows = write_lines(rows, config.output_file)
    logger.info("%s is written: %d queries.", config.output_file, num_rows)


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


Scores = Mapping[str, Mapping[str, float]]
"""Query id to passage id to score."""


def find(
    config: MineConfig, positives: Mapping[str, Sequence[str]]
) -> tuple[Ranking, Scores | None]:
    """Return what the run or the checkpoint ranks, and its scores if they are wanted."""
    if config.run_file is not None:
        lines = read_run(config.run_file)
        last = config.depth_range[1]
        return Rankings(lines, name=str(config.run_file), depth=last), None
    found = search(config, positives)
    return found, found.scores if config.write_scores else None


class Found:
    """What a checkpoint found: the ranking of some queries, and scores as they are asked for."""

    def __init__(self, ids: Mapping[str, list[str]], scores: Scores) -> None:
        self._ids = ids
        self.scores = scores

    def of(self, query_id: str, first: int, last: int) -> list[str]:
        """Return the passages from one rank to another, both included, best first."""
        return self._ids[query_id][first - 1 : last]


def search(config: MineConfig, positives: Mapping[str, Sequence[str]]) -> Found:
    """Search the whole corpus with the checkpoint, for the queries that have positives."""
    assert config.model_name_or_path is not None
    depth = config.depth_range[1]
    encoder = load_encoder(config.model_name_or_path, config, device=config.device)
    queries = encoder.tokenize(config.query_file, is_query=True, form=config.query_form())
    queries = queries.take(
        np.array([row for row, each in enumerate(queries.text_ids) if each in positives])
    )
    form = config.passage_form()
    files = passage_files(config.candidate_dir, form=form)
    passages = encoder.tokenize(files, is_query=False, form=form)
    for remark in encoder.remarks:
        logger.warning(remark)
    query_vectors = encoder.encode(queries, is_query=True)  # [Q, D]
    top = TopK(query_vectors, depth=depth)
    relevant = {each for some in positives.values() for each in some}
    relevant_vectors: dict[str, Any] = {}
    for start in range(0, len(passages), PASSAGES_AT_ONCE):
        some = passages.take(np.arange(start, min(start + PASSAGES_AT_ONCE, len(passages))))
        vectors = encoder.encode(some, is_query=False)
        top.add(vectors, first=start)
        if config.write_scores:
            relevant_vectors |= {
                each: vectors[row] for row, each in enumerate(some.text_ids) if each in relevant
            }
        logger.info("%d of %d passages are searched.", start + len(some), len(passages))
    scores, positions = in_trec_order(*top.answers(), passage_ids=passages.text_ids, depth=depth)
    ids: dict[str, list[str]] = {}
    known: dict[str, dict[str, float]] = {}
    for row, query_id in enumerate(queries.text_ids):
        ids[query_id] = [passages.text_ids[position] for position in positions[row].tolist()]
        if config.write_scores:
            known[query_id] = dict(zip(ids[query_id], scores[row].tolist(), strict=True)) | {
                each: float(query_vectors[row] @ relevant_vectors[each])
                for each in positives[query_id]
                if each in relevant_vectors
            }
    return Found(ids, known)


def with_texts(
    mined: Sequence[Mined], candidates: Sequence[Path], form: TextForm
) -> tuple[list[Mined], dict[str, Text]]:
    """Return what was mined and the passages in it; positives that have no text are left out.

    Raises:
        InputError: A negative is not in the corpus.
    """
    wanted = {each for one in mined for each in (*one.positives, *one.negatives)}
    passages = {
        passage.id: passage
        for file in passage_files(candidates, form=form)
        for passage in read_texts(file, option="--candidate_dir", form=form)
        if passage.id in wanted
    }
    strange = next((p for one in mined for p in one.negatives if p not in passages), None)
    if strange is not None:
        raise InputError(
            f"--candidate_dir: there is no passage {strange!r}, which was retrieved. Is it the "
            "right corpus?"
        )
    kept = []
    for one in mined:
        there = [each for each in one.positives if each in passages]
        if there:
            kept.append(Mined(query_id=one.query_id, positives=there, negatives=one.negatives))
    if len(kept) < len(mined):
        lost = len(mined) - len(kept)
        logger.warning("%d queries have no positive in the corpus: left out.", lost)
    return kept, passages


def text_rows(
    mined: Iterable[Mined],
    queries: Mapping[str, Text],
    passages: Mapping[str, Text],
    scores: Scores | None,
) -> Iterator[str]:
    """Yield Tevatron's training lines: of texts, or of token ids where the corpus has these."""

    def passage(query_id: str, passage_id: str) -> dict[str, Any]:
        found = passages[passage_id]
        row: dict[str, Any] = {"docid": found.id, "title": found.title, "text": found.text}
        return row if scores is None else row | {"score": scores[query_id][passage_id]}

    for one in mined:
        query = queries[one.query_id].text
        row: dict[str, Any]
        if isinstance(query, str):
            row = {
                "query_id": one.query_id,
                "query": query,
                "positive_passages": [passage(one.query_id, each) for each in one.positives],
                "negative_passages": [passage(one.query_id, each) for each in one.negatives],
            }
        else:
            row = {
                "query": query,
                "positives": [passages[each].text for each in one.positives],
                "negatives": [passages[each].text for each in one.negatives],
            }
        yield json.dumps(row, ensure_ascii=False)


def id_rows(mined: Iterable[Mined], queries: Mapping[str, Text]) -> Iterator[str]:
    """Yield the training lines of later Tevatrons, whose corpus is a file apart."""
    for one in mined:
        row = {
            "query_id": one.query_id,
            "query_text": queries[one.query_id].text,
            "positive_document_ids": one.positives,
            "negative_document_ids": one.negatives,
        }
        yield json.dumps(row, ensure_ascii=False)


def list_rows(mined: Iterable[Mined], *, separator: str) -> Iterator[str]:
    """Yield lines of a query id, a tab, and the ids of its negatives.

    Raises:
        InputError: An id has the separator in it.
    """
    for one in mined:
        odd = next((each for each in one.negatives if separator in each or "\t" in each), None)
        if odd is not None:
            raise InputError(
                f"The passage id {odd!r} has in it what separates ids. Give another --form."
            )
        yield f"{one.query_id}\t{separator.join(one.negatives)}"


def write_lines(lines: Iterable[str], path: Path) -> int:
    """Write a file aside and rename it; return how many lines it has."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    num_lines = 0
    try:
        with partial.open("w", encoding="utf-8") as file:
            for line in lines:
                file.write(line + "\n")
                num_lines += 1
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    return num_lines
