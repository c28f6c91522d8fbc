"""`best.json`: the best checkpoint so far by the first measure, replaced as a whole."""

import json
from collections.abc import Sequence
from pathlib import Path

from asyncval.core.records import as_record, best_of, first_measure
from asyncval.core.types import Validation

FILE_NAME = "best.json"


class BestReporter:
    """Keeps the file equal to the ledger; whoever reads it always sees whole JSON."""

    def __init__(self, *, output_dir: Path, logging_dir: Path, run_name: str) -> None:
        self._path = output_dir / FILE_NAME

    def publish(self, fresh: Sequence[Validation], recorded: Sequence[Validation]) -> None:
        """Write the best of `recorded`, if it is not the one that is there."""
        measure = first_measure(recorded)
        best = best_of(recorded, measure)
        if best is None or best.result is None:
            self._path.unlink(missing_ok=True)
            return
        value = best.result.metrics[measure]
        wanted = json.dumps({"measure": measure, "value": value, **as_record(best)}, indent=2)
        if self._path.exists() and self._path.read_text(encoding="utf-8") == wanted:
            return
        partial = self._path.with_name(f".{FILE_NAME}.partial")
        partial.write_text(wanted, encoding="utf-8")
        partial.replace(self._path)

    def close(self) -> None:
        """Nothing is held open."""
