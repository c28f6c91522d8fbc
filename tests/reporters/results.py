"""Makers of results as a reporter gets them."""

from pathlib import Path

from asyncval.core.types import Checkpoint, Result, State, Validation


def make_result(number: int, step: int, **metrics: float) -> Validation:
    name = f"checkpoint-{step}"
    return Validation(
        id=number,
        checkpoint=Checkpoint(
            path=Path("/out") / name, step=step, layout="huggingface", fingerprint=f"f{number}"
        ),
        state=State.DONE,
        finished_at=1000.0 + number,
        result=Result(
            metrics=metrics or {"RR@10": step / 64},
            seconds={"load": 0.5, "total": 2.0},
            num_texts=100,
        ),
        queue_length=3,
        lag_steps=7,
    )
