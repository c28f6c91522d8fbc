"""Tab-separated queries and passages: `id<TAB>text`, `id<TAB>title<TAB>text`, or named columns.

Nothing is quoted or escaped: a quotation mark and `NA` are text, ids keep their zeros.
"""

from collections.abc import Iterator
from pathlib import Path

from asyncval.core.errors import InvalidData
from asyncval.core.types import Record, TextForm
from asyncval.data.files import FileFormat, read_lines
from asyncval.data.texts import ID_KEYS, TEXT_KEYS

PLAIN = {2: ("id", "text"), 3: ("id", "title", "text")}
"""What the fields of a line are where nobody names them, by their number."""
ID_NAMES = frozenset(ID_KEYS)


class TabSeparated(FileFormat):
    """One text a line.

    Without named columns, a first line with the names of an id and of a text is a header.
    """

    suffixes = (".tsv", ".txt")

    def read(self, place: Path, form: TextForm) -> Iterator[Record]:
        """Yield the lines in the file's order."""
        columns, has_header = form.columns, False
        for first, (number, raw, line) in enumerate(read_lines(place)):
            fields = line.split("\t")
            if not first and not columns and _is_header(fields):
                columns, has_header = tuple(fields), True
                continue
            if fields[-1] == "" and len(fields) - 1 == (len(columns) or 3):
                fields.pop()  # a tab behind the last field
            names = columns or PLAIN.get(len(fields), ())
            if len(names) != len(fields):
                raise _wrong_fields(place, number, len(fields), columns)
            values = dict(zip(names, fields, strict=True))
            for name in ID_NAMES.intersection(names):
                values[name] = values[name].strip()
            yield Record(values, place, number, b"" if has_header else raw)


def _is_header(fields: list[str]) -> bool:
    return not {*fields}.isdisjoint(ID_KEYS) and not {*fields}.isdisjoint(TEXT_KEYS)


def _wrong_fields(
    place: Path, number: int, num_fields: int, columns: tuple[str, ...]
) -> InvalidData:
    wanted = (
        f"{len(columns)} ({', '.join(columns)})"
        if columns
        else "an id and a text, or an id, a title and a text"
    )
    return InvalidData(
        f"{str(place)!r}, line {number}: {num_fields} tab-separated fields. Each line needs "
        f"{wanted}; --doc_column_names and --query_column_names name others."
    )
