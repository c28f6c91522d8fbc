"""Run files: rankings, as the first Asyncval, TREC, MS MARCO and the toolkits write them.

qid Q0 docid rank score tag         `trec`: ordered by score
qid<TAB>docid<TAB>rank              `msmarco`: ordered by rank, from 1
qid<TAB>docid<TAB>score             `score`: Tevatron; RetroMAE writes [score]
qid<TAB>docid<TAB>rank<TAB>score    `retromae`: ordered by rank

The number of columns tells the form, and for three what stands in the third (`_third_column`).
A line with the lowest score that there is fills up a ranking and names nobody: it is dropped.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice, pairwise
from pathlib import Path

from asyncval.core.errors import InvalidData
from asyncval.core.types import Retrieved, RunType, WriteRun
from asyncval.data.files import read_lines
from asyncval.data.qrels import is_header

COLUMNS = {"trec": 6, "retromae": 4, "msmarco": 3, "score": 3}
LOWEST_SCORE = -3.4e38
"""Scores below are FAISS's mark for a place that no passage took: the lowest float32."""
LINES_TO_TELL = 10_000


def read_run(path: Path, *, run_type: RunType = "auto") -> Iterator[Retrieved]:
    """Yield a run's lines in the file's order.

    Raises:
        InvalidData: The file is missing, or a line cannot be read as `run_type` says, or it
            could be ranks as well as scores.
    """
    if not path.is_file():
        raise InvalidData(f"--run_file: there is no file {str(path)!r}.")
    found = _form_of(path) if run_type == "auto" else run_type
    for number, fields in _rows(path):
        if len(fields) != COLUMNS.get(found):
            raise InvalidData(
                f"{str(path)!r}, line {number}: {len(fields)} columns. A run has 6 (TREC: query, "
                "Q0, passage, rank, score, tag), 4 (RetroMAE: query, passage, rank, score) or 3 "
                "(MS MARCO: query, passage, rank; Tevatron: query, passage, score)."
            )
        line = _to_retrieved(fields, found, f"{str(path)!r}, line {number}")
        if line is not None:
            yield line


def _rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    for number, _, line in read_lines(path):
        yield number, line.split("\t") if line.count("\t") > 1 else line.split()


def _to_retrieved(fields: Sequence[str], run_type: str, place: str) -> Retrieved | None:
    """Return what a line says, None where it only fills up a ranking."""
    rank, score = None, None
    if run_type in ("msmarco", "retromae"):
        rank = _rank(fields[2], place)
    if run_type != "msmarco":
        score = _score(fields[4 if run_type == "trec" else -1], place)
        if score < LOWEST_SCORE:
            return None
    passage_id = fields[2] if run_type == "trec" else fields[1]
    return Retrieved(query_id=fields[0], passage_id=passage_id, rank=rank, score=score)


def _score(field: str, place: str) -> float:
    try:
        score = float(field.strip().removeprefix("[").removesuffix("]"))
    except ValueError:
        score = math.nan
    if math.isnan(score):
        raise InvalidData(f"{place}: the score {field!r} is not a number.")
    return score


def _rank(field: str, place: str) -> int:
    rank = field.strip()
    if not rank.isdecimal() or int(rank) == 0:
        raise InvalidData(
            f"{place}: the rank {rank!r} is not a whole number from 1. If it is a score, say so "
            "with --run_type score."
        )
    return int(rank)


def _form_of(path: Path) -> str:
    """Return the form that the first lines have."""
    rows = [fields for _, fields in islice(_rows(path), LINES_TO_TELL)]
    columns = len(rows[0]) if rows else 0
    if columns == COLUMNS["msmarco"] and is_header([field.strip() for field in rows[0]]):
        raise InvalidData(
            f"{str(path)!r} has judgements, not a run: its first line names their columns. Give it "
            "as --qrel_file."
        )
    if columns == COLUMNS["msmarco"]:
        if len(rows) == LINES_TO_TELL:  # the last query may be cut off
            rows = [row for row in rows if row[0] != rows[-1][0]] or rows
        return _third_column([row for row in rows if len(row) == columns], path)
    if columns == COLUMNS["retromae"] and _are_judgements(rows):
        raise InvalidData(
            f"{str(path)!r} has judgements, not a run: its second column is 0 or Q0 throughout, "
            "and its last has whole grades. Give it as --qrel_file."
        )
    return next((name for name, count in COLUMNS.items() if count == columns), "trec")


def _are_judgements(rows: Sequence[Sequence[str]]) -> bool:
    """Return whether four columns are `query 0 passage grade`, where no rank stands."""
    rows = [row for row in rows if len(row) == COLUMNS["retromae"]]
    return all(row[1].strip() in ("0", "Q0") and _is_whole(row[3]) for row in rows) and any(
        row[2].strip() != "1" for row in rows
    )


def _is_whole(field: str) -> bool:
    return field.strip().removeprefix("-").isdecimal()


def _third_column(rows: Sequence[Sequence[str]], path: Path) -> str:
    """Return whether the third of three columns is a rank (`msmarco`) or a score.

    Anything but a whole number from 1 is a score. Ranks rise from line to line, beginning with
    1, or are 1 to n in any other order; whole numbers that fall and are not n to 1 are scores.

    Raises:
        InvalidData: It could be either.
    """
    queries: dict[str, list[int]] = {}
    for query_id, _, field in rows:
        if not field.strip().isdecimal() or int(field) == 0:
            return "score"
        queries.setdefault(query_id, []).append(int(field))
    if all(values[0] == 1 and _rise(values) for values in queries.values()):
        return "msmarco"
    several = [values for values in queries.values() if len(values) > 1]
    if several and all(_are_ranks(values) and not _rise(values[::-1]) for values in several):
        return "msmarco"
    if several and all(_rise(values[::-1]) and not _are_ranks(values) for values in several):
        return "score"
    raise InvalidData(
        f"{str(path)!r}: its third column could be ranks, where the lowest is best, or scores, "
        "where the highest is. Say which with --run_type msmarco or --run_type score."
    )


def _rise(values: Sequence[int]) -> bool:
    return all(one < next_one for one, next_one in pairwise(values))


def _are_ranks(values: Sequence[int]) -> bool:
    return sorted(values) == list(range(1, len(values) + 1))


def write_run(
    file_lines: Iterable[tuple[str, str, int, str]], path: Path, *, run_type: WriteRun, tag: str
) -> None:
    """Write (query id, passage id, rank from 1, score as text) lines, aside and renamed.

    Raises:
        InvalidData: An id could not be read back out of a TREC run.
    """
    partial = path.with_name(f".{path.name}.partial")
    try:
        with partial.open("w", encoding="utf-8") as file:
            for query_id, passage_id, rank, score in file_lines:
                if run_type == "trec":
                    _check_trec(query_id, path)
                    _check_trec(passage_id, path)
                    file.write(f"{query_id} Q0 {passage_id} {rank} {score} {tag}\n")
                else:
                    file.write(f"{query_id}\t{passage_id}\t{rank}\n")
    except (InvalidData, OSError):  # an id that cannot be written, a full disk
        partial.unlink(missing_ok=True)
        raise
    partial.replace(path)


def _check_trec(text: str, path: Path) -> None:
    if len(text.split()) != 1:
        raise InvalidData(
            f"{str(path)!r} is not written: the id {text!r} is empty or has white space, which a "
            "TREC run cannot carry. Write an MS MARCO run."
        )
