import json

import pytest

from asyncval.core.errors import InvalidData, InvalidOption
from asyncval.core.types import TextForm
from asyncval.data.sources import read_texts
from asyncval.data.texts import PRESETS, check_form


def contents(folder, *records, **form):
    path = folder / "a.jsonl"
    path.write_text("".join(json.dumps({"_id": str(i), **r}) + "\n" for i, r in enumerate(records)))
    texts = read_texts(path, option="--candidate_dir", form=TextForm(**form))
    return [text.content for text in texts]


def test_columns_of_any_name_go_where_the_template_has_them(tmp_path):
    record = {"headline": "H", "body": "B", "year": 1999, "rank": 0.5}
    template = "<headline> (<year>, <rank>): <body><body>"
    assert contents(tmp_path, record, template=template) == ["H (1999, 0.5): BB"]


def test_a_text_with_a_marker_in_it_is_not_filled_again(tmp_path):
    record = {"title": "<text> of <title>", "text": "<title>"}
    assert contents(tmp_path, record, template="Title: <title> Text: <text>") == [
        "Title: <text> of <title> Text: <title>"
    ]


def test_a_marker_may_go_down_into_nested_objects(tmp_path):
    record = {"doc": {"text": {"plain": "deep"}}}
    assert contents(tmp_path, record, template="<doc.text.plain>") == ["deep"]
    with pytest.raises(InvalidData, match=r"line 1: the template has <doc\.body>"):
        contents(tmp_path, record, template="<doc.body>")


def test_null_is_empty_and_a_missing_column_is_an_error_with_its_line(tmp_path):
    assert contents(tmp_path, {"title": None, "text": "x"}, template="<title>|<text>") == ["|x"]
    records = {"title": "T", "text": "x"}, {"text": "y"}
    with pytest.raises(InvalidData) as caught:
        contents(tmp_path, *records, template="<title> <text>")
    assert str(caught.value) == (
        f"{str(tmp_path / 'a.jsonl')!r}, line 2: the template has <title>, and there is no such "
        "column. There are _id, text."
    )


def test_a_backslash_and_an_n_in_a_template_are_a_line_end_and_in_a_text_are_not(tmp_path):
    assert contents(tmp_path, {"text": "a\\nb"}, template=r"Text:\n<text>") == ["Text:\na\\nb"]


def test_a_lone_bracket_in_a_template_is_text(tmp_path):
    assert contents(tmp_path, {"text": "x"}, template="a < b: <text> >") == ["a < b: x >"]


@pytest.mark.parametrize("template", ["<text>", *PRESETS])
def test_token_ids_cannot_be_put_into_a_template(tmp_path, template):
    with pytest.raises(InvalidData, match="line 1: "):
        contents(tmp_path, {"text": [1, 2]}, template=template)


def test_an_object_is_no_text_of_a_template(tmp_path):
    with pytest.raises(InvalidData, match="<text> is no text but a dict"):
        contents(tmp_path, {"text": {"a": 1}}, template="<text>")


TITLED = {"title": " A title", "text": "x "}
ASKED = {"title": "Who?", "text": "x"}
EMPTY = {"title": "", "text": "x"}
NO_TITLE = {"text": " x"}


@pytest.mark.parametrize(
    ("preset", "expected"),
    [
        (None, ["A title x", "Who? x", "x", " x"]),
        ("tevatron", ["A title x", "Who? x", "x", "x"]),
        ("tevatron_v1", [" A title x ", "Who? x", " x", " x"]),
        ("tevatron_v1.5", ["A title x", "Who? x", "x", "x"]),
        ("openmatch", [" A title[SEP]x ", "Who?[SEP]x", "[SEP]x", " x"]),
        ("retromae", [" A title[SEP]x ", "Who?[SEP]x", "[SEP]x", " x"]),
        ("disentangled_retriever", [" A title. x ", "Who? x", ". x", " x"]),
    ],
)
def test_presets_join_title_and_text_as_their_toolkits_do(tmp_path, preset, expected):
    assert contents(tmp_path, TITLED, ASKED, EMPTY, NO_TITLE, template=preset) == expected


@pytest.mark.parametrize(
    ("form", "message"),
    [
        (TextForm(template="Title:"), "--doc_template 'Title:': there is no <column>"),
        (TextForm(template="tevatrom", is_query=True), "--query_template .*presets tevatron, "),
        (TextForm(columns=("title", "text")), "--doc_column_names title,text: none of them is"),
        (TextForm(columns=("id", "text", "text")), "a name of its own"),
        (TextForm(columns=("id", ""), is_query=True), "--query_column_names id,: give each"),
    ],
)
def test_a_form_that_cannot_be_meant_is_refused_before_anything_is_read(form, message):
    with pytest.raises(InvalidOption, match=message):
        check_form(form)
