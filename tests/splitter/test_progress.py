"""What is said of how far a split is, and how often."""

import gzip
import io
import logging

import pytest
from rich.console import Console

from asyncval.core.sampling import Reservoir, Wanted
from asyncval.core.types import TextForm
from asyncval.subsets.corpus_pass import PASSAGES_PER_NEWS, Reading, collect
from asyncval.subsets.screen import SplitScreen, describe_reading, summary
from tests.clocks import FakeClock


def reading(done, total, num_read=1000):
    return Reading(num_read=num_read, num_kept=7, done_bytes=done, total_bytes=total)


def test_a_line_has_the_rate_and_the_time_that_is_left():
    assert describe_reading(reading(25, 100), seconds=10.0) == (
        "1,000 passages read, 7 kept, 100 passages/s, 0:00:30 left"
    )


@pytest.mark.parametrize("total", [0, 24])
def test_where_the_size_is_not_known_nothing_is_said_of_the_time(total):
    assert describe_reading(reading(25, total), seconds=10.0).endswith("100 passages/s")


def test_before_any_time_has_gone_there_is_no_rate():
    assert describe_reading(reading(0, 100), seconds=0.0) == "1,000 passages read, 7 kept"


def test_off_a_terminal_there_is_a_log_line_now_and_then(caplog):
    clock = FakeClock()
    with (
        caplog.at_level(logging.INFO),
        SplitScreen(Console(file=io.StringIO()), clock=clock) as screen,
    ):
        for _ in range(50):
            clock.time += 0.5
            screen.show(reading(25, 100))
    assert len(caplog.messages) == 2
    assert "0:00:30 left" in caplog.messages[0]


def test_on_a_terminal_there_is_one_line_that_changes(caplog):
    clock, output = FakeClock(), io.StringIO()
    with SplitScreen(Console(file=output, force_terminal=True, width=100), clock=clock) as screen:
        clock.time += 10.0
        screen.show(reading(25, 100))
    assert "100 passages/s" in output.getvalue()
    assert not caplog.messages


@pytest.mark.parametrize("is_packed", [False, True])
def test_the_bytes_of_a_pass_end_at_their_total(files, is_packed):
    lines = b"".join(b"%d\tsome text\n" % number for number in range(3 * PASSAGES_PER_NEWS))
    corpus = files.folder / ("corpus.tsv.gz" if is_packed else "corpus.tsv")
    corpus.write_bytes(gzip.compress(lines) if is_packed else lines)
    news: list[Reading] = []
    wanted = Wanted()
    wanted.add(["5", "6"], source="test")
    collect(
        [corpus],
        form=TextForm(),
        wanted=wanted,
        reservoir=Reservoir(0, seed=0),
        path=files.folder / "kept",
        listener=news.append,
    )
    assert [each.num_read for each in news] == [PASSAGES_PER_NEWS * n for n in (1, 2, 3, 3)]
    assert {each.total_bytes for each in news} == {len(lines)}
    assert (news[-1].done_bytes, news[-1].num_kept) == (len(lines), 2)


def test_a_summary_says_how_many_came_from_where(files):
    lines = summary(files.split(num_random=5))
    assert lines[0] == "Kept 13 of 50 passages (26.00%) in 1 file."
    assert lines[1] == "Depth 3."
    assert "  relevant: 2 of 2 found" in lines
    assert "  random: 5 of 5 found" in lines
