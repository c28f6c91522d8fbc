import json

import pytest

from asyncval.core.records import as_record
from asyncval.reporters.jsonl import JsonLinesReporter
from tests.reporters.results import make_result

ONE, TWO, THREE = make_result(1, 10), make_result(2, 20), make_result(3, 30)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "results.jsonl"


@pytest.fixture
def reporter(tmp_path):
    return JsonLinesReporter(output_dir=tmp_path, logging_dir=tmp_path / "logs", run_name="run")


def lines(*results):
    return "".join(f"{json.dumps(as_record(each))}\n" for each in results)


def test_each_line_is_a_record(reporter, path):
    reporter.publish([ONE, TWO], [ONE, TWO])
    assert [json.loads(line) for line in path.read_text().splitlines()] == [
        as_record(ONE),
        as_record(TWO),
    ]


def test_without_results_the_file_is_there_and_empty(reporter, path):
    reporter.publish([], [])
    assert path.read_text() == ""


def test_what_is_new_is_appended_to_the_file_that_others_follow(reporter, path):
    reporter.publish([ONE], [ONE])
    followed = path.open()
    with followed:
        assert followed.read() == lines(ONE)
        reporter.publish([TWO], [ONE, TWO])
        assert followed.read() == lines(TWO)


@pytest.mark.parametrize("torn", [1, 30, -1])
def test_a_torn_tail_is_mended(reporter, path, torn):
    path.write_text(lines(ONE) + lines(TWO)[:torn])
    reporter.publish([], [ONE, TWO])
    assert path.read_text() == lines(ONE, TWO)
    reporter.publish([THREE], [ONE, TWO, THREE])
    assert path.read_text() == lines(ONE, TWO, THREE)


@pytest.mark.parametrize(
    "content", ["", "garbage\n", "\0" * 100, lines(TWO), lines(ONE, ONE), lines(ONE, TWO, THREE)]
)
def test_whatever_is_in_the_file_it_becomes_equal_to_the_ledger(reporter, path, content):
    path.write_text(content)
    reporter.publish([], [ONE, TWO])
    assert path.read_text() == lines(ONE, TWO)
    assert [each.name for each in path.parent.iterdir()] == [path.name]


def test_a_file_that_is_right_is_not_touched(reporter, path):
    reporter.publish([ONE], [ONE])
    before = path.stat()
    reporter.publish([], [ONE])
    assert path.stat().st_mtime_ns == before.st_mtime_ns
    assert path.stat().st_ino == before.st_ino
