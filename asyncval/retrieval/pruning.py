"""Keeping a folder of token stores below a size, and free of what killed processes left.

Whoever uses a store holds a shared lock on its `about.json`, whose modification time is when it
was last opened. A store is removed only under an exclusive lock, so never one in use. Whoever
makes one holds a lock on its folder.
"""

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

MARK = "about.json"
PARTIAL = ".partial-"
YOUNG_SECONDS = 60.0
"""What is younger may be a folder on which its maker has no lock yet."""


def hold(store: Path) -> int | None:
    """Note that a store is used now and return a descriptor that keeps it; None: it is gone.

    Where the file system has no locks, nothing is ever removed.
    """
    try:
        descriptor = os.open(store / MARK, os.O_RDONLY)
    except FileNotFoundError:
        return None
    with suppress(OSError):
        fcntl.flock(descriptor, fcntl.LOCK_SH)
    if not store.exists():  # it was removed while we waited for the lock
        os.close(descriptor)
        return None
    with suppress(OSError):
        os.utime(store / MARK)
    return descriptor


@contextmanager
def being_made(folder: Path) -> Iterator[Path]:
    """Give a new folder in `folder`, which is removed in the end if it still has its name."""
    partial = Path(tempfile.mkdtemp(prefix=PARTIAL, dir=folder))
    descriptor = os.open(partial, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        _remove_abandoned(folder, before=partial.stat().st_mtime - YOUNG_SECONDS)
        yield partial
    finally:
        os.close(descriptor)
        shutil.rmtree(partial, ignore_errors=True)


def _remove_abandoned(folder: Path, *, before: float) -> None:
    """Remove the folders of makers that were killed before that time."""
    for path in folder.glob(f"{PARTIAL}*"):
        with suppress(OSError):
            descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if path.stat().st_mtime < before:
                    shutil.rmtree(path, ignore_errors=True)
            finally:
                os.close(descriptor)


def prune(folder: Path, *, max_bytes: int) -> None:
    """Remove the stores that were not used for longest, until the rest fits or is in use."""
    stores = sorted(_stores(folder), key=lambda each: each[1])
    total = sum(size for _, _, size in stores)
    for store, _, size in stores:
        if total <= max_bytes:
            return
        with _locked(store) as is_free:
            if is_free:
                gone = store.with_name(f"{PARTIAL}{store.name}")
                with suppress(OSError):
                    store.rename(gone)
                    shutil.rmtree(gone, ignore_errors=True)
                    total -= size


def _stores(folder: Path) -> Iterator[tuple[Path, int, int]]:
    """Yield each store, when it was last used, in ns, and its bytes."""
    for store in folder.iterdir():
        with suppress(OSError):  # another process removes it, or it is being made
            used = (store / MARK).stat().st_mtime_ns
            if not store.name.startswith("."):
                yield store, used, sum(path.stat().st_size for path in store.iterdir())


@contextmanager
def _locked(store: Path) -> Iterator[bool]:
    """Try to be the only one who uses a store."""
    try:
        descriptor = os.open(store / MARK, os.O_RDONLY)
    except FileNotFoundError:
        yield False
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        yield False
    else:
        yield True
    finally:
        os.close(descriptor)
