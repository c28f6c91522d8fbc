from pathlib import Path

import pytest

from asyncval.core.errors import InvalidData
from asyncval.data import duplicates
from asyncval.data.collection import load_collection, tasks_on_one_corpus
from asyncval.data.duplicates import SeenIds, first_repeated

PLACE = Path("a")


def test_an_id_that_stands_twice_is_a_suspect_and_is_found():
    ids = [f"d{number}" for number in range(1000)] + ["d7"]
    seen = SeenIds()
    for each in ids:
        seen.add(each)
    assert len(seen) == 1001
    assert seen.suspects() == {hash("d7")}
    assert first_repeated(((PLACE, each) for each in ids), seen.suspects()) == (PLACE, "d7")


def test_ids_that_only_share_a_hash_are_told_apart(tmp_path, monkeypatch):
    monkeypatch.setattr(duplicates, "hash", lambda text: len(text), raising=False)
    corpus = tmp_path / "corpus.tsv"
    corpus.write_text("d1\ta\nd2\tb\nd3\tc\n")
    (tmp_path / "queries.tsv").write_text("q1\ta\n")
    (tmp_path / "qrels").write_text("q1 0 d1 1\n")
    tasks = tasks_on_one_corpus([tmp_path / "queries.tsv"], [tmp_path / "qrels"], [corpus])
    assert load_collection(tasks).corpora[""].num_passages == 3
    corpus.write_text("d1\ta\nd2\tb\nd3\tc\nd2\td\n")
    with pytest.raises(InvalidData, match="the passage id 'd2' stands twice"):
        load_collection(tasks)
