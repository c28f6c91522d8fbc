"""Tab-separated queries and passages: `id<TAB>text` or `id<TAB>title<TAB>text`.

Nothing is quoted or escaped: a quotation mark and `NA` are text, ids keep their zeros.
"""

from collections.abc import Iterator
from pathlib import Path

from asyncval.core.errors import InvalidData
from asyncval.core.types import Text
from asyncval.data.files import read_lines


class TabSeparated:
    """One text a line, two or three fields."""

    suffixes = (".tsv", ".txt")

    def read(self, path: Path) -> Iterator[Text]:
        """Yield the texts in the file's order."""
        for number, raw, line in read_lines(path):
            fields = line.split("\t")
            if len(fields) not in (2, 3) or not fields[0].strip():
                raise InvalidData(
                    f"{str(path)!r}, line {number}: {len(fields)} tab-separated fields. Each line "
                    "needs an id and a text, or an id, a title and a text."
                )
            title = fields[1] if len(fields) == 3 else ""
            yield Text(id=fields[0].strip(), text=fields[-1], title=title, raw=raw)
