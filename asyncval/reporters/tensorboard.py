"""TensorBoard events in a run directory of our own, at the trainer's steps.

TensorBoard drops later points when an earlier step arrives after them, and it keeps what a
crashed process wrote twice. So the directory always holds one file, ascending by step: it is
appended to while results come in order, and written anew from the ledger when they do not.
"""

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from asyncval.core.types import Validation

if TYPE_CHECKING:
    from tensorboard.summary.writer.event_file_writer import EventFileWriter


SUFFIX = ".asyncval"


class TensorBoardReporter:
    """Writes `eval/<measure>` and `asyncval/<quantity>` to `<logging_dir>/<run_name>`."""

    def __init__(self, *, output_dir: Path, logging_dir: Path, run_name: str) -> None:
        self._folder = logging_dir / run_name
        self._writer: EventFileWriter | None = None
        self._written: list[int] = []

    def publish(self, fresh: Sequence[Validation], recorded: Sequence[Validation]) -> None:
        """Append where the file has all that came before, write it anew where it has not.

        A writer that failed once, as on a full disk, fails for ever: the next call makes another.
        """
        try:
            self._publish(recorded)
        except Exception:
            with suppress(Exception):
                self.close()
            self._writer = None
            raise

    def _publish(self, recorded: Sequence[Validation]) -> None:
        ids = [each.id for each in recorded]
        if self._writer is None or ids[: len(self._written)] != self._written:
            self._start_anew()
        for each in recorded[len(self._written) :]:
            self._add(each)
        if self._writer is not None:
            self._writer.flush()
        self._written = ids

    def close(self) -> None:
        """Finish the event file."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def _start_anew(self) -> None:
        from tensorboard.compat.proto.event_pb2 import Event, SessionLog
        from tensorboard.summary.writer.event_file_writer import EventFileWriter

        self.close()
        old = list(self._folder.glob(f"events.out.tfevents.*{SUFFIX}"))
        self._writer = EventFileWriter(str(self._folder), filename_suffix=SUFFIX)
        # A server that has shown the old file forgets it: this session starts at step 0.
        start = Event(step=0, session_log=SessionLog(status=SessionLog.START))
        self._writer.add_event(start)
        self._writer.flush()
        for path in old:  # emptied, not removed: TensorBoard's Python reader stops at a lost file
            if path.stat().st_size:
                path.open("wb").close()
            else:
                path.unlink()
        self._written = []

    def _add(self, validation: Validation) -> None:
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary

        assert self._writer is not None
        summary = Summary(
            value=[
                Summary.Value(tag=tag, simple_value=value)
                for tag, value in scalars(validation).items()
            ]
        )
        self._writer.add_event(
            Event(
                wall_time=validation.finished_at, step=validation.checkpoint.step, summary=summary
            )
        )


def scalars(validation: Validation) -> dict[str, float]:
    """Return the points of one result, tag to value."""
    result = validation.result
    assert result is not None, "only results are published"
    total = result.seconds["total"]
    return {
        **{f"eval/{name}": value for name, value in result.metrics.items()},
        "asyncval/seconds": total,
        "asyncval/texts_per_second": result.num_texts / total if total else 0.0,
        "asyncval/queue_length": validation.queue_length,
        "asyncval/lag_steps": validation.lag_steps,
        **validation.derived,
    }
