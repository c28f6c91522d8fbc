"""A folder as one listing saw it, and the identity of what is in it."""

import errno
import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from asyncval.core.errors import CheckpointBlocked, CheckpointIncomplete

MAX_DEPTH = 2


@dataclass(frozen=True, slots=True)
class FileStat:
    """What tells one state of a file from another without opening it."""

    size: int
    mtime_ns: int
    inode: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Folder:
    """All files below `path`, two levels of sub-folders deep, by their relative path.

    `folders` has the modification times of the folder itself (`""`) and of those below it,
    in nanoseconds: they change when a file is added or removed. `origin` is where the trainer
    wrote the files, where `path` is a place that keeps them.
    """

    path: Path
    files: Mapping[str, FileStat]
    folders: Mapping[str, int]
    origin: Path | None = None

    @classmethod
    def listing(cls, path: Path) -> "Folder":
        """List a folder now.

        Raises:
            CheckpointIncomplete: It vanished while it was listed.
        """
        files: dict[str, FileStat] = {}
        folders: dict[str, int] = {}
        try:
            _list_into(files, folders, path, prefix="", depth=0)
        except PermissionError as error:
            raise CheckpointBlocked.at(error.filename) from error
        except OSError as error:
            raise CheckpointIncomplete(f"It changed while it was listed: {error}.") from error
        return cls(path=path, files=files, folders=folders)

    @property
    def state(self) -> str:
        """A digest of the listing: as long as it stays the same, nothing was written here."""
        listing = repr((sorted(self.files.items()), sorted(self.folders.items())))
        return hashlib.sha256(listing.encode("utf-8", "surrogateescape")).hexdigest()

    @property
    def changed_at(self) -> float:
        """The time of the last change that the listing shows, in seconds since the epoch."""
        times = [*self.folders.values(), *(stat.mtime_ns for stat in self.files.values())]
        return max(times, default=0) / 1e9

    def __contains__(self, name: str) -> bool:
        return name in self.files

    def read_json(self, name: str) -> Any:  # noqa: ANN401
        """Return the content of a JSON file.

        Raises:
            CheckpointIncomplete: It is missing or does not parse.
        """
        try:
            return json.loads((self.path / name).read_bytes())
        except (OSError, ValueError, RecursionError) as error:
            raise CheckpointIncomplete(f"{name} cannot be read as JSON: {error}.") from error

    def subset(self, names: Iterable[str]) -> Mapping[str, FileStat]:
        """Return the stats of those of `names` that are there."""
        return {name: self.files[name] for name in names if name in self.files}


def _list_into(
    files: dict[str, FileStat], folders: dict[str, int], path: Path, *, prefix: str, depth: int
) -> None:
    folders[prefix] = before = path.stat().st_mtime_ns
    with os.scandir(path) as entries:
        for entry in entries:
            name = prefix + entry.name
            if is_folder(entry):
                if depth < MAX_DEPTH:
                    _list_into(files, folders, Path(entry.path), prefix=f"{name}/", depth=depth + 1)
                continue
            with suppress(FileNotFoundError):  # a link to nothing, or gone in this moment
                stat = entry.stat()
                files[name] = FileStat(stat.st_size, stat.st_mtime_ns, stat.st_ino)
    if path.stat().st_mtime_ns != before:  # or a file that just went would not be missed
        raise FileNotFoundError(errno.ENOENT, "entries came or went", str(path))


def is_folder(entry: "os.DirEntry[str]") -> bool:
    """Say whether an entry is a folder, or a link to one; a link in a circle is none."""
    try:
        return entry.is_dir()
    except OSError:
        return False


def fingerprint(path: Path, names: Iterable[str]) -> str:
    """Return a digest of the names and the content of the files `names` below `path`.

    Raises:
        CheckpointIncomplete: One of them vanished.
    """
    whole = hashlib.sha256()
    try:
        for name in sorted(names):
            with (path / name).open("rb") as file:
                whole.update(
                    f"{name}\0{hashlib.file_digest(file, 'sha256').hexdigest()}\n".encode()
                )
    except PermissionError as error:
        raise CheckpointBlocked.at(error.filename) from error
    except (FileNotFoundError, NotADirectoryError) as error:
        raise CheckpointIncomplete(f"It changed while it was read: {error}.") from error
    return whole.hexdigest()
