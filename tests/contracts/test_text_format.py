"""What every format of queries and passages promises; a new one needs an entry in SAMPLES."""

import gzip

import pytest

from asyncval.core.errors import InvalidData
from asyncval.data import TEXT_FORMATS
from asyncval.data.files import text_format
from asyncval.lookup import look_up

SAMPLES = {
    "jsonl": ['{"_id": "007", "text": "one é"}', '{"_id": "b", "text": "two"}'],
    "tsv": ["007\tone é", "b\ttwo"],
}
BAD_LINE = "neither one nor the other"


@pytest.fixture(params=TEXT_FORMATS)
def name(request):
    assert request.param in SAMPLES, f"give two lines of {request.param} in SAMPLES"
    return request.param


@pytest.fixture
def reader(name):
    return look_up(name, TEXT_FORMATS, option="format")()


@pytest.fixture(params=["", ".gz"])
def path(request, reader, tmp_path):
    return tmp_path / f"texts{reader.suffixes[0]}{request.param}"


def write(path, lines, *, end="\n"):
    content = "".join(line + end for line in lines).encode()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)


def test_its_texts_come_in_order_with_ids_as_strings_and_their_lines(name, reader, path):
    write(path, SAMPLES[name])
    texts = list(reader.read(path))
    assert [(text.id, text.content) for text in texts] == [("007", "one é"), ("b", "two")]
    assert [text.raw for text in texts] == [f"{line}\n".encode() for line in SAMPLES[name]]


def test_empty_lines_and_windows_line_ends_are_no_part_of_a_text(name, reader, path):
    write(path, ["", *SAMPLES[name], "  ", ""], end="\r\n")
    assert [text.content for text in reader.read(path)] == ["one é", "two"]


def test_a_bad_line_is_named_with_file_and_number(name, reader, path):
    write(path, [*SAMPLES[name], BAD_LINE])
    with pytest.raises(InvalidData) as caught:
        list(reader.read(path))
    assert f"{str(path)!r}, line 3" in str(caught.value)


def test_every_suffix_of_it_leads_to_it(reader, tmp_path):
    for suffix in reader.suffixes:
        for name in (f"a{suffix}", f"a{suffix}.gz", f"A{suffix.upper()}"):
            assert type(text_format(tmp_path / name)) is type(reader)
