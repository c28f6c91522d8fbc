"""What `subset.json` says, and what is said where a subset does not fit its judgements."""

import hashlib
import json

import pytest

from asyncval.data.sources import passage_files
from asyncval.subsets.manifest import FILE_NAME, manifest_remarks


def read(folder):
    return json.loads((folder / FILE_NAME).read_text())


def test_a_manifest_has_digests_of_all_that_went_in_and_came_out(files):
    files.split(num_splits=2, num_random=3)
    manifest = read(files.folder / "subset")
    assert manifest["runs"][0]["sha256"] == hashlib.sha256(files.run.read_bytes()).hexdigest()
    assert manifest["candidates"][0]["bytes"] == files.corpus.stat().st_size
    assert manifest["arguments"]["depths"] == [3]
    assert manifest["arguments"]["seed"] == 0
    assert (manifest["num_read"], manifest["num_kept"]) == (50, 11)
    assert manifest["sources"] == {
        "relevant": {"wanted": 2, "found": 2},
        f"run {files.run}": {"wanted": 6, "found": 6},
        "random": {"wanted": 3, "found": 3},
    }
    for file in manifest["files"]:
        content = (files.folder / "subset" / file["name"]).read_bytes()
        assert hashlib.sha256(content).hexdigest() == file["sha256"]
        assert len(content.splitlines()) == file["passages"]


def test_judgements_of_a_beir_folder_are_described_by_their_file(files):
    folder = files.folder / "beir" / "qrels"
    folder.mkdir(parents=True)
    (folder / "test.tsv").write_text("query-id\tcorpus-id\tscore\nq1\tp40\t1\n")
    manifest = files.split(qrel_files=[folder.parent])
    assert [each.path for each in manifest.qrels] == [str(folder / "test.tsv")]
    assert manifest_remarks([files.folder / "subset"], [folder.parent]) == []


def test_the_same_call_writes_the_same_bytes(files):
    files.split(num_random=3)
    files.split("again", num_random=3)
    first, second = (files.folder / name for name in ("subset", "again"))
    assert [path.read_bytes() for path in sorted(first.iterdir())] == [
        path.read_bytes() for path in sorted(second.iterdir())
    ]


def test_a_manifest_is_no_passage_file(files):
    files.split()
    assert [path.name for path in passage_files([files.folder / "subset"])] == ["split00.jsonl"]


def test_the_judgements_that_a_subset_was_made_for_pass_in_any_form_and_order(files):
    files.split()
    other = files.folder / "beir.tsv"
    other.write_text("query-id\tcorpus-id\tscore\nq2\tp42\t2\nq2\tp41\t0\nq1\tp40\t1\n")
    assert manifest_remarks([files.folder / "subset"], [files.qrels, other]) == []


def test_other_judgements_are_remarked_upon_with_both_names(files):
    files.split()
    other = files.folder / "other.txt"
    other.write_text("q1 0 p40 1\n")
    (remark,) = manifest_remarks([files.folder / "subset"], [other])
    assert "qrels.txt" in remark
    assert "other.txt" in remark


def test_a_file_that_was_changed_or_lost_is_remarked_upon(files):
    files.split(num_splits=2)
    (files.folder / "subset" / "split00.jsonl").unlink()
    with (files.folder / "subset" / "split01.jsonl").open("a") as file:
        file.write('{"_id": "new", "text": "x"}\n')
    lost, changed = manifest_remarks([files.folder / "subset"], [files.qrels])
    assert "split00.jsonl' is missing" in lost
    assert "split01.jsonl' is not as `asyncval split` wrote it" in changed


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"files": [], "qrels": 7}', '{"files": [1]}'])
def test_a_manifest_that_cannot_be_read_is_remarked_upon(files, content):
    files.split()
    (files.folder / "subset" / FILE_NAME).write_text(content)
    (remark,) = manifest_remarks([files.folder / "subset"], [files.qrels])
    assert "cannot be read as the manifest" in remark


def test_a_corpus_without_a_manifest_passes_unremarked(files):
    assert manifest_remarks([files.corpus, files.folder], [files.qrels]) == []
