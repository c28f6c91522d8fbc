import errno
import os

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.event_file_writer import EventFileWriter

from asyncval.reporters.tensorboard import TensorBoardReporter
from tests.reporters.results import make_result

STEPS = [10, 20, 30]
ONE, TWO, THREE = (make_result(number, step) for number, step in enumerate(STEPS, start=1))


@pytest.fixture
def open_reporter(tmp_path):
    """Return a function that opens a reporter on this test's folder; all are closed at the end."""
    opened = []

    def call(run_name="run"):
        opened.append(
            TensorBoardReporter(
                output_dir=tmp_path, logging_dir=tmp_path / "logs", run_name=run_name
            )
        )
        return opened[-1]

    yield call
    for each in opened:
        each.close()


def scalars(folder):
    """Return (step, value) of every point that TensorBoard shows, by tag, in its order."""
    events = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    events.Reload()
    return {
        tag: [(event.step, event.value) for event in events.Scalars(tag)]
        for tag in events.Tags()["scalars"]
    }


def points(*results):
    return [(each.checkpoint.step, each.result.metrics["RR@10"]) for each in results]


def test_measures_and_what_it_took_have_their_tags_at_the_trainers_step(open_reporter, tmp_path):
    open_reporter().publish([ONE], [ONE])
    assert scalars(tmp_path / "logs" / "run") == {
        "eval/RR@10": [(10, 10 / 64)],
        "asyncval/seconds": [(10, 2.0)],
        "asyncval/texts_per_second": [(10, 50.0)],
        "asyncval/queue_length": [(10, 3.0)],
        "asyncval/lag_steps": [(10, 7.0)],
    }


def test_query_sets_are_part_of_the_tag(open_reporter, tmp_path):
    result = make_result(1, 10, **{"dev/RR@10": 0.5, "test/RR@10": 0.25})
    open_reporter().publish([result], [result])
    found = scalars(tmp_path / "logs" / "run")
    assert found["eval/dev/RR@10"] == [(10, 0.5)]
    assert found["eval/test/RR@10"] == [(10, 0.25)]


def test_points_that_come_in_order_are_appended_to_one_file(open_reporter, tmp_path):
    reporter = open_reporter()
    names = set()
    for number, each in enumerate((ONE, TWO, THREE), start=1):
        reporter.publish([each], [ONE, TWO, THREE][:number])
        names |= {path.name for path in (tmp_path / "logs" / "run").iterdir()}
    assert len(names) == 1
    assert scalars(tmp_path / "logs" / "run")["eval/RR@10"] == points(ONE, TWO, THREE)


def test_a_reader_that_follows_along_sees_a_late_step_in_its_place(open_reporter, tmp_path):
    reporter = open_reporter()
    reporter.publish([ONE, THREE], [ONE, THREE])
    reader = EventAccumulator(str(tmp_path / "logs" / "run"), size_guidance={"scalars": 0})
    reader.Reload()
    reporter.publish([TWO], [ONE, TWO, THREE])
    reader.Reload()
    found = [(event.step, event.value) for event in reader.Scalars("eval/RR@10")]
    assert found == points(ONE, TWO, THREE)


def test_a_result_that_replaced_another_shows_alone(open_reporter, tmp_path):
    reporter = open_reporter()
    reporter.publish([ONE, TWO], [ONE, TWO])
    again = make_result(4, 20, **{"RR@10": 0.75})
    reporter.publish([again], [ONE, again])
    assert scalars(tmp_path / "logs" / "run")["eval/RR@10"] == points(ONE, again)


def write_foreign(folder):
    """Write an event file as a trainer does; return its path."""
    writer = EventFileWriter(str(folder))
    summary = Summary(value=[Summary.Value(tag="train/loss", simple_value=1.5)])
    writer.add_event(Event(step=15, summary=summary))
    writer.close()
    [path] = folder.glob("events.*")
    return path


@pytest.mark.parametrize("place", [".", "trainer", "run", "run/sub"])
def test_what_others_write_below_the_logging_folder_is_not_touched(open_reporter, tmp_path, place):
    foreign = write_foreign(tmp_path / "logs" / place)
    other = tmp_path / "logs" / place / "notes.txt"
    other.write_text("mine")
    before = foreign.read_bytes()
    for _ in range(2):
        reporter = open_reporter()
        reporter.publish([TWO], [TWO])
        reporter.publish([ONE], [ONE, TWO])
        reporter.close()
    assert foreign.is_file(), "an event file that is not ours was deleted"
    assert foreign.read_bytes() == before
    assert other.read_text() == "mine"


def test_the_time_of_a_point_is_that_of_its_result(open_reporter, tmp_path):
    open_reporter().publish([ONE], [ONE])
    events = EventAccumulator(str(tmp_path / "logs" / "run"))
    events.Reload()
    assert [event.wall_time for event in events.Scalars("eval/RR@10")] == [ONE.finished_at]


@pytest.mark.parametrize("failing", [1, 2, 3], ids=["opening", "the first", "the second"])
def test_after_a_write_that_failed_the_next_one_shows_all_points_once(
    open_reporter, tmp_path, monkeypatch, failing
):
    real, writers = EventFileWriter.flush, []

    def flush(writer):
        writers.append(writer)
        if len(writers) == failing:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(writer)

    monkeypatch.setattr(EventFileWriter, "flush", flush)
    reporter, failures = open_reporter(), 0
    for number, each in enumerate((ONE, TWO, THREE), start=1):
        try:
            reporter.publish([each], [ONE, TWO, THREE][:number])
        except OSError:
            failures += 1
    assert failures == 1
    assert scalars(tmp_path / "logs" / "run")["eval/RR@10"] == points(ONE, TWO, THREE)
