import gzip

import pytest

from asyncval.core.errors import InvalidData
from asyncval.data.sources import read_texts


def read(path, content):
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return list(read_texts(path, option="--query_file"))


@pytest.mark.parametrize(
    "key", ["text_id", "_id", "docid", "doc_id", "query_id", "id", "sample_id"]
)
def test_every_known_key_of_an_id_is_read(tmp_path, key):
    [text] = read(tmp_path / "a.jsonl", f'{{"{key}": "007", "text": "hello"}}\n')
    assert (text.id, text.text) == ("007", "hello")


@pytest.mark.parametrize("key", ["text", "query", "query_text"])
def test_every_known_key_of_a_text_is_read(tmp_path, key):
    [text] = read(tmp_path / "a.jsonl", f'{{"_id": "7", "{key}": "hello"}}\n')
    assert text.content == "hello"


def test_a_number_as_an_id_becomes_a_string(tmp_path):
    assert read(tmp_path / "a.jsonl", '{"id": 0, "text": "a"}\n')[0].id == "0"


def test_token_ids_are_kept_as_they_are(tmp_path):
    [text] = read(tmp_path / "a.jsonl", '{"text_id": "7", "text": [5, 0, 30521]}\n')
    assert text.content == (5, 0, 30521)


def test_a_title_is_joined_to_the_text_by_one_space(tmp_path):
    texts = read(
        tmp_path / "a.jsonl",
        '{"_id": "1", "title": "T", "text": "x"}\n{"_id": "2", "title": "", "text": "x"}\n'
        '{"_id": "3", "title": null, "text": "x"}\n{"_id": "4", "title": "T", "text": ""}\n',
    )
    assert [text.content for text in texts] == ["T x", "x", "x", "T"]


def test_a_byte_order_mark_and_empty_lines_are_passed_over(tmp_path):
    content = b'\xef\xbb\xbf{"id": "1", "text": "a"}\r\n\r\n  \n\n{"id": "2", "text": "b"}'
    texts = read(tmp_path / "a.jsonl", content)
    assert [(text.id, text.text) for text in texts] == [("1", "a"), ("2", "b")]


def test_unicode_line_separators_do_not_end_a_line(tmp_path):
    [text] = read(tmp_path / "a.jsonl", '{"id": "1", "text": "a\u2028b\x85c"}\n')
    assert text.text == "a\u2028b\x85c"


def test_a_gzipped_file_is_read_whatever_its_name(tmp_path):
    content = b'{"id": "1", "text": "a"}\n{"id": "2", "text": "b"}\n'
    for name in ("a.jsonl.gz", "a.jsonl"):
        assert [text.id for text in read(tmp_path / name, gzip.compress(content))] == ["1", "2"]


def test_a_truncated_gzip_file_is_refused_with_its_name(tmp_path):
    lines = "".join(f'{{"id": "{i}", "text": "{i**5 % 7919}"}}\n' for i in range(2000)).encode()
    packed = gzip.compress(lines)
    for size in (len(packed) // 2, len(packed) - 1, len(packed) - 8, 15):
        with pytest.raises(InvalidData, match=r"a\.jsonl\.gz' breaks off or is damaged"):
            read(tmp_path / "a.jsonl.gz", packed[:size])


def test_a_damaged_gzip_file_is_refused_with_its_name(tmp_path):
    packed = bytearray(gzip.compress(b'{"id": "1", "text": "a"}\n' * 500, mtime=0))
    packed[20:40] = b"\0" * 20
    with pytest.raises(InvalidData, match=r"a\.jsonl\.gz'"):
        read(tmp_path / "a.jsonl.gz", bytes(packed))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"id": "2", "text": "a"', "not valid JSON"),
        ("id\ttext", "not valid JSON"),
        ('["2", "a"]', "needed on each line, not a list"),
        ('"a"', "needed on each line, not a str"),
        ('{"text": "a"}', "no id"),
        ('{"id": null, "text": "a"}', "no id"),
        ('{"id": "", "text": "a"}', "no id"),
        ('{"id": true, "text": "a"}', "no id"),
        ('{"id": 1.5, "text": "a"}', "no id"),
        ('{"id": ["1"], "text": "a"}', "no id"),
        ('{"id": "2"}', "no text"),
        ('{"id": "2", "text": null}', "no text"),
        ('{"id": "2", "text": 3}', "no text"),
        ('{"id": "2", "text": [1, -2]}', "no text"),
        ('{"id": "2", "text": [1, true]}', "no text"),
        ('{"id": "2", "text": ["a"]}', "no text"),
        ('{"id": "2", "text": "a", "title": 3}', '"title" is 3'),
    ],
)
def test_a_line_that_cannot_be_read_is_named_with_its_file_and_number(tmp_path, line, message):
    with pytest.raises(InvalidData) as caught:
        read(tmp_path / "a.jsonl", f'{{"id": "1", "text": "a"}}\n\n{line}\n')
    assert f"{str(tmp_path / 'a.jsonl')!r}, line 3: " in str(caught.value)
    assert message in str(caught.value)


def test_a_json_array_in_one_file_is_refused_in_words(tmp_path):
    with pytest.raises(InvalidData, match="line 1: a JSON object is needed on each line"):
        read(tmp_path / "a.json", '[{"id": "1", "text": "a"}]')


def test_bytes_that_are_not_utf_8_are_named_with_their_line(tmp_path):
    with pytest.raises(InvalidData, match="line 2: not UTF-8"):
        read(tmp_path / "a.jsonl", b'{"id": "1", "text": "a"}\n{"id": "2", "text": "\xe9"}\n')
