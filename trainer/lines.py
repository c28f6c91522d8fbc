"""Random access to the lines of a file that need not fit into memory."""

import gzip
import os
import shutil
import tempfile
import weakref
import zlib
from array import array
from codecs import BOM_UTF8
from collections.abc import Callable, Iterator
from hashlib import blake2b
from itertools import islice
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np

from trainer.errors import InputError

GZIP_MAGIC = b"\x1f\x8b"

Value = TypeVar("Value")


def key_of(name: str) -> int:
    """Return a number of 63 bits for an id; two of a million ids share one by a chance of 1e-7."""
    return int.from_bytes(blake2b(name.encode(), digest_size=8).digest()) >> 1


class LineFile:
    """A file of lines, plain or gzipped, that is read in order or at any offset."""

    def __init__(self, path: Path, *, option: str, kind: str) -> None:
        """Find it.

        Args:
            path: of the file.
            option: the flag that it was given with, for a message.
            kind: what it is, for a message: "Training file".
        """
        self.where = f"{kind} {str(path)!r}"
        if not path.is_file():
            raise InputError(f"{self.where} does not exist. Check {option}.")
        self._plain = self._uncompressed(path)
        self._descriptor: int | None = None

    def __iter__(self) -> Iterator[tuple[int, int, bytes]]:
        """Yield the number from 1, the offset and the bytes of each line that is not blank.

        A byte order mark is no part of the first.
        """
        with self._plain.open("rb") as lines:
            start = len(BOM_UTF8) if lines.read(len(BOM_UTF8)) == BOM_UTF8 else 0
            lines.seek(start)
            for number, line in enumerate(lines, start=1):
                if line.strip():
                    yield number, start, line
                start += len(line)

    def first(self) -> str:
        """Return the first line that is not blank, without its end; nothing if there is none."""
        return next((line for _, _, line in self), b"").decode(errors="replace").rstrip("\r\n")

    def read(self, start: int, length: int) -> bytes:
        """Return some bytes; processes that were forked from one another may all do so."""
        if self._descriptor is None:
            self._descriptor = os.open(self._plain, os.O_RDONLY)
        # pread has no shared file position, so forked workers cannot disturb each other.
        return os.pread(self._descriptor, length, start)

    def __getstate__(self) -> dict[str, Any]:
        """Leave the open file behind: a worker that was spawned opens its own."""
        return {**self.__dict__, "_descriptor": None}

    def _uncompressed(self, path: Path) -> Path:
        """Return a file that can be read at any offset: `path`, or a temporary copy."""
        with path.open("rb") as file:
            if file.read(2) != GZIP_MAGIC:
                return path
        handle, name = tempfile.mkstemp(prefix="trainer-", suffix=".lines")
        weakref.finalize(self, _remove, Path(name), os.getpid())
        try:
            with gzip.open(path) as packed, os.fdopen(handle, "wb") as plain:
                shutil.copyfileobj(packed, plain)
        except (OSError, EOFError, zlib.error) as error:
            raise InputError(
                f"{self.where} is a broken gzip file: {error}. Write it anew."
            ) from error
        return Path(name)


def _remove(path: Path, owner_pid: int) -> None:
    # A forked worker inherits the finalizer, but the file belongs to its parent.
    if os.getpid() == owner_pid:
        path.unlink(missing_ok=True)


class KeyedLines(Generic[Value]):
    """What the lines of a file say about each key, found by the key or by its number.

    Only 24 bytes stay in memory for each run of lines with the same key. The keys are numbered
    from 0 in the order of their first lines.
    """

    def __init__(
        self,
        file: LineFile,
        parse: Callable[[str], tuple[str, Value] | None],
        *,
        has_header: bool = False,
    ) -> None:
        """Read all lines once.

        Args:
            file: of lines in UTF-8.
            parse: gives the key and the value of a line, None for one to pass over; raises
                ValueError with words that follow `'file', line 3: `.
            has_header: whether the first line is none of them.
        """
        self.file = file
        self._parse = parse
        keys, starts, lengths = array("q"), array("q"), array("q")
        last, end = None, -1
        for number, start, line in islice(file, int(has_header), None):
            try:
                parsed = parse(line.decode())
            except ValueError as error:
                raise InputError(f"{file.where}, line {number}: {error}.") from error
            if parsed is None:
                continue
            if parsed[0] == last and start == end:
                lengths[-1] += len(line)
            else:
                keys.append(key_of(parsed[0]))
                starts.append(start)
                lengths.append(len(line))
            last, end = parsed[0], start + len(line)
        in_order = np.frombuffer(keys, dtype=np.int64) if keys else np.empty(0, np.int64)
        order = np.argsort(in_order, kind="stable")
        self._keys = in_order[order]
        self._starts, self._lengths = (
            np.frombuffer(each, np.int64)[order] if each else np.empty(0, np.int64)
            for each in (starts, lengths)
        )
        # Of each key the first block, by its place in the sorted arrays, in the file's order.
        firsts = np.flatnonzero(np.diff(self._keys, prepend=-1))
        self._firsts = firsts[np.argsort(order[firsts])]

    def __len__(self) -> int:
        return len(self._firsts)

    def __contains__(self, key: str) -> bool:
        place = int(np.searchsorted(self._keys, key_of(key)))
        return place < len(self._keys) and bool(self._keys[place] == key_of(key))

    def find(self, key: str) -> list[Value]:
        """Return the values of a key's lines in the file's order; none if it has none."""
        number = key_of(key)
        place = int(np.searchsorted(self._keys, number))
        values: list[Value] = []
        while place < len(self._keys) and self._keys[place] == number:
            values += [value for found, value in self._block(place) if found == key]
            place += 1
        return values

    def key(self, index: int) -> str:
        """Return a key by its number."""
        return self._block(int(self._firsts[index]))[0][0]

    def _block(self, place: int) -> list[tuple[str, Value]]:
        raw = self.file.read(int(self._starts[place]), int(self._lengths[place]))
        parsed = (self._parse(line) for line in raw.decode().split("\n") if line.strip())
        return [each for each in parsed if each is not None]
