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
