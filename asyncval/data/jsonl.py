"""JSON lines: the queries and passages of Asyncval, Tevatron, OpenMatch and BEIR.

`{"text_id": "7", "text": "..."}`, where `text` may be a list of token ids without special
tokens; `{"_id": "7", "title": "...", "text": "..."}`; any keys, with a template.
"""

import json
from collections.abc import Iterator
from pathlib import Path

from asyncval.core.errors import InvalidData
from asyncval.core.types import Record, TextForm
from asyncval.data.files import FileFormat, read_lines


class JsonLines(FileFormat):
    """One JSON object a line."""

    suffixes = (".jsonl", ".json")

    def read(self, place: Path, form: TextForm) -> Iterator[Record]:
        """Yield the objects in the file's order."""
        for number, raw, line in read_lines(place):
            try:
                values = json.loads(line)
            except (json.JSONDecodeError, RecursionError) as error:
                reason = getattr(error, "msg", "it is too deep")
                raise InvalidData(
                    f"{str(place)!r}, line {number}: not valid JSON: {reason}."
                ) from error
            if not isinstance(values, dict):
                raise InvalidData(
                    f"{str(place)!r}, line {number}: a JSON object is needed on each line, not a "
                    f"{type(values).__name__}."
                )
            yield Record(values, place, number, raw)
