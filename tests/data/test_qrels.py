import gzip

import pytest

from asyncval.core.errors import InvalidData
from asyncval.data.qrels import read_qrels


def read(path, content):
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_qrels(path)


@pytest.mark.parametrize(
    "content",
    [
        "1 0 d1 2\n1 0 d2 0\n2 Q0 d1 -1\n",
        "1\t0\td1\t2\n1\t0\td2\t0\n2\tQ0\td1\t-1\n",
        "1   0 d1  2\r\n\r\n1 0 d2 0\r\n2 0 d1 -1",
        "1\td1\t2\n1\td2\t0\n2\td1\t-1\n",
        "1 d1 2\n1 d2 0\n2 d1 -1\n",
        "query-id\tcorpus-id\tscore\n1\td1\t2\n1\td2\t0\n2\td1\t-1\n",
        "qid\titer\tdocid\trel\n1\t0\td1\t2\n1\t0\td2\t0\n2\t0\td1\t-1\n",
        "query_id corpus_id score\n1 d1 2\n1 d2 0\n2 d1 -1\n",
        "\ufeffquery-id\tcorpus-id\tscore\n1\td1\t2\n1\td2\t0\n2\td1\t-1\n",
        pytest.param(gzip.compress(b"1 0 d1 2\n1 0 d2 0\n2 0 d1 -1\n"), id="gzipped"),
    ],
)
def test_four_columns_and_three_with_or_without_a_header_say_the_same(tmp_path, content):
    assert read(tmp_path / "qrels.tsv", content) == {"1": {"d1": 2, "d2": 0}, "2": {"d1": -1}}


@pytest.mark.parametrize("header", ["", "query-id\tcorpus-id\n", "query\tdocument\n"])
def test_pairs_are_relevant_and_may_have_several_passages(tmp_path, header):
    pairs = {"1": {"d1": 1}, "2": {"d2": 1, "d3": 1}}
    assert read(tmp_path / "q", f"{header}1\td1\n2\td2, d3\n\n") == pairs


@pytest.mark.parametrize(
    ("line", "side"),
    [
        ("2\td2,", "passage"),
        ("2\td2,,d3", "passage"),
        ("2\t", "passage"),
        ("\td", "query"),
    ],
)
def test_an_empty_id_in_pairs_is_refused_with_file_and_line(tmp_path, line, side):
    with pytest.raises(InvalidData, match=f"q', line 2: the id of the {side} is empty"):
        read(tmp_path / "q", f"1\td1\n{line}\n")


@pytest.mark.parametrize(("line", "side"), [("2\t0\t\t1", "passage"), ("\t0\td\t1", "query")])
def test_an_empty_id_beside_a_grade_is_refused_with_file_and_line(tmp_path, line, side):
    with pytest.raises(InvalidData, match=f"q', line 2: the id of the {side} is empty"):
        read(tmp_path / "q", f"1\t0\td1\t1\n{line}\n")


def test_ids_stay_strings_with_their_zeros(tmp_path):
    assert read(tmp_path / "q", "007 0 010 1\n") == {"007": {"010": 1}}


def test_a_file_with_tabs_may_have_spaces_in_its_ids(tmp_path):
    assert read(tmp_path / "q", "my query\t0\tmy passage\t1\n") == {"my query": {"my passage": 1}}


def test_a_grade_that_is_written_as_a_whole_float_is_that_number(tmp_path):
    assert read(tmp_path / "q", "1 0 d 2.0\n") == {"1": {"d": 2}}


@pytest.mark.parametrize("grade", ["1.5", "x", "nan", "inf", "1,0"])
def test_a_grade_that_is_no_whole_number_is_refused_with_file_and_line(tmp_path, grade):
    with pytest.raises(InvalidData) as caught:
        read(tmp_path / "q", f"1 0 d 1\n2 0 d {grade}\n")
    assert str(caught.value).startswith(f"{str(tmp_path / 'q')!r}, line 2: the grade {grade!r}")


def test_a_header_counts_only_in_the_first_line(tmp_path):
    with pytest.raises(InvalidData, match="line 2: the grade 'score'"):
        read(tmp_path / "q", "1\td\t1\nquery-id\tcorpus-id\tscore\n")


def test_two_grades_of_one_pair_are_refused_with_both(tmp_path):
    with pytest.raises(InvalidData, match="line 3: query '1' and passage 'd' have the grade 2"):
        read(tmp_path / "q", "1 0 d 1\n1 0 e 1\n1 0 d 2\n")


def test_one_pair_twice_with_the_same_grade_is_no_conflict(tmp_path):
    assert read(tmp_path / "q", "1 0 d 1\n1 0 d 1\n") == {"1": {"d": 1}}


@pytest.mark.parametrize("line", ["1 0 d", "1", "1 0 d 1 x"])
def test_a_line_of_another_number_of_columns_is_refused_with_file_and_line(tmp_path, line):
    with pytest.raises(InvalidData, match=r"line 2: \d columns where the first line has 4"):
        read(tmp_path / "q", f"1 0 d 1\n{line}\n")


def test_a_file_that_is_no_judgements_is_refused(tmp_path):
    with pytest.raises(InvalidData, match="line 1: 6 columns"):
        read(tmp_path / "q", "1 Q0 d 1 0.5 tag\n")


@pytest.mark.parametrize("content", ["", "\n\n", "query-id\tcorpus-id\tscore\n"])
def test_a_file_without_a_judgement_is_refused(tmp_path, content):
    with pytest.raises(InvalidData, match="has no judgement"):
        read(tmp_path / "q", content)


def test_a_missing_file_is_refused_with_the_option(tmp_path):
    with pytest.raises(InvalidData, match="--qrel_file: there is no file"):
        read_qrels(tmp_path / "q")
