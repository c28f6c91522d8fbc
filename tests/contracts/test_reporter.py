"""What every reporter promises; a new one needs a line in CASES here."""

import json
from itertools import pairwise

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from asyncval.lookup import look_up
from asyncval.reporters import REPORTERS
from asyncval.reporters.stop import StopReporter
from tests.reporters.results import make_result

VALUES = {10: 0.5, 20: 0.25, 30: 0.75, 40: 0.125}
RESULTS = [
    make_result(number, step, **{"RR@10": value})
    for number, (step, value) in enumerate(VALUES.items(), start=1)
]
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


def read_best(folder):
    file = folder / "best.json"
    if not file.exists():
        return []
    best = json.loads(file.read_text())
    return [(best["step"], best["value"])]


def read_stop(folder):
    file = folder / "stop"
    if not file.exists():
        return []
    step = json.loads(file.read_text())["step"]
    return [(step, VALUES[step])]


def value_of(validation):
    return validation.result.metrics["RR@10"]


def every_one(results):
    return results


def the_best(results):
    return sorted(results, key=value_of)[-1:]


def the_first_fall(results):
    return [later for one, later in pairwise(results) if value_of(later) < value_of(one)][:1]


CASES = {
    "best": (read_best, the_best),
    "jsonl": (read_jsonl, every_one),
    "tensorboard": (read_tensorboard, every_one),
    "stop": (read_stop, the_first_fall),
}
"""How to read back what a reporter shows, and what of the recorded results it is to show."""


def test_every_reporter_is_covered():
    assert CASES.keys() == REPORTERS.keys() | {"stop"}


@pytest.fixture(params=CASES)
def name(request):
    return request.param


@pytest.fixture
def open_reporter(tmp_path, name):
    """Return a function that starts the reporter on the same folders, as a restart does."""
    opened = []

    def call():
        if name == "stop":  # of the watcher's own, not in the table
            opened.append(StopReporter(output_dir=tmp_path, patience=1))
        else:
            kind = look_up(name, REPORTERS, option="--report_to")
            opened.append(kind(output_dir=tmp_path, logging_dir=tmp_path / "logs", run_name="run"))
        return opened[-1]

    yield call
    for each in opened:
        each.close()


@pytest.fixture
def shown(tmp_path, name):
    """Return a function that reads (step, value) back, in the order shown."""
    return lambda: CASES[name][0](tmp_path)


@pytest.fixture
def points(name):
    """Return a function from what is recorded to the (step, value) that are to be shown."""
    return lambda *results: [
        (each.checkpoint.step, value_of(each)) for each in CASES[name][1](results)
    ]


def test_results_are_shown_as_they_come(open_reporter, shown, points):
    reporter = open_reporter()
    reporter.publish([ONE], [ONE])
    assert shown() == points(ONE)
    reporter.publish([TWO, THREE], [ONE, TWO, THREE])
    assert shown() == points(ONE, TWO, THREE)


def test_the_start_may_have_nothing_to_show(open_reporter, shown, points):
    reporter = open_reporter()
    reporter.publish([], [])
    assert shown() == []
    reporter.publish([ONE], [ONE])
    assert shown() == points(ONE)


def test_a_late_step_ends_up_in_its_place(open_reporter, shown, points):
    reporter = open_reporter()
    reporter.publish([ONE], [ONE])
    reporter.publish([THREE], [ONE, THREE])
    reporter.publish([TWO], [ONE, TWO, THREE])
    assert shown() == points(ONE, TWO, THREE)
    reporter.publish([FOUR], RESULTS)
    assert shown() == points(*RESULTS)


def test_what_is_published_twice_is_shown_once(open_reporter, shown, points):
    reporter = open_reporter()
    reporter.publish([ONE, TWO], [ONE, TWO])
    reporter.publish([ONE, TWO], [ONE, TWO])
    reporter.publish([TWO, THREE], [ONE, TWO, THREE])
    assert shown() == points(ONE, TWO, THREE)


@pytest.mark.parametrize("closed", [True, False], ids=["after an end", "after a crash"])
def test_a_restart_shows_every_step_once(open_reporter, shown, points, closed):
    for number in range(1, 5):
        reporter = open_reporter()
        reporter.publish(RESULTS[number - 1 : number], RESULTS[:number])
        assert shown() == points(*RESULTS[:number])
        if closed:
            reporter.close()
    open_reporter().publish([], RESULTS)
    assert shown() == points(*RESULTS)


def test_what_was_shown_and_never_recorded_disappears(open_reporter, shown, points):
    open_reporter().publish([ONE, TWO], [ONE, TWO])
    open_reporter().publish([], [ONE])
    assert shown() == points(ONE)


def test_closing_without_or_twice_after_publishing_does_no_harm(open_reporter, shown, points):
    open_reporter().close()
    reporter = open_reporter()
    reporter.publish([ONE], [ONE])
    reporter.close()
    reporter.close()
    assert shown() == points(ONE)
