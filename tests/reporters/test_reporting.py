"""A reporter that fails is left alone for a while, and misses nothing; the others go on."""

import logging
from pathlib import Path

import pytest

from asyncval.core.types import Checkpoint, Result
from asyncval.ledger.sqlite import Ledger
from asyncval.reporting import RETRY_SECONDS, Reporting
from tests.clocks import FakeClock

PLAN = "plan"


class Place:
    """Takes note of the steps that it gets, or fails."""

    def __init__(self):
        self.error = ""
        self.calls = 0
        self.shown: list[int] = []

    def publish(self, fresh, recorded):
        self.calls += 1
        if self.error:
            raise OSError(self.error)
        self.shown += [each.checkpoint.step for each in fresh]

    def close(self):
        """Nothing is held open."""


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
def ledger(tmp_path, clock):
    made = Ledger(tmp_path, clock=clock)
    yield made
    made.close()


@pytest.fixture
def places():
    return {"failing": Place(), "other": Place()}


@pytest.fixture
def reporting(ledger, places, clock):
    return Reporting(ledger, places, plan=PLAN, clock=clock)


@pytest.fixture
def validate(ledger):
    """Records a result of a step."""

    def record(step):
        path = Path(f"/out/checkpoint-{step}")
        found = Checkpoint(path=path, step=step, layout="huggingface", fingerprint=str(step))
        ledger.enqueue(found, plan=PLAN, folder_state="state", pin_state="pinned")
        result = Result(metrics={"RR@10": 0.5}, seconds={"total": 1.0})
        ledger.finish(ledger.claim(plan=PLAN).id, result)

    return record


def test_a_reporter_that_failed_is_left_alone_for_a_while_and_gets_all_that_it_missed(
    reporting, places, validate, clock
):
    failing = places["failing"]
    failing.error = "The disk is full."
    validate(1)
    reporting.publish()
    failing.error = ""
    validate(2)
    clock.time += RETRY_SECONDS - 0.1
    reporting.publish()
    reporting.publish(everything=True)
    assert (failing.calls, failing.shown) == (1, [])
    clock.time += 0.1
    reporting.publish()
    reporting.publish()
    assert (failing.calls, failing.shown) == (2, [1, 2])
    validate(3)
    reporting.publish()
    assert failing.shown == [1, 2, 3]


def test_others_are_not_held_up_by_a_reporter_that_fails(reporting, places, validate):
    places["failing"].error = "The disk is full."
    for step in (1, 2):
        validate(step)
        reporting.publish()
        assert places["other"].shown == list(range(1, step + 1))


def test_an_error_is_logged_once_until_there_is_another(reporting, places, validate, clock, caplog):
    """Another one, or the same one after it worked in between."""
    validate(1)
    errors = ("The disk is full.",) * 3 + ("It is gone.",) * 2 + ("", "It is gone.")
    logged = []
    for step, error in enumerate(errors, start=2):
        places["failing"].error = error
        validate(step)
        caplog.clear()
        with caplog.at_level(logging.INFO):
            reporting.publish()
        said = [(each.getMessage(), each.exc_info) for each in caplog.records]
        logged.append([str(info[1]) for text, info in said if "failing failed" in text and info])
        assert len(said) == len(logged[-1])
        clock.time += RETRY_SECONDS
    full, gone = ["The disk is full."], ["It is gone."]
    assert logged == [full, [], [], gone, [], [], gone]
    assert places["failing"].calls == len(errors)


def test_a_reporter_that_could_not_repair_what_it_keeps_is_tried_again_with_nothing_new(
    reporting, places, validate, clock
):
    validate(1)
    reporting.publish()
    failing = places["failing"]
    failing.error = "The disk is full."
    reporting.publish(everything=True)  # as at a start
    failing.error = ""
    clock.time += RETRY_SECONDS
    calls = failing.calls
    reporting.publish()
    reporting.publish()
    assert failing.calls == calls + 1
