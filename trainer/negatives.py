"""What was mined, in the forms that trainings read."""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from asyncval.api import Text, TextForm, passage_files, read_texts
from trainer.errors import InputError


@dataclass(frozen=True, slots=True, kw_only=True)
class Mined:
    """A query, what is relevant to it, and what only looks so."""

    query_id: str
    positives: list[str]
    negatives: list[str]


def with_texts(
    mined: Iterable[Mined], candidates: Sequence[Path], form: TextForm
) -> tuple[list[Mined], dict[str, Text]]:
    """Return what was mined and the passages in it; positives that have no text are left out.

    Both are held in memory, each passage once.

    Raises:
        InputError: A negative is not in the corpus.
    """
    mined = list(mined)
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
    return kept, passages


def text_rows(
    mined: Iterable[Mined],
    queries: Mapping[str, Text],
    passages: Mapping[str, Text],
    scores: Callable[[str, Sequence[str]], Mapping[str, float]] | None,
) -> Iterator[str]:
    """Yield Tevatron's training lines: of texts, or of token ids where the corpus has these.

    `scores` gives those of some passages for a query; None: no scores are wanted.
    """

    def passage(passage_id: str, known: Mapping[str, float]) -> dict[str, Any]:
        found = passages[passage_id]
        row: dict[str, Any] = {"docid": found.id, "title": found.title, "text": found.text}
        return row | {"score": known[passage_id]} if known else row

    for one in mined:
        query = queries[one.query_id].text
        everything = [*one.positives, *one.negatives]
        known = {} if scores is None else scores(one.query_id, everything)
        row: dict[str, Any]
        if isinstance(query, str):
            row = {
                "query_id": one.query_id,
                "query": query,
                "positive_passages": [passage(each, known) for each in one.positives],
                "negative_passages": [passage(each, known) for each in one.negatives],
            }
        else:
            row = {
                "query": query,
                "positives": [passages[each].text for each in one.positives],
                "negatives": [passages[each].text for each in one.negatives],
                **({"scores": [known[each] for each in everything]} if known else {}),
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
    """Write a file aside and rename it; return how many lines it has.

    Raises:
        InputError: There is none.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    num_lines = 0
    try:
        with partial.open("w", encoding="utf-8") as file:
            for line in lines:
                file.write(line + "\n")
                num_lines += 1
        if not num_lines:
            raise InputError(
                "No query has both a negative at the ranks of --depth_range and a positive. Do "
                "run, queries, judgements and corpus belong together?"
            )
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    return num_lines
