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
        fields = _fields(line)
        is_first, columns = columns == 0, columns or len(fields)
        if len(fields) != columns:
            raise InvalidData(
                f"{str(path)!r}, line {number}: {len(fields)} columns where the first line has "
                f"{columns}."
            )
        try:
            pairs = _pairs(fields, may_be_header=is_first)
        except ValueError as error:
            raise InvalidData(f"{str(path)!r}, line {number}: {error}.") from error
        for query_id, passage_id, grade in pairs:
            if judgements.setdefault(query_id, {}).setdefault(passage_id, grade) != grade:
                raise InvalidData(
                    f"{str(path)!r}, line {number}: query {query_id!r} and passage "
                    f"{passage_id!r} have the grade {grade} here and another one before."
                )
    if not judgements:
        raise InvalidData(f"--qrel_file: {str(path)!r} has no judgement in it.")
    return judgements


def judged_pairs(line: str) -> list[tuple[str, str, int]]:
    """Return (query, passage, grade) of each pair of a line by itself; a header has none.

    Raises:
        ValueError: It is no judgement, in words that follow `'file', line 3: `.
    """
    return _pairs(_fields(line), may_be_header=True)


def _fields(line: str) -> list[str]:
    return [field.strip() for field in line.split("\t" if "\t" in line else None)]


def _pairs(fields: list[str], *, may_be_header: bool) -> list[tuple[str, str, int]]:
    if len(fields) not in (2, 3, 4):
        raise ValueError(
            f"{len(fields)} columns. Judgements have 4 (query, iteration, passage, grade), 3 "
            "(query, passage, grade) or 2 (query, passage)"
        )
    if may_be_header and is_header(fields):
        return []
    grade = 1 if len(fields) == 2 else _grade(fields[-1])
    if grade is None:
        raise ValueError(f"the grade {fields[-1]!r} is not a whole number")
    passages = fields[1].split(",") if len(fields) == 2 else [fields[-2]]
    pairs = [(fields[0], passage_id.strip(), grade) for passage_id in passages]
    for query_id, passage_id, _ in pairs:
        if not query_id or not passage_id:
            raise ValueError(
                f"the id of the {'passage' if query_id else 'query'} is empty. Write it, or leave "
                "it out"
            )
    return pairs


def is_header(fields: list[str]) -> bool:
    """Return whether a first line names the columns of judgements."""
    names = [field.lower().replace("_", "-") for field in fields]
    passage = names[-1] if len(fields) == 2 else names[-2]
    is_grade = len(fields) > 2 and _grade(fields[-1]) is not None
    return names[0] in QUERY_COLUMNS and passage in PASSAGE_COLUMNS and not is_grade


def _grade(text: str) -> int | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return int(value) if value.is_integer() else None
