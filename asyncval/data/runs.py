"""Run files: TREC's six columns or MS MARCO's three.

qid Q0 docid rank score tag     TREC: ordered by score
qid<TAB>docid<TAB>rank          MS MARCO: ordered by rank, from 1
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from asyncval.core.errors import InvalidData
from asyncval.core.types import Retrieved, RunType
from asyncval.data.files import read_lines

COLUMNS = {"trec": 6, "msmarco": 3}


def read_run(path: Path, *, run_type: RunType = "auto") -> Iterator[Retrieved]:
    """Yield a run's lines in the file's order.

    Raises:
        InvalidData: The file is missing, or a line cannot be read as `run_type` says.
    """
    if not path.is_file():
        raise InvalidData(f"--run_file: there is no file {str(path)!r}.")
    by_columns = {count: name for name, count in COLUMNS.items()}
    found: str = run_type
    for number, _, line in read_lines(path):
        fields = line.split("\t") if line.count("\t") > 1 else line.split()
        if found == "auto":
            found = by_columns.get(len(fields), "auto")
        if len(fields) != COLUMNS.get(found):
            raise InvalidData(
                f"{str(path)!r}, line {number}: {len(fields)} columns. A run has 6 (TREC: query, "
                "Q0, passage, rank, score, tag) or 3 (MS MARCO: query, passage, rank)."
            )
        yield _to_retrieved(fields, f"{str(path)!r}, line {number}")


def _to_retrieved(fields: Sequence[str], place: str) -> Retrieved:
    if len(fields) == COLUMNS["trec"]:
        try:
            score = float(fields[4])
        except ValueError:
            score = math.nan
        if math.isnan(score):
            raise InvalidData(f"{place}: the score {fields[4]!r} is not a number.")
        return Retrieved(query_id=fields[0], passage_id=fields[2], rank=None, score=score)
    rank = fields[2].strip()
    if not rank.isdecimal() or int(rank) == 0:
        raise InvalidData(
            f"{place}: the rank {rank!r} is not a whole number from 1. A run with scores needs "
            "TREC's six columns."
        )
    return Retrieved(query_id=fields[0], passage_id=fields[1], rank=int(rank), score=None)


def write_run(
    file_lines: Iterable[tuple[str, str, int, str]], path: Path, *, run_type: RunType, tag: str
) -> None:
    """Write (query id, passage id, rank from 1, score as text) lines, aside and renamed."""
    partial = path.with_name(f".{path.name}.partial")
    with partial.open("w", encoding="utf-8") as file:
        for query_id, passage_id, rank, score in file_lines:
            if run_type == "trec":
                file.write(f"{query_id} Q0 {passage_id} {rank} {score} {tag}\n")
            else:
                file.write(f"{query_id}\t{passage_id}\t{rank}\n")
    partial.replace(path)
