"""JSON lines: the queries and passages of Asyncval, Tevatron and BEIR.

`{"text_id": "7", "text": "..."}`, where `text` may be a list of token ids without special
tokens; `{"_id": "7", "title": "...", "text": "..."}`; `{"docid": ...}`, `{"query_id": ...}`.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from asyncval.core.errors import InvalidData
from asyncval.core.types import Text
from asyncval.data.files import read_lines

ID_KEYS = ("text_id", "_id", "docid", "doc_id", "query_id", "id")
TEXT_KEYS = ("text", "query", "query_text")


class JsonLines:
    """One JSON object a line."""

    suffixes = (".jsonl", ".json")

    def read(self, path: Path) -> Iterator[Text]:
        """Yield the texts in the file's order; numbers as ids become strings."""
        for number, raw, line in read_lines(path):
            place = f"{str(path)!r}, line {number}"
            try:
                record = json.loads(line)
            except json.JSONDecodeError as error:
                raise InvalidData(f"{place}: not valid JSON: {error.msg}.") from error
            if not isinstance(record, dict):
                raise InvalidData(
                    f"{place}: a JSON object is needed on each line, not a {type(record).__name__}."
                )
            yield _to_text(record, raw, place)


def _to_text(record: Mapping[str, Any], raw: bytes, place: str) -> Text:
    text_id = next((record[key] for key in ID_KEYS if key in record), None)
    if isinstance(text_id, bool) or not isinstance(text_id, str | int) or text_id == "":
        raise InvalidData(
            f'{place}: no id. Each line needs "text_id" or "_id", a string or a whole number.'
        )
    text = next((record[key] for key in TEXT_KEYS if key in record), None)
    if isinstance(text, list) and all(type(token) is int and token >= 0 for token in text):
        text = tuple(text)
    elif not isinstance(text, str):
        raise InvalidData(
            f'{place}: no text. Each line needs "text", a string or a list of token ids.'
        )
    title = record.get("title") or ""
    if not isinstance(title, str):
        raise InvalidData(f'{place}: "title" is {title!r}, which is not a string.')
    if isinstance(text, str) and not _is_unicode(text + title):
        raise InvalidData(f"{place}: the text has half of a surrogate pair (\\ud800 to \\udfff).")
    return Text(id=str(text_id), text=text, title=title, raw=raw)


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
