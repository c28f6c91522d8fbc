"""How the fields of a record become one text."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

MARKER = re.compile(r"<([^<>\s]+)>")

Content = str | tuple[int, ...]
"""A text, or its token ids without special tokens."""

QUERY_KEYS = ("query", "query_text", "text")


class Template:
    """A text with markers such as `Title: <title> Text: <text>`, each of which names a field."""

    def __init__(self, text: str) -> None:
        """Take it apart; `<a.b>` is the field b of the object a."""
        self.parts = MARKER.split(text)  # literal, name, literal, name, ..., literal

    def fill(self, record: Mapping[str, Any]) -> str:
        """Return the text; what a field says is not searched for markers. Null is empty.

        Raises:
            ValueError: a field is not there or is no text, in words that follow
                `'file', line 3: `.
        """
        return "".join(_field(record, part) if i % 2 else part for i, part in enumerate(self.parts))


def _field(record: Mapping[str, Any], name: str) -> str:
    value: Any = record
    for part in name.split("."):
        if not isinstance(value, Mapping) or part not in value:
            raise ValueError(
                f"no {name!r}, which the template asks for; there are {', '.join(record)}"
            )
        value = value[part]
    if value is None:
        return ""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ValueError(f"the field {name!r} is {type(value).__name__}, which is no text")
    return str(value)


@dataclass(frozen=True, slots=True, kw_only=True)
class Wording:
    """Templates and column names of queries and passages; None stands for the usual form."""

    query_template: Template | None = None
    doc_template: Template | None = None
    query_columns: tuple[str, ...] | None = field(default=None)
    doc_columns: tuple[str, ...] | None = None

    def query(self, record: Mapping[str, Any]) -> Content:
        """Return the text of a query's record, or its token ids."""
        if self.query_template is not None:
            return self.query_template.fill(record)
        value = next((record[key] for key in QUERY_KEYS if key in record), None)
        if isinstance(value, str):
            return value
        if is_token_ids(value):
            return tuple(value)  # type: ignore[arg-type]
        raise ValueError('no "query" string')

    def passage(self, record: Mapping[str, Any]) -> Content:
        """Return title and text with one space between them, or token ids."""
        if self.doc_template is not None:
            return self.doc_template.fill(record)
        value = record.get("text")
        if isinstance(value, str):
            return f"{record.get('title') or ''} {value}".strip()
        if is_token_ids(value):
            return tuple(value)  # type: ignore[arg-type]
        raise ValueError('a passage without a "text" string')


def is_token_ids(value: object) -> bool:
    """Say whether it is a list of token ids."""
    return isinstance(value, list) and all(type(each) is int and each >= 0 for each in value)
