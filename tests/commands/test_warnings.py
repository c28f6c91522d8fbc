from pathlib import Path

from asyncval.commands.eval import first_warnings
from asyncval.core.types import Checkpoint, Result, State, Validation


def row(step, *warnings, is_done=True):
    return Validation(
        id=step,
        checkpoint=Checkpoint(path=Path(f"checkpoint-{step}"), step=step, layout=""),
        state=State.DONE if is_done else State.FAILED,
        result=Result(metrics={}, warnings=warnings) if is_done else None,
    )


def test_what_many_checkpoints_say_is_said_once_for_the_first_of_them():
    rows = [row(1, is_done=False), row(2, "cls is assumed"), row(3, "cls is assumed", "cut")]
    assert first_warnings(rows) == {"cls is assumed": "checkpoint-2", "cut": "checkpoint-3"}
