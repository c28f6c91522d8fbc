"""What every reporter of the table promises; a new one needs a line in READERS here."""

import json

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from asyncval.lookup import look_up
from asyncval.reporters import REPORTERS
from tests.reporters.results import make_result

RESULTS = [make_result(number, step) for number, step in ((1, 10), (2, 20), (3, 30), (4, 40))]
ONE, TWO, THREE, FOUR = RESULTS


def read_jsonl(folder):
    records = map(json.loads, (folder / "results.jsonl").read_text().splitlines())
    return [(record["step"], record["metrics"]["RR@10"]) for record in records]


def read_tensorboard(folder):
    events = EventAccumulator(str(folder / "logs" / "run"), size_guidance={"scalars": 0})
    events.Reload()
    tag = "eval/RR@10"
    if tag not in events.Tags()["scalars"]:
        return []
    return [(event.step, event.value) for event in events.Scalars(tag)]


READERS = {"jsonl": read_jsonl, "tensorboard": read_tensorboard}
SUMMARIES = {"best"}  # show one thing about all results, so they have a file of tests each


def test_every_reporter_is_covered():
    assert READERS.keys() | SUMMARIES == REPORTERS.keys()


@pytest.fixture(params=READERS)
def name(request):
    return request.param


@pytest.fixture
def open_reporter(tmp_path, name):
    """Return a function that starts the reporter on the same folders, as a restart does."""
    opened = []

    def call():
        kind = look_up(name, REPORTERS, option="--report_to")
        opened.append(kind(output_dir=tmp_path, logging_dir=tmp_path / "logs", run_name="run"))
        return opened[-1]

    yield call
    for each in opened:
        each.close()


@pytest.fixture
def shown(tmp_path, name):
    """Return a function that reads (step, value) back, in the order shown."""
    return lambda: READERS[name](tmp_path)


def points(*results):
    return [(each.checkpoint.step, each.result.metrics["RR@10"]) for each in results]


def test_results_are_shown_as_they_come(open_reporter, shown):
    reporter = open_reporter()
    reporter.publish([ONE], [ONE])
    assert shown() == points(ONE)
    reporter.publish([TWO, THREE], [ONE, TWO, THREE])
    assert shown() == points(ONE, TWO, THREE)


def test_the_start_may_have_nothing_to_show(open_reporter, shown):
    reporter = open_reporter()
    reporter.publish([], [])
    assert shown() == []
    reporter.publish([ONE], [ONE])
    assert shown() == points(ONE)


def test_a_late_step_ends_up_in_its_place(open_reporter, shown):
    reporter = open_reporter()
    reporter.publish([ONE], [ONE])
    reporter.publish([THREE], [ONE, THREE])
    reporter.publish([TWO], [ONE, TWO, THREE])
    assert shown() == points(ONE, TWO, THREE)
    reporter.publish([FOUR], RESULTS)
    assert shown() == points(*RESULTS)


def test_what_is_published_twice_is_shown_once(open_reporter, shown):
    reporter = open_reporter()
    reporter.publish([ONE, TWO], [ONE, TWO])
    reporter.publish([ONE, TWO], [ONE, TWO])
    reporter.publish([TWO, THREE], [ONE, TWO, THREE])
    assert shown() == points(ONE, TWO, THREE)


@pytest.mark.parametrize("closed", [True, False], ids=["after an end", "after a crash"])
def test_a_restart_shows_every_step_once(open_reporter, shown, closed):
    for number in range(1, 5):
        reporter = open_reporter()
        reporter.publish(RESULTS[number - 1 : number], RESULTS[:number])
        assert shown() == points(*RESULTS[:number])
        if closed:
            reporter.close()
    open_reporter().publish([], RESULTS)
    assert shown() == points(*RESULTS)


def test_what_was_shown_and_never_recorded_disappears(open_reporter, shown):
    open_reporter().publish([ONE, TWO], [ONE, TWO])
    open_reporter().publish([], [ONE])
    assert shown() == points(ONE)


def test_closing_without_or_twice_after_publishing_does_no_harm(open_reporter, shown):
    open_reporter().close()
    reporter = open_reporter()
    reporter.publish([ONE], [ONE])
    reporter.close()
    reporter.close()
    assert shown() == points(ONE)
