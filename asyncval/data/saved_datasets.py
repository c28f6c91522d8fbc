"""Folders that `datasets` has saved: RetroMAE's tokenised queries and passages, or any columns.

data-00000-of-00002.arrow ...  (dataset.arrow in old ones)    rows: `id`, `input_ids`
state.json                     which of them, in which order
mapping_id.txt                 RetroMAE: id<TAB>row, from 0
"""

import json
from collections.abc import Iterator
from itertools import chain, zip_longest
from pathlib import Path
from typing import Any

from asyncval.core.errors import InvalidData
from asyncval.core.types import Record, TextForm
from asyncval.data.arrow import import_arrow
from asyncval.data.files import FileFormat, read_lines
from asyncval.data.texts import ID_KEYS

STATE = "state.json"
IDS = "mapping_id.txt"


class SavedDataset:
    """One text a row."""

    suffixes = ()

    def recognises(self, place: Path) -> bool:
        """Return whether it is a folder with the state of a data set, or of several."""
        return (place / STATE).is_file() or (place / "dataset_dict.json").is_file()

    def digest(self, place: Path) -> bytes:
        """Return a digest of all its data and ids."""
        ids = [place / IDS] if (place / IDS).is_file() else []
        return b"".join(FileFormat().digest(path) for path in [*_data_files(place), *ids])

    def read(self, place: Path, form: TextForm) -> Iterator[Record]:
        """Yield the rows in the order of the data set, under the names of `mapping_id.txt`."""
        rows = chain.from_iterable(map(_rows, _data_files(place)))
        if not (place / IDS).is_file():
            for number, values in enumerate(rows, start=1):
                yield Record(values, place, number)
            return
        pairs = enumerate(zip_longest(rows, _row_ids(place / IDS)), start=1)
        for number, (values, text_id) in pairs:
            if values is None or text_id is None:
                raise InvalidData(
                    f"{str(place / IDS)!r} and the data set beside it differ in length: only one "
                    f"of them has a row {number - 1}."
                )
            yield Record(_with_id(values, text_id, place, number), place, number)


def _data_files(place: Path) -> list[Path]:
    if not (place / STATE).is_file():
        inside = ", ".join(sorted(each.parent.name for each in place.glob(f"*/{STATE}")))
        raise InvalidData(f"{str(place)!r} has several data sets ({inside}): give one's folder.")
    try:
        state = json.loads((place / STATE).read_text(encoding="utf-8"))
        names = [Path(each["filename"]).name for each in state["_data_files"]]
        indices = state.get("_indices_data_files") or state.get("_indices_files")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InvalidData(f"{str(place / STATE)!r} is no state of a data set.") from error
    if indices:
        raise InvalidData(
            f"{str(place)!r} is a selection of rows: save it with flatten_indices() before."
        )
    return [place / name for name in names]


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    arrow = import_arrow("pyarrow", what=f"The data set in {str(path.parent)!r}")
    try:
        with arrow.memory_map(str(path)) as source, arrow.ipc.open_stream(source) as batches:
            for batch in batches:
                yield from batch.to_pylist()
    except (arrow.ArrowException, OSError) as error:
        raise InvalidData(f"{str(path)!r} cannot be read as Arrow data: {error}.") from error


def _row_ids(path: Path) -> Iterator[str]:
    """Yield the ids in the order of the rows; only lines in another order are held in memory."""
    pairs = _pairs(path)
    for expected, (row, text_id) in enumerate(pairs):
        if row == expected:
            yield text_id
            continue
        later = sorted([(row, text_id), *pairs])
        for wanted, (found, each) in enumerate(later, start=expected):
            if found != wanted:
                raise InvalidData(f"{str(path)!r} has not each row once: see row {wanted}.")
            yield each


def _pairs(path: Path) -> Iterator[tuple[int, str]]:
    for number, _, line in read_lines(path):
        text_id, _, row = line.partition("\t")
        if not row.strip().isdecimal():
            raise InvalidData(
                f"{str(path)!r}, line {number}: an id and its row are needed, with a tab between."
            )
        yield int(row), text_id


def _with_id(values: dict[str, Any], text_id: str, place: Path, number: int) -> dict[str, Any]:
    others = {name: value for name, value in values.items() if name not in ID_KEYS}
    own = next((values[key] for key in ID_KEYS if key in values), text_id)
    if str(own) != text_id:
        raise InvalidData(
            f"{str(place)!r}, row {number}: its id is {own!r}, but {IDS} says {text_id!r}."
        )
    return {"text_id": text_id, **others}
