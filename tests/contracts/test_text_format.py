"""What every format of queries and passages promises; a new one needs an entry in WRITERS."""

import gzip
import json
from pathlib import Path

import ir_datasets
import pytest

from asyncval.core.errors import InvalidData
from asyncval.core.types import TextForm
from asyncval.data import TEXT_FORMATS
from asyncval.data.sources import digest_of, passage_files, read_texts, text_format
from asyncval.lookup import look_up

TEXTS = [("007", "one é"), ("b", 'a "quoted <title>'), ("NA", "two")]


def as_lines(suffix, line):
    def write(folder, texts, *, pack=False, end="\n"):
        path = folder / f"texts{suffix}{'.gz' if pack else ''}"
        content = "".join(line(*each) + end for each in texts).encode()
        path.write_bytes(gzip.compress(content) if pack else content)
        return path

    return write


def write_parquet(folder, texts):
    parquet = pytest.importorskip("pyarrow.parquet")
    parquet.write_table(as_table(texts, "text"), folder / "texts.parquet", row_group_size=2)
    return folder / "texts.parquet"


def write_dataset(folder, texts):
    arrow = pytest.importorskip("pyarrow")
    (folder / "saved").mkdir()
    names = ["data-00001-of-00002.arrow", "data-00000-of-00002.arrow"]  # state.json has the order
    for name, some in zip(names, (texts[:1], texts[1:]), strict=True):
        table = as_table(some, "text")
        with arrow.ipc.new_stream(folder / "saved" / name, table.schema) as stream:
            stream.write_table(table)
    state = {"_data_files": [{"filename": name} for name in names]}
    (folder / "saved" / "state.json").write_text(json.dumps(state))
    return folder / "saved"


def as_table(texts, column):
    arrow = pytest.importorskip("pyarrow")
    ids, contents = zip(*texts, strict=True)
    return arrow.table({"id": ids, column: contents})


def register(folder, texts):
    """Register a local data set of ir_datasets: nothing is downloaded."""
    path = folder / "docs.tsv"
    path.write_text("".join(f"{text_id}\t{content}\n" for text_id, content in texts))
    name = f"asyncval-test{folder.as_posix()}"
    ir_datasets.registry.register(name, ir_datasets.create_dataset(docs_tsv=str(path)))
    return Path(f"ir_datasets:{name}")


WRITERS = {
    "jsonl": as_lines(".jsonl", lambda i, text: json.dumps({"_id": i, "text": text})),
    "tsv": as_lines(".tsv", lambda i, text: f"{i}\t{text}"),
    "parquet": write_parquet,
    "datasets": write_dataset,
    "ir_datasets": register,
}
"""Writes (id, text) pairs into a folder and returns the place; with `pack` and `end` for lines."""
OF_LINES = [name for name in TEXT_FORMATS if "end" in WRITERS[name].__code__.co_varnames]
BAD_LINE = "neither one nor the other"


@pytest.fixture(params=TEXT_FORMATS)
def name(request):
    assert request.param in WRITERS, f"say how to write {request.param} in WRITERS"
    return request.param


def read(place, **form):
    return list(read_texts(place, option="--candidate_dir", form=TextForm(**form)))


def test_its_texts_come_in_order_with_ids_as_strings(name, tmp_path):
    place = WRITERS[name](tmp_path, TEXTS)
    assert [(text.id, text.content) for text in read(place)] == TEXTS


def test_it_is_found_by_the_place_or_by_its_name(name, tmp_path):
    place = WRITERS[name](tmp_path, TEXTS)
    kind = look_up(name, TEXT_FORMATS, option="format")
    assert type(text_format(place)) is kind
    assert passage_files([place]) == [place]
    assert read(place, format=name) == read(place)


def test_a_template_puts_its_fields_together(name, tmp_path):
    texts = read(WRITERS[name](tmp_path, TEXTS), template=r"Text:\n<text>")
    assert [text.content for text in texts] == [f"Text:\n{content}" for _, content in TEXTS]


def test_a_column_that_is_not_there_is_one_clear_error(name, tmp_path):
    place = WRITERS[name](tmp_path, TEXTS)
    with pytest.raises(InvalidData, match=r"(line|row) 1: the template has <body>.*There are "):
        read(place, template="<body>")


def test_its_digest_changes_with_the_content_and_with_the_way_of_reading(name, tmp_path):
    folders = [tmp_path / each for each in ("one", "other")]
    for folder in folders:
        folder.mkdir()
    one = WRITERS[name](folders[0], TEXTS)
    other = WRITERS[name](folders[1], [*TEXTS[:2], ("x", "else")])
    digests = {
        digest_of([one]),
        digest_of([other]),
        digest_of([one], TextForm(template="<text>")),
        digest_of([one], TextForm(columns=("id", "text"))),
    }
    assert len(digests) == 4
    assert digest_of([one]) == digest_of([one], TextForm())


@pytest.mark.parametrize("name", OF_LINES)
@pytest.mark.parametrize("pack", [False, True])
def test_a_record_of_lines_keeps_the_bytes_of_its_line(name, tmp_path, pack):
    place = WRITERS[name](tmp_path, TEXTS, pack=pack)
    lines = place.read_bytes() if not pack else gzip.decompress(place.read_bytes())
    found = look_up(name, TEXT_FORMATS, option="format")().read(place, TextForm())
    assert [record.raw for record in found] == lines.splitlines(keepends=True)


@pytest.mark.parametrize("name", OF_LINES)
@pytest.mark.parametrize("pack", [False, True])
def test_empty_lines_and_windows_line_ends_are_no_part_of_a_text(name, tmp_path, pack):
    place = WRITERS[name](tmp_path, TEXTS, end="\r\n \r\n\r\n", pack=pack)
    assert [(text.id, text.content) for text in read(place)] == TEXTS


@pytest.mark.parametrize("name", OF_LINES)
def test_a_bad_line_is_named_with_file_and_number(name, tmp_path):
    place = WRITERS[name](tmp_path, TEXTS)
    with place.open("a") as file:
        file.write(BAD_LINE)
    with pytest.raises(InvalidData) as caught:
        read(place)
    assert f"{str(place)!r}, line 4" in str(caught.value)


def test_every_suffix_of_it_leads_to_it(name, tmp_path):
    kind = look_up(name, TEXT_FORMATS, option="format")
    for suffix in kind.suffixes:
        for path in (tmp_path / f"a{suffix}", tmp_path / f"A{suffix.upper()}"):
            assert type(text_format(path)) is kind
            if name in OF_LINES:
                assert type(text_format(path.with_name(f"{path.name}.gz"))) is kind
