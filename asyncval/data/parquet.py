"""Parquet: the columns are the fields."""

from collections.abc import Iterator
from itertools import chain
from pathlib import Path

from asyncval.core.errors import InvalidData
from asyncval.core.types import Record, TextForm
from asyncval.data.arrow import import_arrow
from asyncval.data.files import FileFormat

ROWS_AT_ONCE = 4096


class Parquet(FileFormat):
    """One text a row."""

    suffixes = (".parquet",)

    def recognises(self, place: Path) -> bool:
        """Return whether the suffix is its own; it is packed inside, so never `.gz`."""
        return place.suffix.lower() in self.suffixes

    def read(self, place: Path, form: TextForm) -> Iterator[Record]:
        """Yield the rows in the file's order."""
        arrow = import_arrow("pyarrow", what=f"{str(place)!r}")
        parquet = import_arrow("pyarrow.parquet", what=f"{str(place)!r}")
        number = 0
        try:
            with parquet.ParquetFile(place) as file:
                batches = file.iter_batches(batch_size=ROWS_AT_ONCE)
                rows = chain.from_iterable(batch.to_pylist() for batch in batches)
                for number, values in enumerate(rows, start=1):
                    yield Record(values, place, number)
        except (arrow.ArrowException, OSError) as error:
            raise InvalidData(
                f"{str(place)!r} cannot be read as Parquet after row {number}: {error}."
            ) from error
