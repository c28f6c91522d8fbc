import json
import threading

import pytest

from asyncval.reporters.best import BestReporter
from tests.reporters.results import make_result


@pytest.fixture
def reporter(tmp_path):
    return BestReporter(output_dir=tmp_path, logging_dir=tmp_path, run_name="run")


def test_the_best_by_the_first_measure_is_shown_and_the_earliest_of_equals(reporter, tmp_path):
    results = [
        make_result(number, step, **{"RR@10": value, "nDCG@10": 1 - value})
        for number, step, value in ((1, 10, 0.2), (2, 20, 0.5), (3, 30, 0.5), (4, 40, 0.1))
    ]
    reporter.publish(results, results)
    best = json.loads((tmp_path / "best.json").read_text())
    assert (best["measure"], best["value"], best["step"]) == ("RR@10", 0.5, 20)
    assert best["metrics"] == {"RR@10": 0.5, "nDCG@10": 0.5}


def test_nothing_is_shown_where_there_is_no_result(reporter, tmp_path):
    (tmp_path / "best.json").write_text("of an older plan")
    reporter.publish([], [])
    assert not (tmp_path / "best.json").exists()


def test_a_reader_always_sees_whole_json(reporter, tmp_path):
    results = [make_result(number, number) for number in range(1, 60)]
    reporter.publish(results[:1], results[:1])
    seen, stop = [], threading.Event()

    def read():
        while not stop.is_set():
            seen.append(json.loads((tmp_path / "best.json").read_text())["step"])

    reading = threading.Thread(target=read)
    reading.start()
    for number in range(2, 60):
        reporter.publish(results[number - 1 : number], results[:number])
    stop.set()
    reading.join()
    assert seen == sorted(seen)
    assert json.loads((tmp_path / "best.json").read_text())["step"] == 59
