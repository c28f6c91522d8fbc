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
            if not first and not columns and (columns := header_of(line)):
                has_header = True
                continue
            try:
                values = fields_of(line, columns)
            except ValueError as error:
                raise InvalidData(f"{str(place)!r}, line {number}: {error}.") from error
            yield Record(values, place, number, b"" if has_header else raw)


def header_of(line: str) -> tuple[str, ...]:
    """Return the columns that a first line names; none if it is no header."""
    names = line.split("\t")
    is_header = not ID_NAMES.isdisjoint(names) and not {*names}.isdisjoint(TEXT_KEYS)
    return tuple(names) if is_header else ()


def fields_of(line: str, columns: tuple[str, ...]) -> dict[str, str]:
    """Return the fields of a line by their names.

    Args:
        line: Without its end.
        columns: The names; none for the usual ones.

    Raises:
        ValueError: There are more or fewer fields, in words that follow `'file', line 3: `.
    """
    fields = line.split("\t")
    if fields[-1] == "" and len(fields) - 1 == (len(columns) or 3):
        fields.pop()  # a tab behind the last field
    names = columns or PLAIN.get(len(fields), ())
    if len(names) != len(fields):
        wanted = (
            f"{len(columns)} ({', '.join(columns)})"
            if columns
            else "an id and a text, or an id, a title and a text"
        )
        raise ValueError(
            f"{len(fields)} tab-separated fields. Each line needs {wanted}; --doc_column_names "
            "and --query_column_names name others"
        )
    values = dict(zip(names, fields, strict=True))
    for name in ID_NAMES.intersection(names):
        values[name] = values[name].strip()
    return values
