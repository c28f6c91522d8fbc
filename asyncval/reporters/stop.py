"""`stop`: there once enough results in a row were no better than the best before them."""

import json
from collections.abc import Callable, Sequence
from math import inf
from pathlib import Path

from asyncval.core.types import Validation

FILE_NAME = "stop"


class StopReporter:
    """Tells a trainer that looks for the file that it may end.

    Args:
        output_dir: Where the file goes.
        patience: How many results in a row must be no better by the first measure.
        first_open_step: Says from which step on results may be missing: those behind a checkpoint
            that still waits are not counted.
    """

    def __init__(
        self,
        *,
        output_dir: Path,
        patience: int,
        first_open_step: Callable[[], float] = lambda: inf,
    ) -> None:
        self._path = output_dir / FILE_NAME
        self._patience = patience
        self._first_open_step = first_open_step

    def publish(self, fresh: Sequence[Validation], recorded: Sequence[Validation]) -> None:
        """Write the file whole where it is due, and remove one that is not due any more."""
        first = self._first_open_step()
        in_a_row = [each for each in recorded if (each.checkpoint.step or 0) < first]
        due = stopping_point(in_a_row, patience=self._patience)
        if due is None:
            if self._written_at() < first:  # else what is still open may yet confirm it
                self._path.unlink(missing_ok=True)
            return
        wanted = json.dumps({"step": due.checkpoint.step, "patience": self._patience})
        partial = self._path.with_name(f".{FILE_NAME}.partial")
        partial.write_text(wanted, encoding="utf-8")
        partial.replace(self._path)

    def _written_at(self) -> int:
        """Return the step that the file has, -1 where it cannot be read."""
        try:
            return int(json.loads(self._path.read_text(encoding="utf-8"))["step"])
        except (OSError, ValueError, KeyError, TypeError):
            return -1

    def close(self) -> None:
        """Nothing is held open."""


def stopping_point(recorded: Sequence[Validation], *, patience: int) -> Validation | None:
    """Return the first result, ascending by step, at which patience was over, or None."""
    best, num_no_better = float("-inf"), 0
    for each in recorded:
        assert each.result is not None, "only results are published"
        value = next(iter(each.result.metrics.values()))
        num_no_better = 0 if value > best else num_no_better + 1
        best = max(best, value)
        if num_no_better >= patience:
            return each
    return None
