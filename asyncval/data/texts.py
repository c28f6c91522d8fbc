"""From the fields of a record to an id and a text."""

import re
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from typing import Any

from asyncval.core.errors import InvalidData, InvalidOption
from asyncval.core.types import Record, Text, TextForm

ID_KEYS = ("text_id", "_id", "docid", "doc_id", "query_id", "id", "sample_id")
TEXT_KEYS = ("text", "query", "query_text", "input_ids")
MARKER = re.compile(r"<([^<>]+)>")
SENTENCE_ENDS = tuple("!.?。！？")  # noqa: RUF001  # also those of Chinese


def _as_disentangled_retriever(title: str | None, text: str) -> str:
    if title is None:
        return text
    return f"{title} {text}" if title.endswith(SENTENCE_ENDS) else f"{title}. {text}"


PRESETS: Mapping[str, Callable[[str | None, str], str]] = {
    "tevatron": lambda title, text: f"{title or ''} {text}".strip(),
    "tevatron_v1": lambda title, text: text if title is None else f"{title} {text}",
    "tevatron_v1.5": lambda title, text: f"{(title or '').strip()} {text.strip()}".strip(),
    "openmatch": lambda title, text: text if title is None else f"{title}[SEP]{text}",
    "retromae": lambda title, text: text if title is None else f"{title}[SEP]{text}",
    "disentangled_retriever": _as_disentangled_retriever,
}
"""How toolkits join title and text, where that is not as BEIR does; no title at all is None."""


def check_form(form: TextForm) -> None:
    """Refuse what cannot be meant, before anything is read.

    Raises:
        InvalidOption: The message has the flag.
    """
    side = "query" if form.is_query else "doc"
    if form.columns:
        twice = {name for name in form.columns if form.columns.count(name) > 1}
        if twice or "" in form.columns:
            raise InvalidOption(
                f"--{side}_column_names {','.join(form.columns)}: give each column a name of its "
                "own."
            )
        if {*form.columns}.isdisjoint(ID_KEYS):
            raise InvalidOption(
                f"--{side}_column_names {','.join(form.columns)}: none of them is the id. Call it "
                f"one of {', '.join(ID_KEYS)}."
            )
    template = form.template
    if template is not None and template not in PRESETS and not MARKER.search(template):
        raise InvalidOption(
            f"--{side}_template {template!r}: there is no <column> in it, and it is none of the "
            f"presets {', '.join(PRESETS)}."
        )


def record_id(record: Record) -> str:
    """Return a record's id; a whole number becomes a string.

    Raises:
        InvalidData: It has none.
    """
    found = _first(record.values, ID_KEYS)
    if isinstance(found, bool) or not isinstance(found, str | int) or found == "":
        raise InvalidData(
            f'{record.place}: no id. Each needs "text_id" or "_id", a string or a whole number.'
        )
    return str(found)


def _first(values: Mapping[str, Any], keys: tuple[str, ...]) -> Any:  # noqa: ANN401
    for key in keys:
        if key in values:
            return values[key]
    return None


def to_texts(records: Iterator[Record], form: TextForm) -> Iterator[Text]:
    """Yield the texts of records.

    Raises:
        InvalidData: One has no id or no text, or not what the template wants.
    """
    for record in records:
        yield _text(record, form.template, text_id=record_id(record))


def content_of(record: Record, template: str | None) -> str | tuple[int, ...]:
    """Return what is encoded of a record, which needs no id.

    Raises:
        InvalidData: It has no text, or not what the template wants.
    """
    return _text(record, template, text_id="").content


def _text(record: Record, template: str | None, *, text_id: str) -> Text:
    if template is not None:
        content = _filler(template)(record)
        _check_unicode(content, record)
        return Text(id=text_id, text=content)
    text = _content(record)
    title = record.values.get("title") or ""
    if not isinstance(title, str):
        raise InvalidData(f'{record.place}: "title" is {title!r}, which is not a string.')
    if isinstance(text, str):
        _check_unicode(text, record)
        _check_unicode(title, record)
    return Text(id=text_id, text=text, title=title)


def _content(record: Record) -> str | tuple[int, ...]:
    text = _first(record.values, TEXT_KEYS)
    if isinstance(text, str):
        return text
    if isinstance(text, list) and all(type(token) is int and token >= 0 for token in text):
        return tuple(text)
    raise InvalidData(
        f'{record.place}: no text. Each needs "text", a string or a list of token ids; other '
        "columns are named by --doc_template or --query_template."
    )


def _check_unicode(text: str, record: Record) -> None:
    if text.isascii():
        return
    try:
        text.encode()
    except UnicodeEncodeError:
        raise InvalidData(
            f"{record.place}: the text has half of a surrogate pair (\\ud800 to \\udfff)."
        ) from None


@lru_cache
def _filler(template: str) -> Callable[[Record], str]:
    """Return what makes one text of a record's fields.

    What a field has put in is not looked at again, so that a text with `<title>` in it stays.
    """
    preset = PRESETS.get(template)
    if preset is not None:
        return lambda record: preset(_title(record), _string(record))
    odd = MARKER.split(template.replace("\\n", "\n"))
    around, columns = odd[::2], [name.split(".") for name in odd[1::2]]

    def fill(record: Record) -> str:
        filled = [_field(record, path) for path in columns]
        pieces = [around[0]]
        for field, behind in zip(filled, around[1:], strict=True):
            pieces += field, behind
        return "".join(pieces)

    return fill


def _string(record: Record) -> str:
    text = _content(record)
    if not isinstance(text, str):
        raise InvalidData(
            f"{record.place}: a list of token ids cannot be put into a template. Leave the "
            "template out."
        )
    return text


def _title(record: Record) -> str | None:
    if "title" not in record.values:
        return None
    return _field(record, ["title"])


def _field(record: Record, path: list[str]) -> str:
    """Return a field as text; the path goes down into nested objects."""
    value: Any = record.values
    for key in path:
        if not isinstance(value, Mapping) or key not in value:
            raise InvalidData(
                f"{record.place}: the template has <{'.'.join(path)}>, and there is no such "
                f"column. There are {', '.join(map(str, record.values))}."
            )
        value = value[key]
    if value is None:
        return ""
    if isinstance(value, str | int | float):
        return str(value)
    raise InvalidData(
        f"{record.place}: <{'.'.join(path)}> is no text but a {type(value).__name__}."
    )
