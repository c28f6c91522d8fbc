"""Keep a checkpoint's files readable after the trainer deleted them.

A pin is a folder outside the watched one with the model files of one checkpoint: clones that
share their blocks where the file system can (reflink), else further names of the same files
(hard link), else copies. It is made aside and renamed, so it is whole or not there. A hard
link is not isolated from a trainer that rewrites a file in place: the pin's state is therefore
compared again after the evaluation.
"""

import errno
import fcntl
import hashlib
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Thread

from asyncval.checkpoints.folder import FileStat, Folder
from asyncval.checkpoints.structure import check_file
from asyncval.core.errors import (
    CheckpointBlocked,
    CheckpointError,
    CheckpointIncomplete,
    InvalidOption,
)
from asyncval.core.types import PinMethod

FICLONE = 0x40049409  # of linux/fs.h
PARTIAL = ".partial"
MARK = "@"
DIGITS = 12
CANNOT_SHARE = {
    errno.EXDEV,
    errno.EPERM,
    errno.EOPNOTSUPP,
    errno.EINVAL,
    errno.ENOTTY,
    errno.EMLINK,
    errno.ENOSYS,
}


Way = Callable[[int, Path, Path], None]
"""Makes a file from an open one and its path."""


@dataclass(frozen=True, slots=True)
class Pin:
    """Where the files are, and the state of that folder when it was made."""

    path: Path
    state: str


class PinStore:
    """The pins of one daemon.

    Args:
        root: Where they are; made when it is first needed.
        method: One way, or `auto` for the best that works; `none` pins nothing.
    """

    def __init__(self, root: Path, *, method: PinMethod) -> None:
        self.root = root
        self._ways: dict[str, Way] = {
            "reflink": _reflink,
            "hardlink": _hard_link,
            "copy": _copy,
        }
        if method not in ("auto", "none"):
            self._ways = {method: self._ways[method]}
        self._method = method

    def pin(self, folder: Folder, names: Sequence[str], *, key: str) -> Pin:
        """Pin the files `names` of a folder as its listing saw them.

        Args:
            folder: The listing; a file that is not as it says any more aborts the pin.
            names: Relative paths.
            key: The name of the pin, to which a digest of its state is added.

        Raises:
            CheckpointIncomplete: A file vanished or changed, or is not whole after all.
            CheckpointBlocked: A file may not be read.
            InvalidOption: The one method that was asked for does not work here.
        """
        if self._method == "none":
            return Pin(folder.path, _state_of(folder, list(folder.files)))
        partial = self.root / f"{key}{PARTIAL}"
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        try:
            links = []
            for name in names:
                target = partial / name
                target.parent.mkdir(parents=True, exist_ok=True)
                if self._take(folder.path / name, target, folder.files[name]):
                    links.append(name)
            for name in names:
                check_file(partial / name)
            made = Folder.listing(partial)
            if made.subset(links) != folder.subset(links):
                raise CheckpointIncomplete("A file was rewritten while others were pinned.")
            state = _state_of(made, names)
            place = self.root / f"{key}{MARK}{state[:DIGITS]}"
            if not self.is_unchanged(Pin(place, state)):  # else it may be read just now
                shutil.rmtree(place, ignore_errors=True)
                partial.rename(place)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
        return Pin(place, state)

    def _take(self, source: Path, target: Path, expected: FileStat) -> bool:
        """Make `target`, and say whether it is a further name of the same file."""
        try:
            descriptor = os.open(source, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError as error:
            raise CheckpointIncomplete(f"{source.name} vanished before it was pinned.") from error
        except PermissionError as error:
            raise CheckpointBlocked.at(source) from error
        try:
            _expect(descriptor, expected, source)
            is_link = self._share(descriptor, source, target) is _hard_link
            _expect(descriptor, expected, source)
            if target.stat().st_size != expected.size:
                raise CheckpointIncomplete(f"{source.name} changed while it was pinned.")
            return is_link
        finally:
            os.close(descriptor)

    def _share(self, descriptor: int, source: Path, target: Path) -> Way:
        """Make `target` by the first way that works for this file, and return that one."""
        for name, way in self._ways.items():
            try:
                way(descriptor, source, target)
                return way
            except FileNotFoundError as error:
                raise CheckpointIncomplete(
                    f"{source.name} vanished while it was pinned."
                ) from error
            except OSError as error:
                if error.errno not in CANNOT_SHARE:
                    raise
                if len(self._ways) == 1:
                    raise InvalidOption(
                        f"--pin {name} does not work between {str(source.parent)!r} and "
                        f"{str(self.root)!r}: {error.strerror}. Give --pin auto or copy."
                    ) from error
                target.unlink(missing_ok=True)
        raise AssertionError("copying is always left")

    def is_unchanged(self, pin: Pin) -> bool:
        """Say whether the files are still those that were pinned."""
        try:
            folder = Folder.listing(pin.path)
        except CheckpointError:
            return False
        return _state_of(folder, list(folder.files)) == pin.state

    def intact(self) -> Iterator[Pin]:
        """Yield all pins that are as they were made, the oldest first."""
        places = [path for path in self.root.glob("*") if path.is_dir()]
        for path in sorted(places, key=lambda each: each.stat().st_mtime_ns):
            pin = intact_pin(path)
            if pin is not None:
                yield pin

    def release(self, path: Path) -> None:
        """Remove a pin; a folder that is none of ours is left alone."""
        if path.parent == self.root:
            shutil.rmtree(path, ignore_errors=True)

    def clean(self, keep: Iterable[Path]) -> None:
        """Remove half-made pins, and all that are not in `keep`."""
        kept = set(keep)
        for path in self.root.glob("*"):
            if path not in kept:
                shutil.rmtree(path, ignore_errors=True)

    def remove_root(self) -> None:
        """Remove the folder of the pins if it is empty."""
        if self.root.is_dir() and not any(self.root.iterdir()):
            self.root.rmdir()


def intact_pin(path: Path) -> Pin | None:
    """Return the pin at a place if it is as it was made, which its name tells."""
    try:
        folder = Folder.listing(path)
    except CheckpointError:  # it is half-made, or somebody else's
        return None
    pin = Pin(path, _state_of(folder, list(folder.files)))
    return pin if path.name.endswith(f"{MARK}{pin.state[:DIGITS]}") else None


def pin_root(watched: Path, output_dir: Path) -> Path:
    """Return where pins go: in the output folder, or, to share a file system, beside `watched`.

    It is never inside the watched folder, whose trainer counts and deletes what is in it, and
    each output folder has its own.
    """
    inside = output_dir.resolve() / "pins"
    watched = watched.resolve()
    is_below = watched in inside.parents
    if is_below or (_device(watched) != _device(output_dir) and os.access(watched.parent, os.W_OK)):
        own = hashlib.sha256(str(inside).encode("utf-8", "surrogateescape")).hexdigest()[:8]
        return watched.parent / f".{watched.name}.asyncval-pins-{own}"
    return inside


def folder_bytes(path: Path) -> int:
    """Return how many bytes the files of a pin have."""
    try:
        return sum(stat.size for stat in Folder.listing(path).files.values())
    except CheckpointIncomplete:
        return 0


def read_ahead(folder: Path) -> None:
    """Have the system read a folder's files into memory, and do not wait for it."""
    Thread(target=_ask_for, args=(folder,), daemon=True).start()


def _ask_for(folder: Path) -> None:
    for path in folder.rglob("*"):
        try:
            with path.open("rb") as file:
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_WILLNEED)
        except OSError:  # a folder, or gone: whoever needs it says so
            continue


def _device(path: Path) -> int | None:
    for each in (path, *path.absolute().parents):
        if each.exists():
            return each.stat().st_dev
    return None


def _state_of(folder: Folder, names: Sequence[str]) -> str:
    return Folder(path=folder.path, files=folder.subset(names), folders={}).state


def _expect(descriptor: int, expected: FileStat, source: Path) -> None:
    stat = os.fstat(descriptor)
    if FileStat(stat.st_size, stat.st_mtime_ns, stat.st_ino) != expected:
        raise CheckpointIncomplete(f"{source.name} changed while it was pinned.")


def _reflink(descriptor: int, source: Path, target: Path) -> None:
    with target.open("wb") as file:
        fcntl.ioctl(file.fileno(), FICLONE, descriptor)


def _hard_link(descriptor: int, source: Path, target: Path) -> None:
    os.link(source.resolve(), target)  # a link to a file would keep nothing
    if target.lstat().st_ino != os.fstat(descriptor).st_ino:
        raise CheckpointIncomplete(f"{source.name} was replaced while it was pinned.")


def _copy(descriptor: int, source: Path, target: Path) -> None:
    with os.fdopen(os.dup(descriptor), "rb") as file, target.open("wb") as output:
        file.seek(0)
        shutil.copyfileobj(file, output, 1 << 20)
