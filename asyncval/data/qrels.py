"""Relevance judgements: TREC's four columns, BEIR's three, or pairs.

    qid iter docid grade        TREC and MS MARCO
    qid docid grade             BEIR, with or without its header
    qid docid[,docid...]        pairs, all of grade 1

`ir_datasets:NAME` is that data set's judgements. The first line decides for the whole file; one
that names the columns is passed over. Fields are split at tabs where a line has one,
at any white space otherwise.
"""

from pathlib import Path

from asyncval.core.errors import InvalidData
from asyncval.core.types import Judgements
from asyncval.data.files import read_lines
from asyncval.data.folders import qrels_in
from asyncval.data.ir_datasets import dataset_name, read_named_qrels

QUERY_COLUMNS = ("query-id", "qid", "topic", "query")
PASSAGE_COLUMNS = (
    "corpus-id",
    "doc",
    "doc-id",
    "docid",
    "docno",
    "document",
    "document-id",
    "passage",
    "passage-id",
    "pid",
)


def read_qrels(path: Path) -> Judgements:
    """Return query id to passage id to grade, in the file's order.

    Raises:
        InvalidData: The file is missing or empty, a line has another number of columns than
            the first, an id is empty, a grade is no whole number, or a pair has two different
            grades.
    """
    if dataset_name(path) is not None:
        return read_named_qrels(path)
    path = qrels_in(path)
    if not path.is_file():
        raise InvalidData(f"--qrel_file: there is no file {str(path)!r}.")
    judgements: dict[str, dict[str, int]] = {}
    columns = 0
    for number, _, line in read_lines(path):
        fields = [field.strip() for field in line.split("\t" if "\t" in line else None)]
        if columns == 0:
            columns = len(fields)
            if columns not in (2, 3, 4):
                raise InvalidData(
                    f"{str(path)!r}, line {number}: {columns} columns. Judgements have 4 (query, "
                    "iteration, passage, grade), 3 (query, passage, grade) or 2 (query, passage)."
                )
            if _is_header(fields):
                continue
        if len(fields) != columns:
            raise InvalidData(
                f"{str(path)!r}, line {number}: {len(fields)} columns where the first line has "
                f"{columns}."
            )
        for query_id, passage_id, grade in _pairs(fields, path, number):
            if not query_id or not passage_id:
                raise InvalidData(
                    f"{str(path)!r}, line {number}: the id of the "
                    f"{'passage' if query_id else 'query'} is empty. Write it, or leave it out."
                )
            if judgements.setdefault(query_id, {}).setdefault(passage_id, grade) != grade:
                raise InvalidData(
                    f"{str(path)!r}, line {number}: query {query_id!r} and passage "
                    f"{passage_id!r} have the grade {grade} here and another one before."
                )
    if not judgements:
        raise InvalidData(f"--qrel_file: {str(path)!r} has no judgement in it.")
    return judgements


def _is_header(fields: list[str]) -> bool:
    names = [field.lower().replace("_", "-") for field in fields]
    passage = names[-1] if len(fields) == 2 else names[-2]
    is_grade = len(fields) > 2 and _grade(fields[-1]) is not None
    return names[0] in QUERY_COLUMNS and passage in PASSAGE_COLUMNS and not is_grade


def _pairs(fields: list[str], path: Path, number: int) -> list[tuple[str, str, int]]:
    if len(fields) == 2:
        return [(fields[0], passage_id.strip(), 1) for passage_id in fields[1].split(",")]
    grade = _grade(fields[-1])
    if grade is None:
        raise InvalidData(
            f"{str(path)!r}, line {number}: the grade {fields[-1]!r} is not a whole number."
        )
    return [(fields[0], fields[-2], grade)]


def _grade(text: str) -> int | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return int(value) if value.is_integer() else None
