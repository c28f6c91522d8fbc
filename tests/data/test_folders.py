import pytest

from asyncval.core.errors import InvalidData, InvalidOption
from asyncval.data.collection import load_collection, load_query_sets, task_in_folder
from asyncval.data.qrels import read_qrels


def write(path, *lines):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines))
    return path


@pytest.fixture
def beir(tmp_path):
    """A BEIR data set: the queries of all splits in one file."""
    folder = tmp_path / "scifact"
    write(folder / "queries.jsonl", *[f'{{"_id": "q{n}", "text": "query {n}"}}' for n in range(4)])
    write(folder / "corpus.jsonl", '{"_id": "d1", "title": "T", "text": "a"}')
    header = "query-id\tcorpus-id\tscore"
    write(folder / "qrels" / "test.tsv", header, "q1\td1\t1", "q3\td1\t2", "q9\td1\t1")
    write(folder / "qrels" / "train.tsv", header, "q0\td1\t1")
    return folder


def test_a_beir_folder_is_a_task_with_its_test_queries_only(beir):
    [query_set] = (collection := load_collection([task_in_folder("sf", beir)])).query_sets
    assert query_set.name == "sf"
    assert [query.id for query in query_set.queries] == ["q1", "q3"]
    assert query_set.judgements == {"q1": {"d1": 1}, "q3": {"d1": 2}, "q9": {"d1": 1}}
    assert collection.corpora[""].num_passages == 1
    [remark] = collection.remarks
    assert "for example 'q9'" in remark


def test_the_digest_of_a_folders_queries_is_another_when_other_ones_are_judged(beir):
    [before] = load_query_sets([task_in_folder("sf", beir)])
    write(beir / "qrels" / "test.tsv", "q2\td1\t1")
    [after] = load_query_sets([task_in_folder("sf", beir)])
    assert before.digest != after.digest


def test_folders_with_files_of_other_forms_and_a_folder_of_passages_are_tasks(tmp_path):
    write(tmp_path / "queries.tsv", "q1\ta")
    write(tmp_path / "qrels.trec", "q1 0 d2 1")
    write(tmp_path / "corpus" / "split00.jsonl", '{"text_id": "d1", "text": [5]}')
    write(tmp_path / "corpus" / "split01.jsonl", '{"text_id": "d2", "text": [6]}')
    collection = load_collection([task_in_folder("own", tmp_path)])
    assert collection.corpora[""].num_passages == 2
    assert collection.query_sets[0].judgements == {"q1": {"d2": 1}}


def test_each_task_is_asked_of_its_own_corpus_and_one_corpus_is_read_once(tmp_path, beir):
    other = tmp_path / "other"
    write(other / "queries.jsonl", '{"_id": "q1", "text": "elsewhere"}')
    write(other / "corpus.tsv", "x1\ta", "x2\tb")
    write(other / "qrels" / "dev.tsv", "q1\tx2\t1")
    tasks = [task_in_folder(name, beir) for name in ("one", "two")]
    collection = load_collection([tasks[0], task_in_folder("three", other), tasks[1]])
    assert [each.corpus for each in collection.query_sets] == ["one", "three", "one"]
    assert {name: each.num_passages for name, each in collection.corpora.items()} == {
        "one": 1,
        "three": 2,
    }


def test_relevant_passages_that_only_another_corpus_has_are_missing(tmp_path, beir):
    other = tmp_path / "other"
    write(other / "queries.jsonl", '{"_id": "q1", "text": "elsewhere"}')
    write(other / "corpus.tsv", "x1\ta")
    write(other / "qrels" / "test.tsv", "q1\td1\t1")
    with pytest.raises(InvalidData, match="none of the 1 relevant passages"):
        load_collection([task_in_folder("sf", beir), task_in_folder("other", other)])


def test_judgements_may_be_given_as_the_folder_that_has_them(beir):
    assert read_qrels(beir) == read_qrels(beir / "qrels") == read_qrels(beir / "qrels" / "test.tsv")


@pytest.mark.parametrize(
    ("removed", "message"),
    [
        ("queries.jsonl", "--query_file: the folder .* has no queries.jsonl"),
        ("corpus.jsonl", "--task: the folder .* has no corpus.jsonl"),
        ("qrels/test.tsv", None),
    ],
)
def test_a_folder_that_lacks_something_is_refused_with_its_name(beir, removed, message):
    (beir / removed).unlink()
    if message is None:  # the only judgements that are left are taken
        assert len(load_query_sets([task_in_folder("sf", beir)])[0].queries) == 1
        write(beir / "qrels" / "dev.tsv", "q1\td1\t1")
        message = r"--qrel_file: .* no one file of judgements \(dev\.tsv, train\.tsv\)"
    with pytest.raises((InvalidData, InvalidOption), match=message):
        load_query_sets([task_in_folder("sf", beir)])


def test_a_task_whose_folder_is_not_there_is_refused(tmp_path):
    with pytest.raises(InvalidData, match="--task sf: there is no folder"):
        task_in_folder("sf", tmp_path / "absent")
