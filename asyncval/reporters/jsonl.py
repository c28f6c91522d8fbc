"""`results.jsonl`: one object a result, ascending by step."""

import json
import os
from collections.abc import Sequence
from pathlib import Path

from asyncval.core.records import as_record
from asyncval.core.types import Validation

FILE_NAME = "results.jsonl"


class JsonLinesReporter:
    """Keeps the file equal to the ledger, also after a torn line or a late step."""

    def __init__(self, *, output_dir: Path, logging_dir: Path, run_name: str) -> None:
        self._path = output_dir / FILE_NAME

    def publish(self, fresh: Sequence[Validation], recorded: Sequence[Validation]) -> None:
        """Append what is new where the file has the rest; write it anew where it has not."""
        wanted = "".join(f"{json.dumps(as_record(each))}\n" for each in recorded).encode()
        present = self._path.read_bytes() if self._path.exists() else b""
        if present == wanted and self._path.exists():
            return
        if wanted.startswith(present) and present:
            with self._path.open("ab") as file:
                _write_down(file.fileno(), wanted[len(present) :])
            return
        partial = self._path.with_name(f".{FILE_NAME}.partial")
        with partial.open("wb") as file:
            _write_down(file.fileno(), wanted)
        partial.replace(self._path)

    def close(self) -> None:
        """Nothing is held open."""


def _write_down(descriptor: int, content: bytes) -> None:
    written = 0
    while written < len(content):
        written += os.write(descriptor, content[written:])
    os.fsync(descriptor)
