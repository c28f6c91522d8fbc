"""Finds and keeps checkpoints, whatever the daemon waits for.

A trainer that rotates does not wait until a result is on disk. So what is whole is pinned by a
thread of its own, which the alarm wakes, and is taken up by the daemon when it comes to it.
"""

import threading
from collections import deque
from collections.abc import Callable, Iterable
from math import inf
from pathlib import Path

from asyncval.alarm import Alarm
from asyncval.checkpoints.pins import PinStore
from asyncval.watcher import Found, Watcher

COALESCE_SECONDS = 0.01
"""How long a save, which makes many events, is let come to rest."""
STOP_SECONDS = 5.0


class Lookout:
    """Scans when the alarm rings and every few seconds, and holds what is found until it is taken.

    Only one thread scans at a time; pins are removed only while none does.

    Args:
        watcher: Finds checkpoints.
        pins: Where they are kept.
        wake: Called from a thread when something was found.
        events: Whether the file system is to tell of changes; else only the time does.
        scan_seconds: The longest time between two scans.
        one_by_one: Let each be recorded before the next is kept, as where space is limited.
    """

    def __init__(
        self,
        watcher: Watcher,
        pins: PinStore,
        *,
        wake: Callable[[], None],
        events: bool = True,
        scan_seconds: float,
        one_by_one: bool = False,
    ) -> None:
        self.watcher = watcher
        self.found: deque[Found] = deque()
        """What the daemon has not recorded yet, with its pins."""
        self.is_hurried = False
        """Whether to keep all that there is, as the daemon cannot record it now."""
        self._pins = pins
        self._wake = wake
        self._scan_seconds = scan_seconds
        self._one_by_one = one_by_one
        self._rung = threading.Event()
        self._alarm = Alarm(watcher.root, self._rung.set, enabled=events)
        self._lock = threading.Lock()
        self._forgotten: deque[str] = deque()
        self._error: Exception | None = None
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Scan from now on."""
        self._thread = threading.Thread(target=self._run, name="lookout", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Scan no more; what is being copied is not waited for long, and is removed at a start."""
        self._ended.set()
        self._rung.set()
        if self._thread is not None:
            self._thread.join(timeout=STOP_SECONDS)
            self._thread = None
        self._alarm.stop()

    def _run(self) -> None:
        while not self._ended.is_set():
            try:
                self.look()
            except Exception as error:  # the daemon's to say
                self._error = error
            if self.found or self._error:
                self._wake()
            if self._rung.wait(self._scan_seconds):
                self._ended.wait(COALESCE_SECONDS)

    def look(self, *, give_up: bool = False, last_step: float = inf) -> None:
        """Scan once; the arguments are those of `Watcher.scan`."""
        with self._lock:
            self._rung.clear()
            waits = self._one_by_one and not give_up and not self.is_hurried
            if waits and self.found:
                return
            self._alarm.reset()
            self._alarm.rearm()
            while self._forgotten:
                self.watcher.forget(self._forgotten.popleft())
            for found in self.watcher.scan(give_up=give_up, last_step=last_step):
                self.found.append(found)  # each at once: the next one may take long to be copied
                if waits:
                    return

    def go_on(self) -> None:
        """Have the next scan made, by the thread if there is one; raise what went wrong in it."""
        error, self._error = self._error, None
        if self._thread is None:
            self.look()
        elif error is not None:
            raise error
        elif self._one_by_one:
            self._rung.set()

    def adopt(self, recorded: Iterable[Path]) -> None:
        """Find again what was pinned and not recorded, as the process was killed in between."""
        with self._lock:
            self.found.extend(self.watcher.adopt(set(recorded)))

    def forget(self, name: str) -> None:
        """Have the next scan look at a folder as if it had never been reported."""
        self._forgotten.append(name)
        self._rung.set()

    def clean(self, keep: Iterable[Path]) -> bool:
        """Remove all pins that are neither kept nor held here; not while one may be made.

        Returns:
            Whether that could be done now.
        """
        if not self._lock.acquire(blocking=False):
            return False
        try:
            held = [each.checkpoint.pin for each in self.found if each.checkpoint.pin]
            self._pins.clean([*keep, *held])
        finally:
            self._lock.release()
        return True
