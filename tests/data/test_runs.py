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
        ("1\td\t0.5\n1\te\thigh\n", "line 2: the score 'high'"),
        ("1 d 0 0.5\n", "line 1: the rank '0'"),
        ("1\td\t1\n1 Q0 d 1 0.5 tag\n", "line 2: 6 columns"),
        ("1 d 1 0.5 x\n", "line 1: 5 columns"),
        ("1 d\n", "line 1: 2 columns"),
    ],
)
def test_a_line_that_cannot_be_read_is_named_with_its_file_and_number(tmp_path, content, message):
    with pytest.raises(InvalidData, match=message) as caught:
        read(tmp_path / "run", content)
    assert str(tmp_path / "run") in str(caught.value)


@pytest.mark.parametrize("rank", ["0", "-1", "0.73"])
def test_a_rank_that_is_none_is_refused_where_ranks_are_announced(tmp_path, rank):
    with pytest.raises(InvalidData, match=f"line 2: the rank '{rank}' .*--run_type score"):
        read(tmp_path / "run", f"1\td\t1\n1\te\t{rank}\n", run_type="msmarco")


SCORED = [
    Retrieved(query_id="1", passage_id="d2", rank=None, score=12.0),
    Retrieved(query_id="1", passage_id="d1", rank=None, score=3.0),
]


@pytest.mark.parametrize(
    "content",
    [
        "1\td2\t12.0\n1\td1\t3.0\n",
        "1\td2\t[12.0]\n1\td1\t[3]\n",
        "1 d2 12\n1 d1 3\n",  # ranks rise
    ],
)
def test_three_columns_with_what_cannot_be_ranks_are_scores(tmp_path, content):
    assert read(tmp_path / "run", content) == SCORED


def test_whole_numbers_that_are_one_to_n_in_any_order_are_ranks(tmp_path):
    lines = read(tmp_path / "run", "1 a 2\n1 b 1\n2 a 1\n1 c 3\n")
    assert [(line.passage_id, line.rank) for line in lines] == [
        ("a", 2),
        ("b", 1),
        ("a", 1),
        ("c", 3),
    ]


@pytest.mark.parametrize(
    "content",
    [
        "1 a 3\n1 b 2\n1 c 1\n",  # ranks from the last to the first, or scores
        "1 a 7\n2 b 5\n",
        "1 a 4\n1 b 9\n1 c 2\n",
        "1 a 1\n1 b 2\n2 a 9\n2 b 4\n",
    ],
)
def test_a_third_column_that_could_be_ranks_or_scores_is_asked_about(tmp_path, content):
    with pytest.raises(
        InvalidData, match=r"could be ranks.*--run_type msmarco or --run_type score"
    ):
        read(tmp_path / "run", content)
    assert [line.rank for line in read(tmp_path / "run", content, run_type="score")] == [
        None
    ] * content.count("\n")
    assert read(tmp_path / "run", content, run_type="msmarco")[0].score is None


def test_a_long_run_is_told_by_its_first_queries_and_held_to_them(tmp_path):
    lines = [f"{query}\td{rank}\t{rank}" for query in range(3) for rank in range(1, 5001)]
    run = read(tmp_path / "run", "\n".join(lines))
    assert (len(run), run[-1].rank) == (15000, 5000)
    with pytest.raises(InvalidData, match=r"line 15001: the rank '0\.5'"):
        read(tmp_path / "run", "\n".join([*lines, "9\td\t0.5"]))


def test_four_columns_are_a_run_of_retromae_with_ranks_and_scores(tmp_path):
    lines = read(tmp_path / "run", "1\td2\t1\t0.5\n1\td1\t2\t0.25\n")
    assert [(line.passage_id, line.rank, line.score) for line in lines] == [
        ("d2", 1, 0.5),
        ("d1", 2, 0.25),
    ]


@pytest.mark.parametrize(
    "content",
    [
        "1 0 7187155 1\n2 0 7187157 1\n",
        "1\tQ0\t1\t3\n1\tQ0\t2\t0\n",
        "1 0 doc7 -1\n",
        "query-id\tcorpus-id\tscore\n1\td7\t1\n",
    ],
)
def test_judgements_in_the_place_of_a_run_are_refused(tmp_path, content):
    with pytest.raises(InvalidData, match=r"run' has judgements, not a run: .*--qrel_file"):
        read(tmp_path / "run", content)


@pytest.mark.parametrize("content", ["1 0 1 12\n2 0 1 9\n", "1 0 1 0.5\n1 7 2 0.25\n"])
def test_a_passage_that_is_called_zero_makes_no_judgements_of_a_run(tmp_path, content):
    assert read(tmp_path / "run", content)[0].rank == 1


@pytest.mark.parametrize(
    "form", ["1\t{}\t{}", "1 Q0 {} 9 {} dense", "1\tQ0\t{}\t9\t{}\tSystem", "1\t{}\t9\t{}"]
)
def test_lines_that_only_fill_up_a_ranking_are_dropped(tmp_path, form):
    lines = [("d2", "0.5"), ("d9", "-3.4028234663852886e+38"), ("d9", "-3.4028235e+38")]
    run = read(tmp_path / "run", "\n".join(form.format(*each) for each in lines))
    assert [line.passage_id for line in run] == ["d2"]


def test_ids_in_a_run_keep_their_zeros_and_their_spaces_between_tabs(tmp_path):
    [line] = read(tmp_path / "run", "007\tmy file.txt\t1\n")
    assert (line.query_id, line.passage_id) == ("007", "my file.txt")


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


@pytest.mark.parametrize(
    "ids", [("my query", "d"), ("1", "my\tpassage"), ("1", ""), ("1", "a\x85b")]
)
def test_an_id_that_a_trec_run_cannot_carry_is_refused(tmp_path, ids):
    lines = [("1", "d", 1, "0.5"), (*ids, 1, "0.5")]
    with pytest.raises(InvalidData, match=r"run\.txt' is not written: .*white space"):
        write_run(lines, tmp_path / "run.txt", run_type="trec", tag="me")
    assert not list(tmp_path.iterdir())


def test_an_ms_marco_run_carries_ids_with_spaces(tmp_path):
    write_run([("my query", "d 1", 1, "0.5")], tmp_path / "run", run_type="msmarco", tag="me")
    [line] = read_run(tmp_path / "run")
    assert (line.query_id, line.passage_id) == ("my query", "d 1")


def test_a_run_that_finds_no_space_leaves_nothing_behind(tmp_path):
    def lines():
        yield "q1", "p1", 1, "0.5"
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        write_run(lines(), tmp_path / "a.trec", run_type="trec", tag="test")
    assert list(tmp_path.iterdir()) == []
