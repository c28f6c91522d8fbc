"""How the fields of a record become one text: as Asyncval makes it, so that both see the same."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from asyncval.api import AsyncvalError, Record, content_of

Content = str | tuple[int, ...]
"""A text, or its token ids without special tokens."""

QUERY_KEYS = ("query", "query_text", "text")
NOWHERE = Path()
AS_PREFIX = re.compile(rf"([^<>]*)<(?:{'|'.join(QUERY_KEYS)})>")
COLUMN = re.compile(r"<([^<>]+)>")

Found = TypeVar("Found")


@dataclass(frozen=True, slots=True, kw_only=True)
class Wording:
    """Templates and column names of queries and passages; none stands for the usual form.

    Token ids are below `num_tokens`, the tokenizer's number of them, if it is known. What does not
    fit is a ValueError in words that follow `'file', line 3: `.
    """

    query_template: str | None = None
    doc_template: str | None = None
    query_columns: tuple[str, ...] = ()
    doc_columns: tuple[str, ...] = ()
    num_tokens: int | None = None

    def query(self, record: Mapping[str, Any]) -> Content:
        """Return the text of a training line's query, or its token ids."""
        if self.query_template is not None:
            return self._content(record, self.query_template)
        value = next((record[key] for key in QUERY_KEYS if key in record), None)
        if not isinstance(value, str | list):
            raise ValueError('no "query" string')
        return self._content({"text": value}, None)

    def named_query(self, record: Mapping[str, Any]) -> Content:
        """Return the text, or the token ids, of a query that training lines name by its id."""
        return self._content(record, self.query_template)

    def passage(self, record: Mapping[str, Any]) -> Content:
        """Return title and text with one space between them, or token ids."""
        return self._content(record, self.doc_template)

    def _content(self, values: Mapping[str, Any], template: str | None) -> Content:
        content = of_record(partial(content_of, template=template), values)
        if isinstance(content, tuple):
            check_token(max(content, default=0), num_tokens=self.num_tokens)
        return content


def of_record(read: Callable[[Record], Found], values: Mapping[str, Any]) -> Found:
    """Return what Asyncval reads of a record.

    Raises:
        ValueError: It cannot be read, in words that follow `'file', line 3: `.
    """
    record = Record(values=values, path=NOWHERE, number=0)
    try:
        return read(record)
    except AsyncvalError as error:  # the place is said by who knows it
        problem = str(error).removeprefix(f"{record.place}: ").removesuffix(".")
        raise ValueError(problem) from error


def columns_of(template: str | None) -> list[str]:
    """Return the columns that a template names; a preset names none."""
    return COLUMN.findall(template or "")


def as_prefix(template: str | None) -> str | None:
    """Return the words that a query's template puts in front of its text, if it does just that."""
    if template is None:
        return None
    found = AS_PREFIX.fullmatch(template.replace("\\n", "\n"))
    return found[1] if found else None


def check_token(largest: int, *, num_tokens: int | None) -> None:
    """Raise ValueError for a token id that the tokenizer does not have."""
    if num_tokens is not None and largest >= num_tokens:
        raise ValueError(
            f"the token id {largest}, but the tokenizer has only {num_tokens}. Give the tokenizer "
            "that the data was made with"
        )
