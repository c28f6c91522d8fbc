"""Wakes a waiting scan when something happens below a folder.

Events get lost in many silent ways, so they only shorten the wait: nothing depends on their
type, order or paths.
"""

import logging
import os
import re
import threading
from collections.abc import Callable
from pathlib import Path

from watchdog.events import (
    DirCreatedEvent,
    DirDeletedEvent,
    DirMovedEvent,
    FileClosedEvent,
    FileCreatedEvent,
    FileMovedEvent,
    FileSystemEvent,
    FileSystemEventHandler,
)
from watchdog.observers import Observer
from watchdog.observers.api import BaseObserver

logger = logging.getLogger(__name__)
WAKING: list[type[FileSystemEvent]] = [
    DirCreatedEvent,
    DirDeletedEvent,
    DirMovedEvent,
    FileClosedEvent,
    FileCreatedEvent,
    FileMovedEvent,
]
ATTEMPTS = 10
"""How often a folder that comes and goes is taken up in a row; the next turn goes on."""
ESCAPED = re.compile(r"\\([0-7]{3})")
"""How mountinfo writes white space and backslashes."""
REMOTE = ("nfs", "cifs", "smb", "fuse", "9p", "lustre", "gpfs", "beegfs", "ceph", "afs")
"""Starts of file system types on which other machines write, whose changes make no events here."""


class Alarm(FileSystemEventHandler):
    """Watches one folder, which may come, go, and be made again.

    While it is not there, the nearest folder above it is watched for its coming.

    Args:
        root: The folder.
        wake: Called from a thread, once until `reset`.
        enabled: False leaves everything to the scans.
    """

    def __init__(self, root: Path, wake: Callable[[], None], *, enabled: bool = True) -> None:
        self._root = root.absolute()
        self._wake = wake
        self._enabled = enabled
        self._rung = threading.Event()
        self._observer: BaseObserver | None = None
        self._identity: tuple[Path, int, int] | None = None
        self._watched = ""
        self._is_gone = threading.Event()

    def on_any_event(self, event: FileSystemEvent) -> None:
        """Wake, once until `reset`."""
        if isinstance(event, DirDeletedEvent | DirMovedEvent) and event.src_path == self._watched:
            self._is_gone.set()  # also where its number was given to the folder that came after it
        if not self._rung.is_set() and self._concerns(event):
            self._rung.set()
            self._wake()

    def _concerns(self, event: FileSystemEvent) -> bool:
        """Say whether an event is below the root, or is the coming of a folder above it."""
        place = self._identity[0] if self._identity else self._root
        if place == self._root:
            return True
        below = self._root.relative_to(place).parts[0]
        return below in (Path(os.fsdecode(each)).name for each in (event.src_path, event.dest_path))

    def reset(self) -> None:
        """Let the next event wake again; before `rearm`, which misses what comes after it."""
        self._rung.clear()

    def rearm(self) -> None:
        """Watch the folder that is there now, if it is not watched already.

        It looks again after it began to watch: the folder may have come or gone in between.
        """
        for _ in range(ATTEMPTS):
            is_gone = self._is_gone.is_set()
            identity = self._nearest()
            is_armed = identity == self._identity and self._is_alive() and not is_gone
            if is_armed or not self._enabled:
                return
            self.stop()
            self._is_gone.clear()
            self._identity = identity
            if identity is not None:
                self._start(identity[0])

    def _nearest(self) -> tuple[Path, int, int] | None:
        """Return the root, or the nearest folder above it that is there, and its identity."""
        for place in (self._root, *self._root.parents):
            try:
                stat = place.stat()
            except OSError:
                continue
            return place, stat.st_dev, stat.st_ino
        return None

    def _start(self, place: Path) -> None:
        root = place.resolve()
        self._watched = str(root)
        kind = file_system_of(root)
        if kind.startswith(REMOTE):
            logger.info("%s is on %s, which reports no changes: it is polled.", self._root, kind)
            self._enabled = False
            return
        try:
            self._observer = Observer()
            self._observer.schedule(
                self, str(root), recursive=place == self._root, event_filter=list(WAKING)
            )
            self._observer.start()
        except (FileNotFoundError, NotADirectoryError):
            self.stop()  # it went in this moment: the next turn looks again
        except OSError as error:
            logger.warning("No events from the file system (%s): it is polled.", error)
            self._enabled = False
            self.stop()

    def _is_alive(self) -> bool:
        if self._observer is None:
            return self._identity is None
        return all(emitter.is_alive() for emitter in self._observer.emitters)

    def stop(self) -> None:
        """Stop watching."""
        if self._observer is not None:
            self._observer.stop()
            if self._observer.ident is not None:  # it was started
                self._observer.join(timeout=5)
            self._observer = None


def file_system_of(path: Path) -> str:
    """Return the type of the file system that `path` is on, empty where nothing tells."""
    best, kind = "", ""
    try:
        text = Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="surrogateescape")
    except OSError:
        return ""
    for line in text.splitlines():
        before, _, after = line.partition(" - ")
        mount = ESCAPED.sub(lambda digits: chr(int(digits[1], 8)), before.split()[4])
        if path.is_relative_to(mount) and len(mount) >= len(best):
            best, kind = mount, after.split()[0]
    return kind
