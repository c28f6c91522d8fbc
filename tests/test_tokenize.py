import json

import pytest

from asyncval.cli import main
from tests.models import make_sentences


@pytest.fixture
def flags(tmp_path):
    """The flags that name a small collection and a cache."""
    files = {"--query_file": "queries", "--candidate_dir": "corpus"}
    for name in files.values():
        rows = [{"text_id": f"{i}", "text": each} for i, each in enumerate(make_sentences(9))]
        (tmp_path / f"{name}.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    (tmp_path / "qrels.tsv").write_text("1\t0\t1\t1\n")
    words = [w for flag, name in files.items() for w in (flag, str(tmp_path / f"{name}.jsonl"))]
    more = {"--qrel_file": tmp_path / "qrels.tsv", "--cache_dir": tmp_path / "cache"}
    words += [word for flag, path in more.items() for word in (flag, str(path))]
    return [*words, "--p_max_len", "30", "--q_max_len", "20"]


def stores(tmp_path):
    return {path.name: path.stat().st_ino for path in (tmp_path / "cache" / "tokens").iterdir()}


@pytest.mark.parametrize("by", ["checkpoint", "tokenizer"])
def test_what_was_tokenised_ahead_of_time_is_found_by_a_validation(
    bert_folder, flags, tmp_path, by
):
    source = {
        "checkpoint": [str(bert_folder)],
        "tokenizer": ["--tokenizer_name_or_path", str(bert_folder)],
    }
    assert main(["tokenize", *source[by], *flags]) == 0
    made = stores(tmp_path)
    assert len(made) == 2
    assert main(["eval", str(bert_folder), *flags, "--devices", "cpu", "--profile"]) == 0
    assert stores(tmp_path) == made


def test_without_checkpoint_and_tokenizer_it_says_what_to_give(flags, capsys):
    assert main(["tokenize", *flags]) == 2
    assert "--tokenizer_name_or_path" in capsys.readouterr().err
    assert main(["tokenize", "no-such-folder", *flags]) == 2
    assert "no-such-folder" in capsys.readouterr().err
