"""Which format reads a place, and formats of a user's own."""

import json
from pathlib import Path

import pytest

from asyncval.core.errors import InvalidData, InvalidOption
from asyncval.core.types import Record, TextForm
from asyncval.data.files import FileFormat, read_lines
from asyncval.data.sources import digest_of, located, passage_files, read_texts

OWN = "tests.data.test_sources:Piped"
REMOTE = "tests.data.test_sources:Remote"


class Piped(FileFormat):
    """`id|text`, as somebody might have it."""

    suffixes = (".piped",)

    def read(self, place, form):
        for number, raw, line in read_lines(place):
            text_id, text = line.split("|")
            yield Record({"id": text_id, "text": text}, place, number, raw)


class Remote:
    """What is read from no file at all."""

    suffixes = ()

    def recognises(self, place):
        return str(place).startswith("remote:")

    def digest(self, place):
        return str(place).encode()

    def read(self, place, form):
        yield Record({"id": "1", "text": str(place)}, place, 1)


def read(place, **form):
    return [(t.id, t.content) for t in read_texts(place, option="", form=TextForm(**form))]


@pytest.mark.parametrize("name", ["a.piped", "a.tsv", "a"])
def test_a_format_of_ones_own_reads_what_it_is_told_to(tmp_path, name):
    (tmp_path / name).write_text("007|one\nb|two\n")
    assert read(tmp_path / name, format=OWN) == [("007", "one"), ("b", "two")]
    assert passage_files([tmp_path], form=TextForm(format=OWN)) == [tmp_path / name]
    assert digest_of([tmp_path / name], TextForm(format=OWN)) != digest_of([tmp_path / name])


def test_in_a_folder_a_named_format_takes_its_own_files_if_there_are_any(tmp_path):
    for name in ("a.piped", "b.tsv"):
        (tmp_path / name).write_text("007|one\n")
    assert passage_files([tmp_path], form=TextForm(format=OWN)) == [tmp_path / "a.piped"]


def test_a_format_of_ones_own_may_read_what_is_no_file(tmp_path):
    place, form = Path("remote:x"), TextForm(format=REMOTE)
    assert read(place, format=REMOTE) == [("1", "remote:x")]
    assert passage_files([place], form=form) == [place]
    assert located(place) == "remote:x"
    assert located(Path("tests")) == str(Path("tests").absolute())


def test_json_lines_are_read_whatever_the_suffix_where_they_are_named(tmp_path):
    (tmp_path / "split00").write_text(json.dumps({"text_id": 1, "text": "a"}))
    assert read(tmp_path / "split00", format="jsonl") == [("1", "a")]
    assert passage_files([tmp_path], form=TextForm(format="jsonl")) == [tmp_path / "split00"]
    with pytest.raises(InvalidData, match=r"is nothing that a format reads.*--text_format"):
        read(tmp_path / "split00")


def test_a_format_that_nobody_knows_is_refused_with_those_that_there_are(tmp_path):
    (tmp_path / "a.tsv").write_text("1\ta\n")
    with pytest.raises(InvalidOption, match=r"--text_format: 'jsnl' is not known\. Did you mean"):
        read(tmp_path / "a.tsv", format="jsnl")
