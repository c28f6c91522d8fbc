"""The live terminal: what waits, what runs and how far it is, and the table of results.

`render` is pure; `LiveScreen` and `PlainScreen` show what it gives, or nothing.
"""

import logging
from collections.abc import Sequence
from contextlib import suppress
from datetime import timedelta

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.logging import RichHandler
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from asyncval.core.records import best_of, current, with_result
from asyncval.core.types import Progress, State, Validation
from asyncval.daemon import View

MAX_ROWS = 12


def measures_of(validations: Sequence[Validation]) -> list[str]:
    """Return the names of all measures, in the order of the newest result."""
    done = with_result(validations)
    return list(done[-1].result.metrics) if done and done[-1].result else []


def results_table(validations: Sequence[Validation], *, max_rows: int | None = None) -> Table:
    """Return the table of current rows, the best value of each measure in bold with a star."""
    rows = current(validations)
    measures = measures_of(rows)
    best = {measure: best_of(rows, measure) for measure in measures}
    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("step", justify="right")
    table.add_column("checkpoint", overflow="fold")
    table.add_column("status")
    for measure in measures:
        table.add_column(measure, justify="right")
    table.add_column("seconds", justify="right")
    for row in rows[-max_rows:] if max_rows else rows:
        values = row.result.metrics if row.result else {}
        cells = [
            Text(
                f"{values[m]:.4f}{'*' if best[m] is row else ' '}" if m in values else "",
                style="bold green" if best[m] is row else "",
            )
            for m in measures
        ]
        step = "" if row.checkpoint.step is None else str(row.checkpoint.step)
        seconds = f"{row.result.seconds['total']:.1f}" if row.result else ""
        style = "red" if row.state is State.FAILED else ""
        table.add_row(step, row.checkpoint.name, Text(str(row.state), style=style), *cells, seconds)
    return table


def profile_table(validations: Sequence[Validation]) -> Table:
    """Return where the time of each validation went, in seconds and shares, and how fast it was."""
    done = [row for row in validations if row.result is not None]
    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("phase")
    for row in done:
        table.add_column(row.checkpoint.name, justify="right")
    results = [row.result for row in done if row.result is not None]
    for phase in results[0].seconds if results else ():
        shares = [
            f"{each.seconds[phase]:.3f} s {each.seconds[phase] / (each.seconds['total'] or 1):6.1%}"
            for each in results
        ]
        table.add_row(phase, *shares)
    forms = {
        "tokens_per_second": ("tokens/s", "{:,.0f}"),
        "padding": ("padding", "{:.2%}"),
        "of_floor": ("of the machine's best rate", "{:.1%}"),
    }
    for name, (label, form) in forms.items():
        table.add_row(label, *(form.format(each.speed.get(name, 0.0)) for each in results))
    return table


def render(view: View, *, now: float) -> RenderableType:
    """Return the whole picture.

    Args:
        view: The daemon's state.
        now: The monotonic time.
    """
    queued = [v.checkpoint.name for v in view.validations if v.state is State.QUEUED]
    parts: list[RenderableType] = []
    if current(view.validations):
        parts += [results_table(view.validations, max_rows=MAX_ROWS), Text()]
    for device, (job, progress, since) in view.running.items():
        parts.append(_running(device, job.checkpoint.name, progress, seconds=now - since))
    waiting = f"queued: {_some(queued)}" if queued else "queue empty"
    if view.waiting:
        waiting += f"   being written: {_some(sorted(view.waiting))}"
    parts.append(Text(waiting, style="dim"))
    return Group(*parts)


def _running(device: str, name: str, progress: Progress, *, seconds: float) -> RenderableType:
    line = Table.grid(padding=(0, 1))
    cells: list[RenderableType] = [Text(device, style="cyan"), Text(name), Text(progress.phase)]
    if progress.total:
        cells.append(ProgressBar(total=progress.total, completed=progress.done, width=20))
    if progress.done and seconds > 0:
        rate = progress.done / seconds
        cells.append(Text(f"{rate:,.0f} texts/s"))
        if progress.total:
            left = timedelta(seconds=round((progress.total - progress.done) / rate))
            cells.append(Text(f"{left} left", style="dim"))
    line.add_row(*cells)
    return line


def _some(names: Sequence[str], most: int = 4) -> str:
    shown = ", ".join(names[:most])
    return f"{shown} and {len(names) - most} more" if len(names) > most else shown


class PlainScreen:
    """Shows nothing: the log lines say what happens."""

    def update(self, view: View, *, now: float) -> None:
        """Leave it at that."""

    def close(self) -> None:
        """Leave it at that."""


class LiveScreen:
    """Keeps the picture at the bottom of a terminal, with the log above it."""

    def __init__(self, console: Console) -> None:
        self._live = Live(console=console, auto_refresh=False, transient=False)
        self._live.start()

    def update(self, view: View, *, now: float) -> None:
        """Draw the view; the terminal may be gone."""
        with suppress(OSError):
            self._live.update(render(view, now=now), refresh=True)

    def close(self) -> None:
        """Leave the last picture standing."""
        self._live.stop()


class EvalScreen:
    """One line at the bottom of a terminal while `asyncval eval` works; nothing elsewhere."""

    def __init__(self, console: Console) -> None:
        self._live = Live(console=console, auto_refresh=False, transient=True)
        self._shows = console.is_terminal
        self._began = ("", "", 0.0)

    def __enter__(self) -> "EvalScreen":
        if self._shows:
            self._live.start()
        return self

    def __exit__(self, *exception: object) -> None:
        if self._shows:
            self._live.stop()

    def show(self, name: str, progress: Progress, *, now: float) -> None:
        """Draw how far a checkpoint is, as of the monotonic time `now`."""
        if not self._shows:
            return
        if self._began[:2] != (name, progress.phase):
            self._began = (name, progress.phase, now)
        line = _running("", name, progress, seconds=now - self._began[2])
        self._live.update(line, refresh=True)


def set_up_logging(console: Console) -> None:
    """Log to standard error: through the console where it is a terminal, plainly otherwise."""
    if console.is_terminal:
        handler: logging.Handler = RichHandler(
            console=console, show_path=False, show_level=False, log_time_format="%H:%M:%S",
            highlighter=None, markup=False, omit_repeated_times=False,
        )  # fmt: skip
        handler.setFormatter(logging.Formatter("%(message)s"))
    else:
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%Y-%m-%d %H:%M:%S"))
    logging.basicConfig(handlers=[handler], level=logging.INFO, force=True)
