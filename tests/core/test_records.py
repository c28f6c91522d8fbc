from dataclasses import replace
from pathlib import Path

from asyncval.core.records import as_record, best_of, current, plan_digest, with_result
from asyncval.core.types import Checkpoint, Result, State, Validation


def validation(number, step, *, name=None, value=None, state=None, **more):
    path = Path("/out") / (name or f"checkpoint-{step}")
    result = None
    if value is not None:
        result = Result(metrics={"RR@10": value}, seconds={"total": 2.00049, "load": 0.5})
    return Validation(
        id=number,
        checkpoint=Checkpoint(path=path, step=step, layout="huggingface", fingerprint=f"f{number}"),
        state=state or (State.QUEUED if result is None else State.DONE),
        result=result,
        **more,
    )


def test_a_record_has_what_was_measured_as_plain_values():
    done = validation(1, 500, value=0.25, finished_at=12.5)
    assert as_record(done) == {
        "step": 500,
        "checkpoint": "checkpoint-500",
        "status": "done",
        "metrics": {"RR@10": 0.25},
        "seconds": 2.0,
        "reason": "",
        "warnings": [],
        "path": "/out/checkpoint-500",
        "fingerprint": "f1",
        "finished_at": 12.5,
        "phases": {"total": 2.0, "load": 0.5},
        "speed": {},
    }


def test_a_record_of_a_failure_has_the_reason_and_nothing_measured():
    record = as_record(validation(1, 500, state=State.FAILED, reason="It is broken."))
    assert record["status"] == "failed"
    assert record["reason"] == "It is broken."
    assert (record["metrics"], record["seconds"], record["phases"]) == ({}, None, {})


def test_current_rows_are_the_newest_of_every_folder_ascending_by_step():
    rows = [validation(4, 2), validation(1, 10), validation(3, 10), validation(2, 1)]
    assert [each.id for each in current(rows)] == [2, 4, 3]


def test_rows_without_a_step_come_last():
    rows = [validation(1, None, name="final"), validation(2, 0), validation(3, 5)]
    assert [each.id for each in current(rows)] == [2, 3, 1]


def test_an_older_result_stands_while_the_newer_content_waits():
    rows = [validation(1, 5, value=0.5), validation(2, 5)]
    assert [each.id for each in with_result(rows)] == [1]
    assert [each.id for each in current(rows)] == [2]


def test_the_best_has_the_highest_value_and_the_earliest_step_among_equals():
    rows = [validation(1, 30, value=0.5), validation(2, 20, value=0.5), validation(3, 10, value=0)]
    assert best_of(rows, "RR@10") == rows[1]


def test_there_is_no_best_without_a_result_or_for_another_measure():
    assert best_of([validation(1, 5)], "RR@10") is None
    assert best_of([validation(1, 5, value=0.5)], "AP") is None


def test_a_result_of_content_that_was_overwritten_is_not_the_best():
    old, new = validation(1, 5, value=0.9), validation(2, 5, value=0.1)
    assert best_of([old, new, validation(3, 6, value=0.2)], "RR@10") == validation(3, 6, value=0.2)
    assert best_of([old, replace(new, state=State.FAILED, result=None)], "RR@10") == old


def test_the_plans_digest_changes_with_its_values_and_not_with_their_order():
    digest = plan_digest({"depth": 100, "measures": ["RR@10"]})
    assert digest == plan_digest({"measures": ["RR@10"], "depth": 100})
    assert digest != plan_digest({"depth": 101, "measures": ["RR@10"]})
    assert digest != plan_digest({"depth": 100, "measures": ["RR"]})


def test_a_superseded_row_is_not_what_is_current_where_its_folder_has_another():
    """Content that came back has an older row than what stood there in between."""
    back, between = validation(1, 5, value=0.5), validation(2, 5, state=State.SUPERSEDED)
    assert current([back, between]) == [back]
    assert current([between]) == [between]
