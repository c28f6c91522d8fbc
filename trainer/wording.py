"""How the fields of a record become one text: as Asyncval makes it, so that both see the same."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from asyncval.api import AsyncvalError, Record, content_of

Content = str | tuple[int, ...]
"""A text, or its token ids without special tokens."""

QUERY_KEYS = ("query", "query_text", "text")
NOWHERE = Path()
AS_PREFIX = re.compile(rf"([^<>]*)<(?:{'|'.join(QUERY_KEYS)})>")


@dataclass(frozen=True, slots=True, kw_only=True)
class Wording:
    """Templates and column names of queries and passages; None stands for the usual form.

    Token ids are below `num_tokens`, the tokenizer's number of them, if it is known. What does not
    fit is a ValueError in words that follow `'file', line 3: `.
    """

    query_template: str | None = None
    doc_template: str | None = None
    query_columns: tuple[str, ...] | None = None
    doc_columns: tuple[str, ...] | None = None
    num_tokens: int | None = None

    def query(self, record: Mapping[str, Any]) -> Content:
        """Return the text of a query's record, or its token ids."""
        if self.query_template is not None:
            return self._content(record, self.query_template)
        value = next((record[key] for key in QUERY_KEYS if key in record), None)
        if not isinstance(value, str | list):
            raise ValueError('no "query" string')
        return self._content({"text": value}, None)

    def passage(self, record: Mapping[str, Any]) -> Content:
        """Return title and text with one space between them, or token ids."""
        return self._content(record, self.doc_template)

    def _content(self, values: Mapping[str, Any], template: str | None) -> Content:
        record = Record(values=values, path=NOWHERE, number=0)
        try:
            content = content_of(record, template)
        except AsyncvalError as error:  # the place is said by who knows it
            problem = str(error).removeprefix(f"{record.place}: ").removesuffix(".")
            raise ValueError(problem) from error
        if isinstance(content, tuple):
            check_token(max(content, default=0), num_tokens=self.num_tokens)
        return content


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
