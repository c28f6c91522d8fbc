"""`asyncval results`, `status` and `retry`: what the ledger of an output folder says."""

import json
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console

from asyncval.clock import SystemClock
from asyncval.config import (
    ResultsConfig,
    RetryConfig,
    StatusConfig,
)
from asyncval.core.errors import NothingToDo
from asyncval.core.records import as_record, current
from asyncval.core.types import State, Validation
from asyncval.ledger.lock import is_held
from asyncval.ledger.sqlite import Ledger
from asyncval.ui import results_table, set_up_logging

logger = logging.getLogger(__name__)
PLAIN_WIDTH = 200


def results(config: ResultsConfig) -> int:
    """Print the table of results, or the same as JSON."""
    print_rows(current_rows(config.output_dir), as_json=config.json)
    return 0


def status(config: StatusConfig) -> int:
    """Print what waits, runs and failed."""
    rows = current_rows(config.output_dir)
    counts = {str(state): sum(row.state is state for row in rows) for state in State}
    open_rows = [row for row in rows if row.state is not State.DONE]
    is_watched = is_held(config.output_dir)
    if config.json:
        entries = [as_record(row) for row in open_rows]
        values = {"counts": counts, "daemon": is_watched, "checkpoints": entries}
        print(json.dumps(values, indent=2))
        return 0
    told = ", ".join(f"{count} {state}" for state, count in counts.items() if count)
    print(f"{told or 'nothing yet'}{'' if is_watched else ' (no daemon runs)'}")
    for row in open_rows:
        reason = f": {row.reason}" if row.reason else ""
        print(f"{row.checkpoint.name}  {row.state}{reason}")
    return 0


def retry(config: RetryConfig) -> int:
    """Queue what failed or was skipped anew; a daemon that runs takes it up by itself."""
    set_up_logging(Console(stderr=True))
    with open_ledger(config.output_dir) as ledger:
        plan = ledger.newest_plan()
        num_queued = ledger.retry_failed(plan=plan) if plan else 0
    if not num_queued:
        raise NothingToDo("Nothing failed or was skipped.")
    logger.info("%d checkpoints are queued again.", num_queued)
    return 0


@contextmanager
def open_ledger(output_dir: Path) -> Iterator[Ledger]:
    """Open the ledger that is in a folder; refuse a folder without one."""
    ledger = Ledger(output_dir, clock=SystemClock(), must_exist=True)
    try:
        yield ledger
    finally:
        ledger.close()


def current_rows(output_dir: Path) -> list[Validation]:
    """Return the rows of the plan that was used last, ascending by step."""
    with open_ledger(output_dir) as ledger:
        plan = ledger.newest_plan()
        return current(ledger.validations(plan=plan)) if plan else []


def print_rows(rows: Sequence[Validation], *, as_json: bool) -> None:
    """Print rows as a table, or as a JSON array."""
    if as_json:
        print(json.dumps([as_record(row) for row in rows], indent=2))
        return
    if not rows:
        raise NothingToDo("No checkpoint has been found yet.")
    wide_console().print(results_table(rows))


def wide_console() -> Console:
    """Return standard output; a pipe has no width, and what reads it wants whole lines."""
    console = Console()
    return Console(width=None if console.is_terminal else PLAIN_WIDTH)
