"""R17: events come again after the watched folder was deleted and made anew, at any pace."""

import shutil
import threading
import time
from queue import Empty, SimpleQueue

import pytest

from asyncval.alarm import Alarm

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
