"""Folders as `datasets.Dataset.save_to_disk` writes them, with RetroMAE's ids beside."""

import json

import pytest

from asyncval.core.errors import DependencyMissing, InvalidData
from asyncval.core.types import TextForm
from asyncval.data import arrow as border
from asyncval.data.sources import digest_of, read_texts, text_format

IDS = ["007", "12", "NA"]
TOKENS = [[5, 6, 7], [], [30521]]


@pytest.fixture
def saved(tmp_path):
    arrow = pytest.importorskip("pyarrow")
    schema = arrow.schema([("id", arrow.string()), ("input_ids", arrow.list_(arrow.int32()))])
    table = arrow.Table.from_pylist(
        [{"id": i, "input_ids": t} for i, t in zip(IDS, TOKENS, strict=True)], schema
    )
    with arrow.ipc.new_stream(tmp_path / "dataset.arrow", schema) as stream:
        stream.write_table(table, max_chunksize=2)
    state = {"_data_files": [{"filename": "dataset.arrow"}], "_indices_data_files": None}
    (tmp_path / "state.json").write_text(json.dumps(state))
    (tmp_path / "dataset_info.json").write_text("{}")
    (tmp_path / "mapping_id.txt").write_text("12\t1\nNA\t2\n007\t0\n")
    return tmp_path


def read(place):
    return [(text.id, text.content) for text in read_texts(place, option="--candidate_dir")]


def test_token_ids_come_in_the_order_of_the_rows_with_their_ids(saved):
    expected = [(i, tuple(t)) for i, t in zip(IDS, TOKENS, strict=True)]
    assert read(saved) == expected
    (saved / "mapping_id.txt").unlink()
    assert read(saved) == expected


def test_the_digest_is_another_when_the_ids_are(saved):
    before = digest_of([saved])
    (saved / "mapping_id.txt").write_text("1\t0\n2\t1\n3\t2\n")
    assert digest_of([saved]) != before


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("007\t0\n12\t1\n", "only one of them has a row 2"),
        ("007\t0\n12\t1\nNA\t2\nx\t3\n", "only one of them has a row 3"),
        ("007\t0\n13\t1\nNA\t2\n", "row 2: its id is '12', but mapping_id.txt says '13'"),
        ("007 0\n", r"mapping_id\.txt', line 1: an id and its row"),
        ("007\t0\n12\t0\nNA\t2\n", r"mapping_id\.txt' has not each row once: see row 1"),
    ],
)
def test_ids_that_do_not_fit_the_rows_are_refused(saved, lines, message):
    (saved / "mapping_id.txt").write_text(lines)
    with pytest.raises(InvalidData, match=message):
        read(saved)


def test_a_selection_a_dictionary_and_a_damaged_file_are_refused_in_words(saved):
    content = (saved / "dataset.arrow").read_bytes()
    (saved / "dataset.arrow").write_bytes(content[: len(content) // 2])
    with pytest.raises(InvalidData, match=r"dataset\.arrow' cannot be read as Arrow data"):
        read(saved)
    (saved / "state.json").write_text('{"_data_files": [], "_indices_data_files": [{}]}')
    with pytest.raises(InvalidData, match="is a selection of rows"):
        read(saved)
    (saved / "state.json").write_text("[]")
    with pytest.raises(InvalidData, match="is no state of a data set"):
        read(saved)
    (saved / "train").mkdir()
    (saved / "state.json").rename(saved / "train" / "state.json")
    (saved / "dataset_dict.json").write_text("{}")
    with pytest.raises(InvalidData, match=r"several data sets \(train\)"):
        read(saved)


@pytest.mark.parametrize("name", ["saved", "a.parquet"])
def test_what_to_install_is_said_where_pyarrow_is_missing(tmp_path, monkeypatch, name):
    def missing(module):
        raise ImportError(module)

    place = tmp_path / name
    if name == "saved":
        place.mkdir()
        (place / "state.json").write_text('{"_data_files": [{"filename": "a.arrow"}]}')
    else:
        place.write_bytes(b"PAR1")
    monkeypatch.setattr(border, "import_module", missing)
    with pytest.raises(DependencyMissing, match=r"needs pyarrow.*pip install asyncval\[arrow\]"):
        read(place)


def test_a_file_that_is_no_parquet_is_refused_in_words(tmp_path):
    pytest.importorskip("pyarrow")
    (tmp_path / "a.parquet").write_bytes(b"PAR1 and nothing of it")
    with pytest.raises(InvalidData, match=r"a\.parquet' cannot be read as Parquet"):
        read(tmp_path / "a.parquet")


def test_the_library_itself_writes_what_is_read(tmp_path):
    datasets = pytest.importorskip("datasets")
    rows = {"id": IDS, "input_ids": TOKENS}
    datasets.Dataset.from_dict(rows).save_to_disk(tmp_path / "saved", num_shards=2)
    assert text_format(tmp_path / "saved") is not None
    assert read(tmp_path / "saved") == [(i, tuple(t)) for i, t in zip(IDS, TOKENS, strict=True)]


def test_a_template_reads_other_columns_of_a_parquet_file(tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    arrow = pytest.importorskip("pyarrow")
    table = arrow.table({"docid": [7, 8], "headline": ["H", None], "body": ["B", "C"]})
    parquet.write_table(table, tmp_path / "a.parquet")
    form = TextForm(template="<headline>: <body>")
    texts = read_texts(tmp_path / "a.parquet", option="--candidate_dir", form=form)
    assert [(text.id, text.content) for text in texts] == [("7", "H: B"), ("8", ": C")]
