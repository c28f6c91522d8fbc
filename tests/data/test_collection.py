import gzip

import pytest

from asyncval.core.errors import InvalidData, InvalidOption
from asyncval.data.collection import (
    load_collection,
    read_passages,
    tasks_on_one_corpus,
)
from asyncval.data.collection import load_query_sets as load_sets
from asyncval.data.sources import digest_of, passage_files


def write(path, lines):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines))
    return path


@pytest.fixture
def queries(tmp_path):
    return write(tmp_path / "queries.tsv", ["q1\tfirst", "q2\tsecond"])


@pytest.fixture
def qrels(tmp_path):
    return write(tmp_path / "qrels.txt", ["q1 0 d1 1", "q2 0 d2 1"])


@pytest.fixture
def corpus(tmp_path):
    write(tmp_path / "corpus" / "part1.tsv", ["d2\ttwo", "d3\tthree"])
    write(tmp_path / "corpus" / "part0.jsonl", ['{"_id": "d1", "text": "one"}'])
    return tmp_path / "corpus"


def load(queries, qrels, corpus):
    return load_collection(tasks_on_one_corpus([queries], [qrels], [corpus]))


def load_query_sets(query_files, qrel_files):
    return load_sets(tasks_on_one_corpus(query_files, qrel_files, []))


def test_a_collection_has_its_queries_and_the_corpus_in_the_order_of_names(queries, qrels, corpus):
    collection = load(queries, qrels, corpus)
    [query_set] = collection.query_sets
    assert [query.id for query in query_set.queries] == ["q1", "q2"]
    assert query_set.judged == ("q1", "q2")
    assert query_set.name == "queries"
    assert [text.id for text in read_passages(collection.corpora[""].files)] == ["d1", "d2", "d3"]
    assert collection.corpora[""].num_passages == 3
    assert collection.remarks == ()


def test_a_passage_id_that_stands_twice_is_refused_with_the_second_file(queries, qrels, corpus):
    write(corpus / "part2.tsv", ["d1\tagain"])
    with pytest.raises(InvalidData, match=r"part2\.tsv': the passage id 'd1' stands twice"):
        load(queries, qrels, corpus)


def test_a_query_id_that_stands_twice_is_refused(tmp_path, qrels, corpus):
    queries = write(tmp_path / "q.tsv", ["q1\ta", "q1\tb"])
    with pytest.raises(InvalidData, match=r"q\.tsv': the query id 'q1' stands twice"):
        load(queries, qrels, corpus)


def test_judgements_of_other_queries_are_refused(tmp_path, queries, corpus):
    qrels = write(tmp_path / "qrels.txt", ["1 0 d1 1", "2 0 d2 1"])
    with pytest.raises(InvalidData, match=r"none of the 2 queries in .* the first is '1'"):
        load(queries, qrels, corpus)


def test_judgements_of_another_corpus_are_refused(tmp_path, queries, corpus):
    qrels = write(tmp_path / "qrels.txt", ["q1 0 x1 1", "q1 0 d1 0", "q2 0 x2 2"])
    with pytest.raises(InvalidData, match=r"none of the 2 relevant passages .* the first is 'x1'"):
        load(queries, qrels, corpus)


def test_what_fits_only_in_part_is_remarked_with_numbers_and_an_example(tmp_path, corpus):
    queries = write(tmp_path / "q.tsv", ["q1\ta", "q2\tb", "q3\tc"])
    qrels = write(tmp_path / "qrels.txt", ["q1 0 d1 1", "q1 0 gone 1", "q9 0 far 1"])
    unjudged, elsewhere, missing = load(queries, qrels, corpus).remarks
    assert unjudged.startswith("2 of 3 queries in ")
    assert "for example 'q2'" in unjudged
    assert elsewhere.startswith("1 of 2 judged queries in ")
    assert "for example 'q9'" in elsewhere
    assert missing.startswith("1 of 2 relevant passages in ")
    assert "for example 'gone'" in missing


def test_judgements_without_a_relevant_passage_are_refused(tmp_path, queries, corpus):
    qrels = write(tmp_path / "qrels.txt", ["q1 0 d1 0", "q2 0 elsewhere 0"])
    with pytest.raises(InvalidData, match=r"qrels.txt' is relevant .* every score would be 0"):
        load(queries, qrels, corpus)


def test_several_query_files_are_named_by_their_stems_and_may_share_judgements(tmp_path, qrels):
    first = write(tmp_path / "dev.tsv", ["q1\ta"])
    second = tmp_path / "test.jsonl.gz"
    second.write_bytes(gzip.compress(b'{"_id": "q2", "text": "b"}'))
    sets = load_query_sets([first, second], [qrels])
    assert [each.name for each in sets] == ["dev", "test"]
    assert [each.judged for each in sets] == [("q1",), ("q2",)]
    assert [each.qrels_path for each in sets] == [qrels, qrels]


def test_equal_names_in_different_folders_get_the_folders_name(tmp_path, qrels):
    files = [write(tmp_path / name / "queries.tsv", ["q1\ta"]) for name in ("nq", "msmarco")]
    sets = load_query_sets(files, [qrels])
    assert [each.name for each in sets] == ["nq.queries", "msmarco.queries"]


def test_query_files_that_cannot_be_told_apart_are_refused(tmp_path, qrels):
    files = [write(tmp_path / name, ["q1\ta"]) for name in ("queries.tsv", "queries.txt")]
    with pytest.raises(InvalidOption, match="two files would both be called"):
        load_query_sets(files, [qrels])


def test_each_query_file_has_its_own_judgements_in_the_same_order(tmp_path):
    files = [write(tmp_path / f"set{i}.tsv", [f"q{i}\ta"]) for i in (1, 2)]
    qrels = [write(tmp_path / f"qrels{i}.txt", [f"q{i} 0 d{i} 1"]) for i in (1, 2)]
    sets = load_query_sets(files, qrels)
    assert [dict(each.judgements) for each in sets] == [{"q1": {"d1": 1}}, {"q2": {"d2": 1}}]


def test_a_number_of_judgement_files_that_does_not_fit_is_refused(tmp_path, queries, qrels):
    with pytest.raises(InvalidOption, match="--qrel_file: 2 files for 3 query files"):
        load_query_sets([queries] * 3, [qrels, qrels])


def test_of_a_beir_folder_only_the_corpus_is_read(tmp_path):
    write(tmp_path / "queries.jsonl", ['{"_id": "q", "text": "a"}'])
    corpus = write(tmp_path / "corpus.jsonl", ['{"_id": "d", "text": "a"}'])
    write(tmp_path / "qrels" / "test.tsv", ["q\td\t1"])
    assert passage_files([tmp_path]) == [corpus]


def test_hidden_files_manifests_and_other_suffixes_are_no_passage_files(tmp_path):
    for name in (".hidden.jsonl", "subset.json", "README.md", "a.jsonl.bak", "model.bin"):
        write(tmp_path / name, ["{}"])
    kept = [write(tmp_path / name, ["1\ta"]) for name in ("a.tsv", "b.jsonl.gz")]
    assert passage_files([tmp_path]) == kept


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("corpus.csv", "1,a", "is nothing that a format reads"),
        ("corpus.tsv", "", "is empty"),
        ("missing.tsv", None, "there is no file"),
    ],
)
def test_a_file_that_nothing_can_be_read_from_is_refused(tmp_path, name, content, message):
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(InvalidData, match=f"--candidate_dir: .*{message}"):
        passage_files([tmp_path / name])


def test_a_folder_without_passages_is_refused(tmp_path, queries, qrels):
    (tmp_path / "none").mkdir()
    with pytest.raises(InvalidData, match="none' has no passage file"):
        load(queries, qrels, tmp_path / "none")


def test_a_corpus_of_empty_lines_is_refused(tmp_path, queries, qrels):
    with pytest.raises(InvalidData, match="there is no passage in it"):
        load(queries, qrels, write(tmp_path / "blank" / "a.tsv", ["", " "]).parent)


def test_a_query_file_of_empty_lines_is_refused(tmp_path, qrels, corpus):
    with pytest.raises(InvalidData, match=r"--query_file: the file .* is empty"):
        load(write(tmp_path / "q.tsv", [""]), qrels, corpus)


def test_the_digest_of_files_is_that_of_their_content_in_order_and_not_of_their_names(tmp_path):
    one, two = write(tmp_path / "one", ["a"]), write(tmp_path / "two", ["b"])
    renamed = write(tmp_path / "three", ["a"])
    assert digest_of([one, two]) == digest_of([renamed, two])
    assert digest_of([one, two]) != digest_of([two, one])
    assert digest_of([one, two]) != digest_of([one])
