"""Data sets of the library ir_datasets: `ir_datasets:NAME` in the place of a file or folder."""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from asyncval.core.errors import DependencyMissing, InvalidData
from asyncval.core.types import Judgements, Record, TextForm

MARK = "ir_datasets:"


def dataset_name(place: Path) -> str | None:
    """Return the name that stands behind `ir_datasets:`, or None where there is no such mark."""
    text = str(place)
    return text.removeprefix(MARK) if text.startswith(MARK) else None


class IrDataset:
    """Its documents are passages and its queries queries."""

    suffixes = ()

    def recognises(self, place: Path) -> bool:
        """Return whether it is the name of one."""
        return dataset_name(place) is not None

    def digest(self, place: Path) -> bytes:
        """Return a digest of its name, which stands for the same content for ever."""
        return hashlib.sha256(str(place).encode()).digest()

    def read(self, place: Path, form: TextForm) -> Iterator[Record]:
        """Yield its queries or documents, with all their fields.

        Of those that have no `text`, the whole text is what the library says that it is, where
        no template says otherwise.
        """
        dataset = _load(place, "queries" if form.is_query else "docs")
        found = dataset.queries_iter() if form.is_query else dataset.docs_iter()
        key = "query_id" if form.is_query else "doc_id"
        for number, each in enumerate(_guarded(found, place), start=1):
            values = each._asdict()
            if form.template is None and not isinstance(values.get("text"), str):
                values = {key: getattr(each, key), "text": each.default_text()}
            yield Record(values, place, number)


def read_named_qrels(place: Path) -> Judgements:
    """Return the judgements of `ir_datasets:NAME`.

    Raises:
        InvalidData: There is no such data set, it has none, or it cannot be read.
    """
    judgements: dict[str, dict[str, int]] = {}
    for each in _guarded(_load(place, "qrels").qrels_iter(), place):
        judgements.setdefault(each.query_id, {})[each.doc_id] = int(each.relevance)
    return judgements


def _load(place: Path, part: str) -> Any:  # noqa: ANN401
    name = dataset_name(place) or ""
    try:
        import ir_datasets
    except ImportError as error:
        raise DependencyMissing(
            f"{str(place)!r} needs ir_datasets, which is not installed: pip install "
            "asyncval[ir-datasets]."
        ) from error
    try:
        dataset = ir_datasets.load(name)
    except KeyError as error:
        raise InvalidData(f"{str(place)!r}: ir_datasets has no data set of this name.") from error
    if not getattr(dataset, f"has_{part}")():
        raise InvalidData(f"{str(place)!r}: this data set of ir_datasets has no {part}.")
    return dataset


def _guarded(found: Iterator[Any], place: Path) -> Iterator[Any]:
    """Yield what the library gives; whatever it raises where files are missing becomes ours."""
    try:
        yield from found
    except Exception as error:
        reason = next(iter(str(error).splitlines()), "") or type(error).__name__
        raise InvalidData(f"{str(place)!r} cannot be read by ir_datasets: {reason}.") from error
