"""Files on disk: lines out of plain or gzipped files, suffixes, digests."""

import gzip
import hashlib
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, cast

from asyncval.core.errors import InvalidData

GZIP_MAGIC = b"\x1f\x8b"
BYTE_ORDER_MARK = b"\xef\xbb\xbf"


def open_binary(path: Path) -> BinaryIO:
    """Open a file for reading, unpacked if its first bytes say that it is gzipped."""
    try:
        file = path.open("rb")
        packed = file.read(2) == GZIP_MAGIC
        file.seek(0)
    except OSError as error:
        raise InvalidData(f"{str(path)!r} cannot be read: {error.strerror}.") from error
    if not packed:
        return file
    file.close()
    return cast(BinaryIO, gzip.open(path))


def read_lines(path: Path) -> Iterator[tuple[int, bytes, str]]:
    """Yield (line number from 1, the line's bytes, its text without the line end).

    Empty lines are passed over.

    Raises:
        InvalidData: The file cannot be read, is damaged, or is not UTF-8.
    """
    number = 0
    with open_binary(path) as file:
        try:
            for number, raw in enumerate(file, start=1):
                line = raw.removeprefix(BYTE_ORDER_MARK) if number == 1 else raw
                text = line.decode("utf-8").rstrip("\r\n")
                if text.strip():
                    yield number, raw, text
        except UnicodeDecodeError as error:
            raise InvalidData(
                f"{str(path)!r}, line {number}: not UTF-8: {error.reason}."
            ) from error
        except (EOFError, zlib.error, OSError) as error:
            raise InvalidData(
                f"{str(path)!r} breaks off or is damaged after line {number}: {error}."
            ) from error


def plain_suffix(path: Path) -> str:
    """Return the suffix that names the format: that before `.gz` where there is one."""
    return Path(path.stem).suffix.lower() if path.suffix == ".gz" else path.suffix.lower()


def plain_stem(path: Path) -> str:
    """Return the file's name without `.gz` and without the format's suffix."""
    return path.name.removesuffix(".gz").removesuffix(plain_suffix(path))


class FileFormat:
    """What formats have in common that are told by the suffix of a file."""

    suffixes: tuple[str, ...] = ()

    def recognises(self, place: Path) -> bool:
        """Return whether the suffix is one of these, with or without `.gz` behind it."""
        return plain_suffix(place) in self.suffixes

    def digest(self, place: Path) -> bytes:
        """Return a digest of the file's content."""
        try:
            with place.open("rb") as file:
                return hashlib.file_digest(file, "sha256").digest()
        except OSError as error:
            raise InvalidData(f"{str(place)!r} cannot be read: {error.strerror}.") from error
