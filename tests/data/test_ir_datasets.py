"""`ir_datasets:NAME`, on data sets that are registered here: nothing is downloaded."""

import sys
from pathlib import Path
from typing import NamedTuple

import ir_datasets
import pytest

from asyncval.core.errors import DependencyMissing, InvalidData
from asyncval.core.types import TextForm
from asyncval.data.collection import load_collection, task_in_folder, tasks_on_one_corpus
from asyncval.data.qrels import read_qrels
from asyncval.data.sources import located, place_stem, read_texts


@pytest.fixture
def place(tmp_path):
    (tmp_path / "docs.tsv").write_text('007\ta "quoted\nd2\ttwo\n')
    (tmp_path / "queries.tsv").write_text("q1\tfirst\nq2\tsecond\n")
    (tmp_path / "qrels").write_text("q1 0 007 2\nq2 0 d2 0\nq2 0 007 1\n")
    name = f"asyncval{tmp_path.as_posix()}/dev"
    dataset = ir_datasets.create_dataset(
        docs_tsv=str(tmp_path / "docs.tsv"),
        queries_tsv=str(tmp_path / "queries.tsv"),
        qrels_trec=str(tmp_path / "qrels"),
    )
    ir_datasets.registry.register(name, dataset)
    return Path(f"ir_datasets:{name}")


def test_it_is_queries_passages_and_judgements_with_ids_as_they_are(place):
    collection = load_collection(tasks_on_one_corpus([place], [place], [place]))
    [query_set] = collection.query_sets
    assert [(query.id, query.content) for query in query_set.queries] == [
        ("q1", "first"),
        ("q2", "second"),
    ]
    assert query_set.judgements == {"q1": {"007": 2}, "q2": {"d2": 0, "007": 1}}
    texts = read_texts(place, option="--candidate_dir")
    assert [(text.id, text.content) for text in texts] == [("007", 'a "quoted'), ("d2", "two")]
    assert "/" not in query_set.name
    assert located(place) == str(place)


def test_it_is_a_task_by_its_name_alone(place):
    [query_set] = load_collection([task_in_folder("own", place)]).query_sets
    assert query_set.judged == ("q1", "q2")


def test_a_template_has_its_fields(place):
    form = TextForm(template="<doc_id>: <text>")
    assert [t.content for t in read_texts(place, option="", form=form)] == [
        '007: a "quoted',
        "d2: two",
    ]


class Paper(NamedTuple):
    doc_id: str
    title: str
    abstract: str

    def default_text(self):
        return f"{self.title} {self.abstract}"


def test_a_document_without_a_text_is_what_the_library_says_it_is(monkeypatch):
    class Papers:
        def has_docs(self):
            return True

        def docs_iter(self):
            return iter([Paper("1", "T", "A")])

    monkeypatch.setattr(ir_datasets, "load", lambda name: Papers())
    place = Path("ir_datasets:papers")
    [text] = read_texts(place, option="--candidate_dir")
    assert text.content == "T A"
    form = TextForm(template="<title>: <abstract>")
    assert [t.content for t in read_texts(place, option="", form=form)] == ["T: A"]


def test_a_name_that_is_not_there_and_one_that_has_no_such_part_are_refused(place, tmp_path):
    with pytest.raises(InvalidData, match="'ir_datasets:nonsense': ir_datasets has no data set"):
        read_qrels(Path("ir_datasets:nonsense"))
    bare = ir_datasets.create_dataset(docs_tsv=str(tmp_path / "docs.tsv"))
    ir_datasets.registry.register(f"bare{tmp_path.as_posix()}", bare)
    with pytest.raises(InvalidData, match="has no qrels"):
        read_qrels(Path(f"ir_datasets:bare{tmp_path.as_posix()}"))


def test_files_that_the_library_cannot_read_are_refused_in_words(place, tmp_path):
    (tmp_path / "docs.tsv").unlink()
    with pytest.raises(InvalidData, match="cannot be read by ir_datasets"):
        list(read_texts(place, option="--candidate_dir"))


def test_what_to_install_is_said_where_the_library_is_missing(place, monkeypatch):
    monkeypatch.setitem(sys.modules, "ir_datasets", None)
    with pytest.raises(DependencyMissing, match=r"pip install asyncval\[ir-datasets\]"):
        read_qrels(place)


def test_a_query_set_is_called_by_the_whole_name():
    assert place_stem(Path("ir_datasets:beir/scifact/test")) == "beir-scifact-test"
