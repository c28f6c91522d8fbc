"""Texts by their ids: the queries and passages that training files only name.

id<TAB>text, id<TAB>title<TAB>text       a TSV; a header or column names say otherwise
{"_id": "7", "title": "...", "text": "..."}     JSON lines; text may be token ids
a folder of `datasets` with mapping_id.txt      RetroMAE's token ids

A file says here what it says to Asyncval.
"""

import json
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from asyncval.api import fields_of, header_of, record_id
from trainer.errors import InputError
from trainer.lines import KeyedLines, LineFile
from trainer.wording import Content, check_token, of_record

Word = Callable[[Mapping[str, Any]], Content]


class Texts(Protocol):
    """Texts that are found by an id or by a number."""

    where: str

    def __len__(self) -> int: ...

    def __contains__(self, text_id: str) -> bool: ...

    def __getitem__(self, text_id: str) -> Content: ...

    def text_id(self, index: int) -> str:
        """Return the id of a text by its number from 0."""
        ...


def open_texts(
    path: Path,
    *,
    option: str,
    kind: str,
    word: Word,
    columns: tuple[str, ...] = (),
    num_tokens: int | None = None,
) -> Texts:
    """Index a file or folder of texts.

    Args:
        path: of it.
        option: the flag that it was given with.
        kind: what it is, for a message: "Corpus".
        word: makes a text of a record.
        columns: of a TSV; none for the usual ones or those of its header.
        num_tokens: that a folder's token ids are below; those of a file are `word`'s to check.
    """
    if path.is_dir():
        return TokenisedFolder(path, option=option, kind=kind, num_tokens=num_tokens)
    file = LineFile(path, option=option, kind=kind)
    if not _is_tsv(path):
        return TextLines(KeyedLines(file, partial(_json, word=word)))
    header = () if columns else header_of(file.first())
    parse = partial(_tab_separated, word=word, columns=columns or header)
    return TextLines(KeyedLines(file, parse, has_header=bool(header)))


def _is_tsv(path: Path) -> bool:
    return Path(path.name.removesuffix(".gz")).suffix.lower() in (".tsv", ".txt")


def _json(line: str, *, word: Word) -> tuple[str, Content]:
    record = json_object(line)
    return of_record(record_id, record), word(record)


def _tab_separated(line: str, *, word: Word, columns: tuple[str, ...]) -> tuple[str, Content]:
    record = fields_of(line.rstrip("\r\n"), columns)
    return of_record(record_id, record), word(record)


class TextLines:
    """One text a line."""

    def __init__(self, lines: KeyedLines[Content]) -> None:
        self.lines = lines
        self.where = lines.file.where

    def __len__(self) -> int:
        return len(self.lines)

    def __contains__(self, text_id: str) -> bool:
        return text_id in self.lines

    def __getitem__(self, text_id: str) -> Content:
        found = self.lines.find(text_id)
        if not found:
            raise KeyError(text_id)
        return found[0]

    def text_id(self, index: int) -> str:
        """Return the id of a text by its number from 0."""
        return self.lines.key(index)


class TokenisedFolder:
    """What `datasets.Dataset.save_to_disk` wrote, with RetroMAE's `mapping_id.txt` beside it.

    The token ids stay on disk: the Arrow files are mapped into memory.
    """

    def __init__(
        self, folder: Path, *, option: str, kind: str, num_tokens: int | None = None
    ) -> None:
        self.folder = folder
        self.where = f"{kind} {str(folder)!r}"
        mapping = folder / "mapping_id.txt"
        if not mapping.is_file():
            raise InputError(
                f"{self.where} has no mapping_id.txt, which gives each row its id. Give {option} "
                "a folder that RetroMAE's preprocessing wrote, or a file."
            )
        self._table: Any = None
        self.rows = KeyedLines(
            LineFile(mapping, option=option, kind=kind),
            partial(_mapping, num_rows=len(self._column())),
        )
        try:
            check_token(self._largest(), num_tokens=num_tokens)
        except ValueError as error:
            raise InputError(f"{self.where}: {error}.") from error

    def __len__(self) -> int:
        return len(self.rows)

    def __contains__(self, text_id: str) -> bool:
        return text_id in self.rows

    def __getitem__(self, text_id: str) -> Content:
        found = self.rows.find(text_id)
        if not found:
            raise KeyError(text_id)
        return tuple(self._column()[found[0]].as_py())

    def text_id(self, index: int) -> str:
        """Return the id of a text by its number from 0."""
        return self.rows.key(index)

    def __getstate__(self) -> dict[str, Any]:
        """Leave the mapped files behind: a worker that was spawned maps its own."""
        return {**self.__dict__, "_table": None}

    def _largest(self) -> int:
        """Return the highest token id; it is looked for in Arrow, at the speed of the disk."""
        import pyarrow.compute as pc

        chunks = self._column().chunks
        return max((pc.max(each.flatten()).as_py() or 0 for each in chunks), default=0)

    def _column(self) -> Any:  # noqa: ANN401
        """Return the column of token ids."""
        if self._table is None:
            try:
                import pyarrow as pa
            except ImportError as error:
                raise InputError(
                    f"{self.where} is read with pyarrow. Run `pip install pyarrow`."
                ) from error
            try:
                state = json.loads((self.folder / "state.json").read_bytes())
                names = [each["filename"] for each in state["_data_files"]]
                files = [pa.memory_map(str(self.folder / name)) for name in names]
                self._table = pa.concat_tables(
                    [pa.ipc.open_stream(each).read_all() for each in files]
                )
                self._table = self._table.column("input_ids")
            except (OSError, ValueError, KeyError, TypeError, pa.ArrowInvalid) as error:
                raise InputError(
                    f"{self.where} is no folder that `datasets` saved with a column input_ids: "
                    f"{str(error).splitlines()[0]}"
                ) from error
        return self._table


def _mapping(line: str, *, num_rows: int) -> tuple[str, int]:
    text_id, _, row = line.strip().rpartition("\t")
    if not text_id or not row.isdecimal():
        raise ValueError(f"{line.strip()!r} is no id, tab and row number")
    if int(row) >= num_rows:
        raise ValueError(f"the row {row}, but the data set beside it has only {num_rows}, from 0")
    return text_id, int(row)


def missing(ids: Iterable[str], texts: Texts) -> str | None:
    """Return the first id that has no text."""
    return next((each for each in ids if each not in texts), None)


def json_object(line: str | bytes) -> dict[str, Any]:
    """Read a line of JSON.

    Raises:
        ValueError: with what is wrong in words that follow `'file', line 3: `.
    """
    try:
        row = json.loads(line)
    except ValueError as error:
        raise ValueError(f"not JSON ({error})") from error
    if not isinstance(row, dict):
        raise ValueError(f"a {type(row).__name__} where an object should be")
    return row


def id_of(row: Mapping[str, Any], key: str) -> str:
    """Return an id as a string; a whole number is one too."""
    value = row[key]
    if isinstance(value, bool) or not isinstance(value, str | int) or value == "":
        raise ValueError(f'the "{key}" {value!r} that is not a string')
    return str(value)
