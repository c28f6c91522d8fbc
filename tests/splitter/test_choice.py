"""Which passages `asyncval split` keeps, flag by flag."""

import pytest

from asyncval.core.errors import InvalidData, InvalidOption

RUN_AT_3 = {"p1", "p3", "p5", "p2", "p4", "p6"}
RELEVANT = {"p40", "p42"}


def test_relevant_passages_are_always_kept_and_others_that_are_judged_on_demand(files):
    files.split()
    assert set(files.kept()) == RUN_AT_3 | RELEVANT
    files.split("with judged", keep_judged=True)
    assert set(files.kept("with judged")) == RUN_AT_3 | RELEVANT | {"p41"}


def test_runs_are_pooled_each_down_to_its_own_depth(files):
    other = files.folder / "other.tsv"
    other.write_text("q1\tp30\t1\nq1\tp31\t2\nq1\tp32\t3\n")
    files.split(run_files=[files.run, other], depths=[1, 2])
    assert set(files.kept()) == {"p1", "p2", "p30", "p31"} | RELEVANT


def test_random_passages_come_on_top_in_corpus_order_and_the_same_for_the_same_seed(files):
    files.split(num_random=7, seed=5)
    chosen = files.kept()
    assert len(chosen) == len(RUN_AT_3 | RELEVANT) + 7
    assert chosen == [each for each in files.ids if each in set(chosen)]
    files.split("again", num_random=7, seed=5)
    assert files.kept("again") == chosen
    files.split("other seed", num_random=7, seed=6)
    assert files.kept("other seed") != chosen


def test_a_subset_may_be_random_alone_and_has_all_where_more_are_asked_for_than_there_are(files):
    done = files.split(run_files=[], depths=[], num_random=1000)
    assert files.kept() == files.ids
    assert done.sources["random"] == {"wanted": 1000, "found": 48}


@pytest.mark.parametrize("target_size", [4, 5, 9, 22, 30])
def test_a_target_size_is_met_with_the_largest_depth_that_fits(files, target_size):
    done = files.split(target_size=target_size, depths=[])
    (depth,) = done.arguments["depths"]
    assert len(files.kept()) <= target_size
    if depth < 10:
        files.split("deeper", depths=[depth + 1])
        assert len(files.kept("deeper")) > target_size


def test_a_target_size_counts_the_random_passages(files):
    files.split(target_size=13, depths=[], num_random=5)
    assert len(files.kept()) == 13


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"depths": [1, 2]}, "2 depths for 1 run[.]"),
        ({"depths": [0]}, "--depth 0: must be 1 or more"),
        ({"num_random": -1}, "--random -1"),
        ({"target_size": 0, "depths": []}, "--target_size 0"),
        ({"target_size": 10}, "without --depth"),
        ({"target_size": 3, "depths": []}, "depth 1 makes that 4"),
        ({"run_files": []}, "--run_file: give a run"),
        ({"num_splits": 0}, "--num_splits 0"),
    ],
)
def test_options_that_cannot_be_meant_are_refused_before_anything_is_written(
    files, options, message
):
    before = sorted(files.folder.iterdir())
    with pytest.raises(InvalidOption, match=message):
        files.split(**options)
    assert sorted(files.folder.iterdir()) == before


def test_a_run_that_is_given_twice_is_refused(files):
    with pytest.raises(InvalidOption, match="given twice"):
        files.split(run_files=[files.run, files.run])


def test_a_wanted_passage_that_the_corpus_lacks_is_counted_and_strictly_an_error(files):
    files.qrels.write_text("q1 0 p40 1\nq1 0 elsewhere 1\n")
    done = files.split()
    assert done.missing == 1
    assert done.missing_examples == ("elsewhere",)
    with pytest.raises(InvalidData, match=r"1 of 8 wanted passages are not in .*elsewhere"):
        files.split("strict", strict=True)
    assert not (files.folder / "strict").exists()


def test_windows_line_ends_keep_their_bytes(tmp_path, files):
    corpus = tmp_path / "corpus.tsv"
    corpus.write_bytes(b"p1\tone\r\np9\tnine\r\np40\tforty")
    files.split(candidates=[corpus])
    assert (tmp_path / "subset" / "split00.tsv").read_bytes() == b"p1\tone\r\np40\tforty\n"


def test_a_run_of_another_corpus_is_refused(files):
    files.run.write_text("q1 Q0 x1 1 2.0 t\nq1 Q0 x2 2 1.0 t\n")
    with pytest.raises(
        InvalidData, match=r"none of the 2 passages of .*run.trec' is in the corpus"
    ):
        files.split()
    assert not (files.folder / "subset").exists()


def test_a_run_of_other_queries_is_warned_of(files, caplog):
    files.split("same")
    assert not caplog.records
    files.run.write_text("other Q0 p1 1 2.0 t\n")
    files.split("other")
    assert "has no query that is judged, for example 'other'" in caplog.text
