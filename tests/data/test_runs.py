import gzip

import pytest

from asyncval.core.errors import InvalidData
from asyncval.core.types import Retrieved
from asyncval.data.runs import read_run, write_run


def read(path, content, **options):
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return list(read_run(path, **options))


TREC = [
    Retrieved(query_id="1", passage_id="d2", rank=None, score=0.5),
    Retrieved(query_id="1", passage_id="d1", rank=None, score=-1e-3),
]
MSMARCO = [
    Retrieved(query_id="1", passage_id="d2", rank=1, score=None),
    Retrieved(query_id="1", passage_id="d1", rank=12, score=None),
]


@pytest.mark.parametrize(
    "content",
    [
        "1 Q0 d2 1 0.5 tag\n1 Q0 d1 2 -1e-3 tag\n",
        "1\tQ0\td2\t1\t0.5\ttag\n\n1\tQ0\td1\t2\t-0.001\ta tag\n",
        pytest.param(gzip.compress(b"1 Q0 d2 1 0.5 tag\r\n1 Q0 d1 2 -1e-3 tag"), id="gzipped"),
    ],
)
def test_six_columns_are_a_trec_run_with_scores(tmp_path, content):
    assert read(tmp_path / "run", content) == TREC


@pytest.mark.parametrize(
    "content",
    [
        "1\td2\t1\n1\td1\t12\n",
        "1 d2 1\n1 d1 12",
        pytest.param(gzip.compress(b"1\td2\t1\n1\td1\t12"), id="gzipped"),
    ],
)
def test_three_columns_are_an_ms_marco_run_with_ranks(tmp_path, content):
    assert read(tmp_path / "run", content) == MSMARCO


def test_a_form_that_is_said_is_held_to(tmp_path):
    with pytest.raises(InvalidData, match="line 1: 3 columns"):
        read(tmp_path / "run", "1\td2\t1\n", run_type="trec")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("1 Q0 d 1 0.5 tag\n1 Q0 d 1 high tag\n", "line 2: the score 'high'"),
        ("1 Q0 d 1 0.5 tag\n1 Q0 d 1 nan tag\n", "line 2: the score 'nan'"),
        ("1\td\t1\n1\te\t0\n", "line 2: the rank '0'"),
        ("1\td\t1\n1\te\t-1\n", "line 2: the rank '-1'"),
        ("1\td\t1\n1\te\t0.73\n", "line 2: the rank '0.73' .*six columns"),
        ("1\td\t1\n1 Q0 d 1 0.5 tag\n", "line 2: 6 columns"),
        ("1 d 1 0.5\n", "line 1: 4 columns"),
    ],
)
def test_a_line_that_cannot_be_read_is_named_with_its_file_and_number(tmp_path, content, message):
    with pytest.raises(InvalidData, match=message) as caught:
        read(tmp_path / "run", content)
    assert str(tmp_path / "run") in str(caught.value)


def test_a_missing_run_is_refused_with_the_option(tmp_path):
    with pytest.raises(InvalidData, match="--run_file: there is no file"):
        list(read_run(tmp_path / "run"))


@pytest.mark.parametrize(
    ("run_type", "text"),
    [
        ("trec", "1 Q0 d2 1 0.5 me\n1 Q0 d1 2 0.25 me\n"),
        ("msmarco", "1\td2\t1\n1\td1\t2\n"),
    ],
)
def test_a_run_is_written_in_either_form_and_nothing_is_left_beside_it(tmp_path, run_type, text):
    lines = [("1", "d2", 1, "0.5"), ("1", "d1", 2, "0.25")]
    write_run(lines, tmp_path / "run.txt", run_type=run_type, tag="me")
    assert (tmp_path / "run.txt").read_text() == text
    assert [path.name for path in tmp_path.iterdir()] == ["run.txt"]


def test_a_run_that_breaks_off_does_not_replace_the_one_that_is_there(tmp_path):
    def lines():
        yield "1", "d", 1, "0.5"
        raise RuntimeError

    (tmp_path / "run.txt").write_text("old")
    with pytest.raises(RuntimeError):
        write_run(lines(), tmp_path / "run.txt", run_type="trec", tag="me")
    assert (tmp_path / "run.txt").read_text() == "old"
