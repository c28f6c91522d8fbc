import gzip

import pytest

from asyncval.core.errors import InvalidData
from asyncval.core.types import TextForm
from asyncval.data.sources import read_texts


def read(path, content, columns=()):
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    form = TextForm(columns=tuple(columns))
    return list(read_texts(path, option="--candidate_dir", form=form))


def test_two_fields_are_an_id_and_a_text(tmp_path):
    texts = read(tmp_path / "a.tsv", "1\thello world\n2\t \n")
    assert [(text.id, text.title, text.content) for text in texts] == [
        ("1", "", "hello world"),
        ("2", "", " "),
    ]


def test_three_fields_are_an_id_a_title_and_a_text(tmp_path):
    [text] = read(tmp_path / "a.tsv", "1\tTitle\thello\n")
    assert (text.id, text.title, text.content) == ("1", "Title", "Title hello")


def test_quotes_and_missing_value_words_are_text(tmp_path):
    lines = ['1\t"a" said', '2\t"unclosed', "3\tNA", "NA\tnull", "5\tnan", "6\t'", "7\ta\\tb"]
    texts = read(tmp_path / "a.tsv", "\n".join(lines))
    assert [f"{text.id}\t{text.text}" for text in texts] == lines


def test_ids_keep_their_zeros(tmp_path):
    assert [text.id for text in read(tmp_path / "a.tsv", "007\ta\n1.0\tb\n")] == ["007", "1.0"]


def test_a_byte_order_mark_line_ends_of_windows_and_empty_lines_are_no_text(tmp_path):
    texts = read(tmp_path / "a.tsv", b"\xef\xbb\xbf1\ta\r\n\r\n2\tb\r\n")
    assert [(text.id, text.text) for text in texts] == [("1", "a"), ("2", "b")]


def test_a_gzipped_file_is_read(tmp_path):
    texts = read(tmp_path / "a.tsv.gz", gzip.compress(b"1\ta\n2\tb\n"))
    assert [(text.id, text.text) for text in texts] == [("1", "a"), ("2", "b")]


def test_named_columns_may_be_in_any_order_and_have_others_beside_them(tmp_path):
    texts = read(tmp_path / "a.tsv", "T\thttp\thello\t007\n", ["title", "url", "text", "docid"])
    assert [(text.id, text.content) for text in texts] == [("007", "T hello")]


def test_a_line_that_has_not_the_named_columns_is_refused_with_their_names(tmp_path):
    with pytest.raises(InvalidData, match=r"line 2: 3 tab-sep.* needs 2 \(id, text\)"):
        read(tmp_path / "a.tsv", "1\ta\n2\tb\tc\n", ["id", "text"])


def test_a_first_line_of_column_names_is_a_header(tmp_path):
    texts = read(tmp_path / "a.tsv", "_id\ttext\ttitle\n1\thello\tT\nid\ttext\tQ\n")
    assert [(text.id, text.content) for text in texts] == [("1", "T hello"), ("id", "Q text")]


def test_a_tab_at_the_end_and_an_empty_title_add_nothing(tmp_path):
    texts = read(tmp_path / "a.tsv", "1\tT\thello\t\n2\t\thello\n")
    assert [text.content for text in texts] == ["T hello", "hello"]
    assert [t.content for t in read(tmp_path / "b.tsv", "1\thello\t\n", ["id", "text"])] == [
        "hello"
    ]


@pytest.mark.parametrize("line", ["only-one", "a\tb\tc\td", "\ttext", " \ttext"])
def test_a_line_of_other_fields_is_named_with_its_file_and_number(tmp_path, line):
    with pytest.raises(InvalidData) as caught:
        read(tmp_path / "a.tsv", f"1\ta\n{line}\n")
    assert f"{str(tmp_path / 'a.tsv')!r}, line 2: " in str(caught.value)
