"""Finds checkpoints in a folder: events wake it, a scan decides."""

import logging
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from watchdog.events import (
    DirCreatedEvent,
    DirMovedEvent,
    FileClosedEvent,
    FileCreatedEvent,
    FileMovedEvent,
    FileSystemEvent,
    FileSystemEventHandler,
)
from watchdog.observers import Observer
from watchdog.observers.api import BaseObserver

from asyncval.checkpoints.completeness import SENTINEL, STALE_FACTOR, WholeFolder, examine
from asyncval.checkpoints.folder import Folder, fingerprint
from asyncval.core.discovery import Sighting, step_in_name
from asyncval.core.errors import CheckpointError
from asyncval.core.ports import Clock
from asyncval.core.types import Checkpoint

logger = logging.getLogger(__name__)
WAKING = [DirCreatedEvent, DirMovedEvent, FileClosedEvent, FileCreatedEvent, FileMovedEvent]


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A checkpoint that is complete, or, with a `problem`, one that will not become so.

    `state` is that of its folder: while it stays, there is nothing new to find.
    """

    checkpoint: Checkpoint
    state: str
    problem: str = ""


@dataclass(slots=True)
class Watcher:
    """Looks for checkpoints below one folder; every state of a folder is reported once.

    Args:
        root: The folder that the trainer writes to; it need not exist yet.
        settle_seconds: How long a folder must have been unchanged where no file of the
            trainer says that it is complete.
        clock: Measures that.
    """

    root: Path
    settle_seconds: float
    clock: Clock
    reported: dict[str, str] = field(default_factory=dict)
    """The state in which each folder was reported, by name; may be given from before."""
    waiting: dict[str, str] = field(default_factory=dict)
    """What is not complete, by name, and why."""
    changed_at: float = 0.0
    """The monotonic time of the last change that a scan saw."""
    _sightings: dict[str, Sighting] = field(default_factory=dict)

    def scan(self, *, give_up: bool = False) -> Iterator[Found]:
        """Look once; yield what was not reported before, in step order.

        Args:
            give_up: Report what is not complete as a problem, however short it has been quiet.
        """
        candidates = self._candidates()
        for gone in self.waiting.keys() - {path.name for _, path in candidates}:
            logger.warning("%s vanished before it was whole: %s", gone, self.waiting.pop(gone))
        for step, path in candidates:
            found = self._look(path, step, give_up=give_up)
            if found is not None:
                yield found

    def _candidates(self) -> list[tuple[int, Path]]:
        try:
            paths = [path for path in self.root.iterdir() if path.is_dir()]
        except OSError:  # not there yet, or not any more: it may come (back)
            return []
        steps = [(step_in_name(path.name), path) for path in paths]
        return sorted((step, path) for step, path in steps if step is not None)

    def _look(self, path: Path, step: int, *, give_up: bool) -> Found | None:
        checkpoint = Checkpoint(path=path.absolute(), step=step, layout="")
        try:
            folder = Folder.listing(path)
        except CheckpointError as error:
            self.waiting[path.name] = str(error)
            return None
        state = folder.state
        if self.reported.get(path.name) == state:
            return None
        now = self.clock.monotonic()
        sighting = self._sightings.get(path.name)
        if sighting is None or sighting.state != state:
            self.changed_at = now
        sighting = sighting.seen_again(state, now) if sighting else Sighting(state, now)
        self._sightings[path.name] = sighting
        quiet = sighting.quiet_seconds(now)
        try:
            whole = examine(folder, step=step)
        except CheckpointError as error:
            self.waiting[path.name] = str(error)
            patience = self.settle_seconds * (1 if SENTINEL in folder else STALE_FACTOR)
            if quiet < patience and not give_up:
                return None
            return self._report(replace(checkpoint, fingerprint=state), state, str(error))
        if quiet < whole.quiet_factor * self.settle_seconds and not give_up:
            self.waiting[path.name] = whole.reason
            return None
        return self._take(path, checkpoint, whole, state)

    def _take(
        self, path: Path, checkpoint: Checkpoint, whole: WholeFolder, state: str
    ) -> Found | None:
        try:
            digest = fingerprint(path, whole.model_files)
            again = Folder.listing(path)
        except CheckpointError as error:
            self.waiting[path.name] = str(error)
            return None
        if again.state != state:
            self.waiting[path.name] = "It changed while it was read."
            return None
        return self._report(replace(checkpoint, layout=whole.layout, fingerprint=digest), state, "")

    def _report(self, checkpoint: Checkpoint, state: str, problem: str) -> Found:
        self.reported[checkpoint.name] = state
        self._sightings.pop(checkpoint.name, None)
        self.waiting.pop(checkpoint.name, None)
        return Found(checkpoint=checkpoint, state=state, problem=problem)


class Alarm(FileSystemEventHandler):
    """Wakes whoever waits when something happens below a folder.

    Events get lost in many silent ways, so they only shorten the wait for the next scan.
    `rearm` notices a folder that appeared, or that was deleted and made again.
    """

    def __init__(self, root: Path, wake: Callable[[], None]) -> None:
        self._root = root
        self._wake = wake
        self._rung = threading.Event()
        self._observer: BaseObserver | None = None
        self._identity: tuple[int, int] | None = None

    def on_any_event(self, event: FileSystemEvent) -> None:
        """Wake, once until `reset`."""
        if not self._rung.is_set():
            self._rung.set()
            self._wake()

    def reset(self) -> None:
        """Let the next event wake again."""
        self._rung.clear()

    def rearm(self) -> None:
        """Watch the folder that is there now, if it is not watched already."""
        try:
            stat = self._root.stat()
            identity = (stat.st_dev, stat.st_ino)
        except OSError:
            identity = None
        if identity == self._identity and self._is_alive():
            return
        self.stop()
        self._identity = identity
        if identity is None:
            return
        observer = Observer()
        try:
            observer.schedule(
                self, str(self._root.resolve()), recursive=True, event_filter=list(WAKING)
            )
            observer.start()
        except OSError as error:
            logger.warning("No events from the file system (%s): scanning alone finds all.", error)
        else:
            self._observer = observer

    def _is_alive(self) -> bool:
        if self._observer is None:
            return self._identity is None
        return all(emitter.is_alive() for emitter in self._observer.emitters)

    def stop(self) -> None:
        """Stop watching."""
        if self._observer is not None:
            self._observer.stop()
            self._observer.join(timeout=5)
            self._observer = None
