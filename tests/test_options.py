import pytest

from asyncval.config import EvalConfig
from asyncval.core.errors import InvalidOption
from asyncval.options import parse


def test_a_number_is_a_name_and_a_bare_no_is_refused(tmp_path):
    path = tmp_path / "options.yaml"
    path.write_text("query_file: 7\ncandidate_dir: corpus\nqrel_file: qrels.txt\n")
    config = parse(EvalConfig, ["--config", str(path), "out"], command="eval")
    assert [str(each) for each in config.query_file] == ["7"]
    path.write_text("query_file: no\n")
    with pytest.raises(InvalidOption, match="query_file: False is not of the type Path"):
        parse(EvalConfig, ["--config", str(path), "out"], command="eval")


def test_a_configuration_file_knows_the_spellings_of_the_flags(tmp_path):
    path = tmp_path / "options.yaml"
    path.write_text("query_files: [a, b]\nqrel-files: qrels.txt\n")
    config = parse(EvalConfig, ["--config", str(path), "out"], command="eval")
    assert [str(each) for each in config.query_file] == ["a", "b"]
    assert [str(each) for each in config.qrel_file] == ["qrels.txt"]
    path.write_text("query_files: a\nquery_file: b\n")
    with pytest.raises(InvalidOption, match="'query_file' in two spellings"):
        parse(EvalConfig, ["--config", str(path), "out"], command="eval")


def test_a_configuration_file_that_is_not_utf_8_is_refused(tmp_path):
    path = tmp_path / "options.yaml"
    path.write_bytes("run_name: größer\n".encode("latin-1"))
    with pytest.raises(InvalidOption, match=r"options.yaml' is not UTF-8"):
        parse(EvalConfig, ["--config", str(path), "out"], command="eval")
