import gzip
import json
import random

import numpy as np
import pytest

from asyncval.core.errors import InvalidData, InvalidOption, NothingToDo, OutputUnavailable
from asyncval.data.collection import read_passages
from asyncval.data.sources import passage_files
from asyncval.subsets.splitting import Choice, split

NUM_PASSAGES = 300


@pytest.fixture
def corpus(tmp_path):
    """Three files of lines whose keys and spaces are in no order that a program would choose."""
    draw = random.Random(3)
    numbers = draw.sample(range(10_000), NUM_PASSAGES)
    lines = []
    for number in numbers:
        fields = [("text", f"passage é {number}"), ("n", number), ("_id", str(number))]
        draw.shuffle(fields)
        separator = draw.choice([":", ": ", " :  "])
        lines.append(json.dumps(dict(fields), separators=(",", separator)) + "\n")
    folder = tmp_path / "corpus"
    folder.mkdir()
    for part in range(3):
        (folder / f"part{part}.jsonl").write_text("".join(lines[part * 100 : part * 100 + 100]))
    return folder


def lines_of(folder):
    """Return the lines of all passage files of a folder, in the order of the files' names."""
    files = (path for path in sorted(folder.iterdir()) if path.name != "subset.json")
    return b"".join(path.read_bytes() for path in files).splitlines(True)


def id_of(line):
    return json.loads(line)["_id"]


@pytest.fixture
def ids(corpus):
    return [id_of(line) for line in lines_of(corpus)]


@pytest.fixture
def run(tmp_path, ids):
    """A TREC run with ties whose lines are not in the order of its scores."""
    draw = random.Random(4)
    lines = [
        f"q{query} Q0 {passage} {rank} {draw.choice([0.1, 0.2, 0.3, 0.30000000001])} tag\n"
        for query in range(5)
        for rank, passage in enumerate(draw.sample(ids, 40), start=1)
    ]
    draw.shuffle(lines)
    (tmp_path / "run.trec").write_text("".join(lines))
    return tmp_path / "run.trec"


@pytest.fixture
def qrels(tmp_path, ids):
    judged = random.Random(5).sample(ids, 10)
    lines = [f"q{i % 3} 0 {passage} {i % 2}\n" for i, passage in enumerate(judged)]
    (tmp_path / "qrels.txt").write_text("".join([*lines, "q1 0 not-in-the-corpus 1\n"]))
    return tmp_path / "qrels.txt"


@pytest.fixture
def split_into(corpus, run, qrels):
    def call(output_dir, *, candidates=(corpus,), num_splits=1, strict=False, **choice):
        values = {"run_files": [run], "qrel_files": [qrels], "depths": [10]}
        return split(
            candidates=candidates,
            choice=Choice(**(values | choice)),
            output_dir=output_dir,
            num_splits=num_splits,
            strict=strict,
        )

    return call


def expected_ids(run, qrels, depth):
    """Return what the run retrieves and what is judged, if there is such a file."""
    rankings: dict[str, list[tuple[np.float32, str]]] = {}
    for line in run.read_text().splitlines():
        query, _, passage, _, score, _ = line.split()
        rankings.setdefault(query, []).append((np.float32(score), passage))
    kept = {p for hits in rankings.values() for _, p in sorted(hits, reverse=True)[:depth]}
    judged = qrels.read_text() if qrels.exists() else ""
    return kept | {line.split()[2] for line in judged.splitlines()}


@pytest.mark.parametrize("depth", [1, 10, 1000])
def test_a_subset_has_the_passages_that_an_independent_computation_finds(
    tmp_path, split_into, corpus, run, qrels, ids, depth
):
    done = split_into(tmp_path / "subset", depths=[depth], keep_judged=True)
    wanted = expected_ids(run, qrels, depth)
    assert lines_of(tmp_path / "subset") == [
        line for line in lines_of(corpus) if id_of(line) in wanted
    ]
    kept = len(wanted & set(ids))
    assert (done.num_read, done.num_kept, done.missing) == (NUM_PASSAGES, kept, 1)
    assert done.missing_examples == ("not-in-the-corpus",)


def test_passages_that_are_judged_not_relevant_are_kept_only_when_asked_for(
    tmp_path, split_into, run, qrels, ids
):
    judged = [line.split() for line in qrels.read_text().splitlines()]
    found = expected_ids(run, tmp_path / "none", 10)
    relevant = {passage for _, _, passage, grade in judged if grade == "1"}
    split_into(tmp_path / "subset")
    kept = {id_of(line) for line in lines_of(tmp_path / "subset")}
    assert kept == (found | relevant) & set(ids)


def test_several_runs_are_pooled_each_to_its_depth(tmp_path, split_into, ids, qrels):
    for name, start in (("one", 0), ("two", 50)):
        lines = [f"q\t{passage}\t{rank}\n" for rank, passage in enumerate(ids[start:], start=1)]
        (tmp_path / name).write_text("".join(lines))
    runs = [tmp_path / "one", tmp_path / "two"]
    (tmp_path / "few").write_text(f"q 0 {ids[0]} 1\n")
    split_into(tmp_path / "subset", run_files=runs, depths=[3, 5], qrel_files=[tmp_path / "few"])
    kept = {id_of(line) for line in lines_of(tmp_path / "subset")}
    assert kept == {*ids[:3], *ids[50:55]}


def test_the_same_seed_draws_the_same_further_passages(tmp_path, split_into):
    plain = split_into(tmp_path / "plain")
    for name in ("one", "two"):
        assert split_into(tmp_path / name, num_random=20, seed=3).num_kept == plain.num_kept + 20
    assert lines_of(tmp_path / "one") == lines_of(tmp_path / "two")
    assert set(lines_of(tmp_path / "plain")) < set(lines_of(tmp_path / "one"))


def test_a_passage_that_is_wanted_and_not_there_is_an_error_when_asked_for(tmp_path, split_into):
    with pytest.raises(InvalidData, match="for example 'not-in-the-corpus'"):
        split_into(tmp_path / "subset", strict=True)
    assert not (tmp_path / "subset").exists()


@pytest.mark.parametrize("num_splits", [1, 2, 7])
def test_a_subset_is_spread_evenly_in_its_order(tmp_path, split_into, corpus, num_splits):
    done = split_into(tmp_path / "subset", num_splits=num_splits)
    assert [file.name for file in done.files] == [f"split{i:02}.jsonl" for i in range(num_splits)]
    contents = [(tmp_path / "subset" / file.name).read_bytes() for file in done.files]
    sizes = [len(content.splitlines()) for content in contents]
    assert sizes == [file.passages for file in done.files]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[0] - sizes[-1] <= 1
    kept = set(lines_of(tmp_path / "subset"))
    assert lines_of(tmp_path / "subset") == [line for line in lines_of(corpus) if line in kept]


def test_a_subset_of_fewer_passages_than_parts_can_be_read_again(tmp_path, ids):
    (tmp_path / "corpus.tsv").write_text("a\tone\nb\ttwo\n")
    (tmp_path / "run").write_text("q\ta\t1\nq\tb\t2\n")
    (tmp_path / "qrels").write_text("q 0 a 1\n")
    split(
        candidates=[tmp_path / "corpus.tsv"],
        choice=Choice(qrel_files=[tmp_path / "qrels"], run_files=[tmp_path / "run"], depths=[2]),
        output_dir=tmp_path / "subset",
        num_splits=5,
    )
    assert [text.id for text in read_passages(passage_files([tmp_path / "subset"]))] == ["a", "b"]


def test_a_gzipped_corpus_gives_the_same_lines(tmp_path, split_into, corpus):
    split_into(tmp_path / "plain")
    packed = tmp_path / "packed" / "all.jsonl.gz"
    packed.parent.mkdir()
    packed.write_bytes(gzip.compress(b"".join(lines_of(corpus))))
    split_into(tmp_path / "from_packed", candidates=[packed])
    assert lines_of(tmp_path / "from_packed") == lines_of(tmp_path / "plain")


def test_an_ms_marco_run_is_taken_by_its_ranks(tmp_path, split_into, ids, qrels):
    run = tmp_path / "run.tsv"
    run.write_text(f"q\t{ids[0]}\t2\nq\t{ids[1]}\t3\nq\t{ids[2]}\t1\n")
    split_into(tmp_path / "subset", run_files=[run], depths=[2], keep_judged=True)
    kept = {id_of(line) for line in lines_of(tmp_path / "subset")}
    judged = {line.split()[2] for line in qrels.read_text().splitlines()}
    assert kept - judged == {ids[0], ids[2]} - judged
    assert {ids[0], ids[2]} <= kept


def test_a_last_line_without_an_end_and_windows_line_ends_do_not_join_lines(tmp_path):
    (tmp_path / "a.tsv").write_bytes(b"a\tone\r\nb\ttwo")
    (tmp_path / "b.tsv").write_bytes(b"c\tthree")
    (tmp_path / "run").write_text("q\ta\t1\nq\tb\t2\nq\tc\t3\n")
    (tmp_path / "qrels").write_text("q 0 a 1\n")
    split(
        candidates=[tmp_path / "a.tsv", tmp_path / "b.tsv"],
        choice=Choice(qrel_files=[tmp_path / "qrels"], run_files=[tmp_path / "run"], depths=[3]),
        output_dir=tmp_path / "subset",
    )
    assert lines_of(tmp_path / "subset") == [b"a\tone\r\n", b"b\ttwo\n", b"c\tthree\n"]


def test_the_byte_order_mark_of_a_second_file_does_not_end_up_within_the_subset(tmp_path):
    for name, passage_id in (("a.tsv", "a"), ("b.tsv", "b")):
        (tmp_path / name).write_bytes(b"\xef\xbb\xbf" + f"{passage_id}\ttext\n".encode())
    (tmp_path / "run").write_text("q\ta\t1\nq\tb\t2\n")
    (tmp_path / "qrels").write_text("q 0 a 1\n")
    split(
        candidates=[tmp_path / "a.tsv", tmp_path / "b.tsv"],
        choice=Choice(qrel_files=[tmp_path / "qrels"], run_files=[tmp_path / "run"], depths=[3]),
        output_dir=tmp_path / "subset",
    )
    assert [text.id for text in read_passages(passage_files([tmp_path / "subset"]))] == ["a", "b"]


@pytest.mark.parametrize("damage", ["bad JSON", "truncated gzip", "duplicate id"])
def test_after_an_error_in_the_corpus_nothing_half_written_is_left(
    tmp_path, split_into, corpus, damage
):
    if damage == "bad JSON":
        with (corpus / "part2.jsonl").open("a") as file:
            file.write("{broken\n")
    elif damage == "truncated gzip":
        packed = gzip.compress((corpus / "part2.jsonl").read_bytes())
        (corpus / "part2.jsonl").unlink()
        (corpus / "part2.jsonl.gz").write_bytes(packed[:-20])
    else:
        whole = b"".join(lines_of(corpus))
        (corpus / "part3.jsonl").write_bytes(whole)
    before = sorted(tmp_path.iterdir())
    with pytest.raises(InvalidData, match=r"part[23]\.jsonl"):
        split_into(tmp_path / "subset")
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize("name", ["run_files", "qrel_files"])
def test_after_an_error_in_run_or_judgements_nothing_is_left(tmp_path, split_into, name):
    bad = tmp_path / "bad"
    bad.write_text("1 2 3 4 5 6 7\n")
    before = sorted(tmp_path.iterdir())
    with pytest.raises(InvalidData):
        split_into(tmp_path / "subset", **{name: [bad]})
    assert sorted(tmp_path.iterdir()) == before


def test_a_subset_that_is_there_is_not_written_over(tmp_path, split_into):
    split_into(tmp_path / "subset")
    before = lines_of(tmp_path / "subset")
    with pytest.raises(OutputUnavailable, match="has a subset already"):
        split_into(tmp_path / "subset", depths=[1])
    assert lines_of(tmp_path / "subset") == before


def test_a_subset_may_be_written_to_the_current_folder(tmp_path, split_into, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    done = split_into(type(tmp_path)("."))
    assert len(lines_of(tmp_path / "here")) == done.num_kept


def test_a_run_of_another_corpus_leaves_nothing_to_do(tmp_path, split_into):
    (tmp_path / "other").write_text("q\tx\t1\n")
    (tmp_path / "other_qrels").write_text("q 0 x 1\n")
    with pytest.raises(NothingToDo, match="None of the 1 wanted passages"):
        split_into(
            tmp_path / "subset",
            run_files=[tmp_path / "other"],
            qrel_files=[tmp_path / "other_qrels"],
        )
    assert not (tmp_path / "subset").exists()


def test_an_output_that_cannot_be_written_is_refused_in_words(tmp_path, split_into):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputUnavailable, match=r"--output_dir: .* cannot be written"):
        split_into(tmp_path / "file" / "subset")


def test_an_empty_run_is_refused(tmp_path, split_into):
    (tmp_path / "empty").write_text("")
    with pytest.raises(InvalidData, match=r"--run_file: .* is empty"):
        split_into(tmp_path / "subset", run_files=[tmp_path / "empty"])


@pytest.mark.parametrize("options", [{"depths": [0]}, {"num_splits": 0}])
def test_counts_below_one_are_refused(tmp_path, split_into, options):
    with pytest.raises(InvalidOption, match="must be 1 or more"):
        split_into(tmp_path / "subset", **options)


def test_files_of_different_formats_cannot_become_one_subset(tmp_path, split_into, corpus):
    (corpus / "other.tsv").write_text("not-in-the-corpus\tb\n")
    with pytest.raises(InvalidData, match="different formats"):
        split_into(tmp_path / "subset")
