"""Files on disk: lines out of plain or gzipped files, which files a folder offers, digests."""

import gzip
import hashlib
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, cast

from asyncval.core.errors import InvalidData
from asyncval.core.ports import TextFormat
from asyncval.data import TEXT_FORMATS
from asyncval.lookup import look_up

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


def text_format(path: Path) -> TextFormat | None:
    """Return the format that reads `path`, or None where its suffix is nobody's."""
    for name in TEXT_FORMATS:
        candidate = look_up(name, TEXT_FORMATS, option="text format")()
        if plain_suffix(path) in candidate.suffixes:
            return cast(TextFormat, candidate)
    return None


def require_text_format(path: Path, *, option: str) -> TextFormat:
    """Return the format that reads `path`.

    Raises:
        InvalidData: The file is not there, is empty, or has a suffix that nothing reads.
    """
    if not path.is_file():
        raise InvalidData(f"{option}: there is no file {str(path)!r}.")
    if path.stat().st_size == 0:
        raise InvalidData(f"{option}: the file {str(path)!r} is empty.")
    found = text_format(path)
    if found is None:
        raise InvalidData(
            f"{option}: {str(path)!r} has a suffix that no format reads: name it .jsonl or .tsv "
            "(.gz may follow)."
        )
    return found


def passage_files(candidates: Sequence[Path], *, option: str = "--candidate_dir") -> list[Path]:
    """Return the passage files in `candidates`, which are files or folders, in reading order.

    A folder gives its readable files by name, or, where it is a BEIR data set, only its
    `corpus.jsonl`.

    Raises:
        InvalidData: Something is not there, or a folder has no passage file.
    """
    files: list[Path] = []
    for candidate in candidates:
        if not candidate.is_dir():
            require_text_format(candidate, option=option)
            files.append(candidate)
            continue
        inside = sorted(
            path
            for path in candidate.iterdir()
            if path.is_file()
            and not path.name.startswith(".")
            and text_format(path) is not None
            and path.name != "subset.json"
        )
        corpus = [path for path in inside if plain_stem(path) == "corpus"]
        if not inside:
            raise InvalidData(
                f"{option}: the folder {str(candidate)!r} has no passage file (.jsonl, .json or "
                ".tsv, .gz may follow)."
            )
        files.extend(corpus or inside)
    return files


def digest_of(files: Sequence[Path]) -> str:
    """Return a digest of the files' content, in order (their names do not count)."""
    whole = hashlib.sha256()
    for path in files:
        with path.open("rb") as file:
            whole.update(hashlib.file_digest(file, "sha256").digest())
    return whole.hexdigest()
