"""Keeping a folder of token stores below a size.

Whoever uses a store holds a shared lock on its `about.json`, whose modification time is when it
was last opened. A store is removed only under an exclusive lock, so never one in use.
"""

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

MARK = "about.json"


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


def prune(folder: Path, *, max_bytes: int) -> None:
    """Remove the stores that were not used for longest, until the rest fits or is in use."""
    stores = sorted(_stores(folder), key=lambda each: each[1])
    total = sum(size for _, _, size in stores)
    for store, _, size in stores:
        if total <= max_bytes:
            return
        with _locked(store) as is_free:
            if is_free:
                gone = store.with_name(f".partial-{store.name}")
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
