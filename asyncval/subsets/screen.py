"""How far `asyncval split` is: one line that stays on a terminal, a log line now and then else."""

import logging
from datetime import timedelta

from rich.console import Console
from rich.live import Live
from rich.text import Text

from asyncval.core.ports import Clock
from asyncval.subsets.corpus_pass import Reading
from asyncval.subsets.manifest import Manifest

SECONDS_BETWEEN_LINES = 10.0
SECONDS_BETWEEN_DRAWINGS = 0.2

logger = logging.getLogger(__name__)


def describe_reading(reading: Reading, *, seconds: float) -> str:
    """Return how far the pass is, how fast, and how long it still takes, as one line."""
    line = f"{reading.num_read:,} passages read, {reading.num_kept:,} kept"
    if seconds <= 0:
        return line
    line += f", {reading.num_read / seconds:,.0f} passages/s"
    if 0 < reading.done_bytes <= reading.total_bytes:
        left = seconds * (reading.total_bytes - reading.done_bytes) / reading.done_bytes
        line += f", {timedelta(seconds=round(left))} left"
    return line


def summary(done: Manifest) -> list[str]:
    """Return what a finished split is to be told of: its size, and where it came from."""
    files = "1 file" if len(done.files) == 1 else f"{len(done.files)} files"
    lines = [
        f"Kept {done.num_kept:,} of {done.num_read:,} passages "
        f"({done.num_kept / done.num_read:.2%}) in {files}."
    ]
    depths = ", ".join(map(str, done.arguments["depths"]))
    if depths:
        lines.append(f"Depth {depths}.")
    for source, counts in done.sources.items():
        lines.append(f"  {source}: {counts['found']:,} of {counts['wanted']:,} found")
    return lines


class SplitScreen:
    """Shows a pass over a corpus on standard error."""

    def __init__(self, console: Console, *, clock: Clock) -> None:
        self._live = Live(console=console, auto_refresh=False, transient=True)
        self._is_terminal = console.is_terminal
        self._clock = clock
        self._began = self._shown = clock.monotonic()

    def __enter__(self) -> "SplitScreen":
        if self._is_terminal:
            self._live.start()
        return self

    def __exit__(self, *exception: object) -> None:
        if self._is_terminal:
            self._live.stop()

    def show(self, reading: Reading) -> None:
        """Show it, if enough time has gone since the last time."""
        now = self._clock.monotonic()
        pause = SECONDS_BETWEEN_DRAWINGS if self._is_terminal else SECONDS_BETWEEN_LINES
        if now - self._shown < pause:
            return
        self._shown = now
        line = describe_reading(reading, seconds=now - self._began)
        if self._is_terminal:
            self._live.update(Text(line), refresh=True)
        else:
            logger.info(line)
