"""R17, R19: events come again after the watched folder was made anew, and may be had by nobody."""

import errno
import logging
import os
import shutil
import threading
import time
from queue import Empty, SimpleQueue

import pytest

from asyncval.alarm import Alarm
from asyncval.lookout import Lookout

PAUSES = (0.0, 0.0, 0.0, 0.001, 0.003, 0.01, 0.03, 0.1)
WAKE_SECONDS = 1.5


class Loop:
    """The daemon's loop as far as the alarm sees it."""

    def __init__(self, root):
        self.wakes: SimpleQueue[str] = SimpleQueue()
        self.alarm = Alarm(root, lambda: self.wakes.put("wake"))
        self.turns = 0
        self._end = threading.Event()
        self._turn()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _turn(self):
        self.alarm.reset()
        self.alarm.rearm()
        self.turns += 1

    def _run(self):
        while not self._end.is_set():
            try:
                self.wakes.get(timeout=0.05)
            except Empty:
                continue
            self._turn()

    def close(self):
        self._end.set()
        self._thread.join()
        self.alarm.stop()


@pytest.mark.parametrize("pause", PAUSES)
def test_r17_a_folder_that_was_made_again_wakes_as_before(tmp_path, pause):
    root = tmp_path / "training"
    (root / "checkpoint-1").mkdir(parents=True)
    loop = Loop(root)
    try:
        shutil.rmtree(root)
        time.sleep(pause)
        root.mkdir()
        time.sleep(0.3)
        before = loop.turns
        (root / "checkpoint-2").mkdir()
        deadline = time.monotonic() + WAKE_SECONDS
        while loop.turns == before and time.monotonic() < deadline:
            time.sleep(0.01)
        assert loop.turns > before
    finally:
        loop.close()


def test_r17_a_root_that_goes_in_the_moment_it_is_to_be_watched_leaves_nothing_open(tmp_path):
    def open_things():
        return len(os.listdir("/proc/self/fd")), threading.active_count()  # noqa: PTH208

    alarm = Alarm(tmp_path / "training", lambda: None)
    files_before, threads_before = open_things()
    for _ in range(5):
        alarm._start(tmp_path / "training")
    files, threads = open_things()
    assert files <= files_before
    assert threads <= threads_before


# R19


def test_r19_where_no_events_can_be_had_the_scans_find_what_there_is(
    put, station, monkeypatch, caplog
):
    """The limit of inotify instances is reached by other programs."""
    tries = []

    def refuse():
        tries.append("try")
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr("asyncval.alarm.Observer", refuse)
    put(1)
    here = station()
    lookout = Lookout(here.watcher, here.pins, wake=lambda: None, scan_seconds=0.01)
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            lookout.look()
    assert [found.checkpoint.name for found in lookout.found] == ["checkpoint-1"]
    [said] = [record.getMessage() for record in caplog.records]
    assert "Too many open files" in said
    assert "it is polled" in said
    assert len(tries) == 1
