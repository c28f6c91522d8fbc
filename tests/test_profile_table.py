from pathlib import Path

from rich.console import Console

from asyncval.core.types import Checkpoint, Result, State, Validation
from asyncval.ui import profile_table


def printed(rows):
    console = Console(width=200)
    with console.capture() as capture:
        console.print(profile_table(rows))
    return [" ".join(line.split()) for line in capture.get().splitlines()]


def row(name, result):
    checkpoint = Checkpoint(path=Path(name), step=None, layout="")
    return Validation(id=1, checkpoint=checkpoint, state=State.DONE, result=result)


def test_each_phase_has_its_seconds_and_share_and_encoding_its_speed():
    speed = {"tokens_per_second": 12345.6, "padding": 0.0123, "of_floor": 0.789}
    one = Result(metrics={}, seconds={"load": 0.5, "search": 1.5, "total": 2.0}, speed=speed)
    other = Result(metrics={}, seconds={"load": 1.0, "search": 3.0, "total": 4.0})
    assert printed([row("checkpoint-1", one), row("a", None), row("checkpoint-2", other)]) == [
        "phase checkpoint-1 checkpoint-2",
        "load 0.500 s 25.0% 1.000 s 25.0%",
        "search 1.500 s 75.0% 3.000 s 75.0%",
        "total 2.000 s 100.0% 4.000 s 100.0%",
        "tokens/s 12,346 0",
        "padding 1.23% 0.00%",
        "of the machine's best rate 78.9% 0.0%",
    ]


def test_without_a_result_there_is_no_phase():
    assert len(printed([row("a", None)])) == 4
