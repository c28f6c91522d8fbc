"""`trainer encode`: vectors in shards."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest

from asyncval.cli import main as asyncval
from tests.models import save_huggingface
from tests.trainer.collections import NUM_PASSAGES, write_collection
from trainer.__main__ import main


@pytest.fixture
def files(tmp_path):
    return write_collection(tmp_path / "data")


@pytest.fixture
def encode(bert_folder, files, tmp_path):
    """Encode the corpus, or what the flags say; return the exit code."""

    def run(*flags, output="vectors", side=("--candidate_dir",)):
        side = (*side, files.corpus) if side == ("--candidate_dir",) else side
        words = [
            "encode", "--model_name_or_path", bert_folder, "--pooling", "mean", *side,
            "--encoded_save_path", tmp_path / output, "--cache_dir", tmp_path / "cache",
            "--devices", "cpu", *flags,
        ]  # fmt: skip
        return main([str(word) for word in words])

    return run


def read(folder, stem):
    ids = (folder / f"{stem}.ids.txt").read_text().splitlines()
    return dict(zip(ids, np.load(folder / f"{stem}.npy"), strict=True)), ids


def test_vectors_equal_those_of_asyncval_eval(encode, files, bert_folder, tmp_path):
    assert encode("--query_file", files.queries) == 0
    flags = [
        "eval", bert_folder, "--pooling", "mean", "--query_file", files.queries,
        "--candidate_dir", files.corpus, "--qrel_file", files.qrels, "--output_dir",
        tmp_path / "eval", "--cache_dir", tmp_path / "cache", "--write_embeddings",
        "--devices", "cpu",
    ]  # fmt: skip
    assert asyncval([str(flag) for flag in flags]) == 0
    for side in ("passages", "queries"):
        found, ids = read(tmp_path / "vectors", f"{side}-0-of-1")
        expected, expected_ids = read(
            tmp_path / "eval" / "embeddings", f"{bert_folder.name}.{side}"
        )
        assert ids == expected_ids
        np.testing.assert_array_equal(
            np.array([found[each] for each in ids]), np.array([expected[each] for each in ids])
        )


@pytest.mark.parametrize("portion", [65536, 25])
def test_shards_together_equal_the_whole_to_the_last_bit(encode, tmp_path, monkeypatch, portion):
    monkeypatch.setattr("asyncval.retrieval.encode.CPU_TEXTS", portion)
    size = ("--per_device_eval_batch_size", "7")
    assert encode(*size, output="whole") == 0
    for index in range(3):
        assert encode(*size, "--encode_num_shard", "3", "--encode_shard_index", str(index)) == 0
    whole, _ = read(tmp_path / "whole", "passages-0-of-1")
    shards = [read(tmp_path / "vectors", f"passages-{index}-of-3")[0] for index in range(3)]
    assert sum(map(len, shards)) == len(whole) == NUM_PASSAGES
    assert min(map(len, shards)) > NUM_PASSAGES / 3 - 10
    for shard in shards:
        assert all((whole[each] == vector).all() for each, vector in shard.items())


def test_several_devices_write_a_shard_each(encode, tmp_path):
    assert encode(output="whole") == 0
    flags = ("--per_device_eval_batch_size", "7", "--devices", "cpu", "cpu")
    assert encode(*flags, "--encode_num_shard", "2", "--encode_shard_index", "1") == 0
    names = sorted(path.name for path in (tmp_path / "vectors").glob("*.npy"))
    assert names == ["passages-2-of-4.npy", "passages-3-of-4.npy"]
    whole, _ = read(tmp_path / "whole", "passages-0-of-1")
    for index in (2, 3):
        shard, _ = read(tmp_path / "vectors", f"passages-{index}-of-4")
        for each, vector in shard.items():
            np.testing.assert_allclose(vector, whole[each], atol=1e-5)


def test_a_shard_that_is_there_is_not_written_again(encode, tmp_path, caplog):
    caplog.set_level("INFO")
    assert encode() == 0
    path = tmp_path / "vectors" / "passages-0-of-1.npy"
    before = path.stat()
    assert encode() == 0
    assert path.stat() == before
    assert "is there already" in caplog.text
    assert encode("--overwrite") == 0
    assert path.stat().st_mtime_ns > before.st_mtime_ns


def test_a_killed_run_leaves_no_shard_and_the_next_one_writes_it(
    encode, bert_folder, files, tmp_path
):
    """It is killed when its vectors are written, but not yet renamed."""
    script = (
        "import os, signal, trainer.shards as shards; "
        "shards.Shard._write_text = lambda *_: os.kill(os.getpid(), signal.SIGKILL); "
        "from trainer.__main__ import main; main()"
    )
    flags = [
        "encode", "--model_name_or_path", bert_folder, "--pooling", "mean", "--candidate_dir",
        files.corpus, "--encoded_save_path", tmp_path / "vectors", "--cache_dir",
        tmp_path / "cache", "--devices", "cpu",
    ]  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", script, *map(str, flags)],
        check=False, timeout=60, env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == -9
    assert not (tmp_path / "vectors" / "passages-0-of-1.npy").exists()
    assert encode() == 0
    assert not list((tmp_path / "vectors").glob(".*"))
    assert len(read(tmp_path / "vectors", "passages-0-of-1")[0]) == NUM_PASSAGES


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["--encode_shard_index", "1"], "--encode_shard_index is 1. With --encode_num_shard 1 it "),
        (["--query_file", "q.tsv"], "'q.tsv' cannot be read: No such file"),
        (["--model_name_or_path", "nowhere"], "--model_name_or_path: there is no folder 'nowhere'"),
        (["--model_name_or_path", "."], "--model_name_or_path '.': '"),
        (["--candidate_dir", "nowhere"], "--candidate_dir: there is no file 'nowhere'."),
        (["--devices", "cuda:0"], "--devices: cuda:0 is not there"),
        (["--doc_template", "words"], "--doc_template 'words': there is no <column> in it"),
        (["--q_max_len", "0"], "--q_max_len 0: give 1 or more."),
        (
            ["--encode_num_shard", "99", "--encode_shard_index", "98"],
            "Shard 98 of 99 has nothing to do: there are only 60 passages. Use fewer",
        ),
    ],
)
def test_what_cannot_be_done_is_one_sentence_and_code_2(encode, capfd, flags, sentence):
    assert encode(*flags) == 2
    lines = [line for line in capfd.readouterr().err.splitlines() if " trainer " not in line]
    assert len(lines) == 1
    assert sentence in lines[0]


def test_vectors_of_another_model_are_not_taken_for_these(encode, tmp_path, capfd):
    assert encode() == 0
    other = save_huggingface(tmp_path / "other", seed=9)
    assert encode("--model_name_or_path", other) == 2
    assert "is there already, with another model. Give another" in capfd.readouterr().err


def test_a_shard_says_where_it_comes_from(encode, tmp_path):
    assert encode("--passage_prefix", "music ") == 0
    about = json.loads((tmp_path / "vectors" / "passages-0-of-1.json").read_text())
    assert about["passage_prefix"] == "music "
    assert about["precision"] == "fp32"
    assert len(about["model"]) == len(about["texts"]) == 64


def test_what_is_assumed_is_said_once(files, caplog, bert_folder, tmp_path):
    flags = ["encode", "--model_name_or_path", bert_folder, "--query_file", files.queries,
             "--candidate_dir", files.corpus, "--encoded_save_path", tmp_path / "vectors",
             "--cache_dir", tmp_path / "cache", "--devices", "cpu"]  # fmt: skip
    assert main([str(flag) for flag in flags]) == 0
    assert caplog.text.count("--pooling cls is assumed") == 1
    assert caplog.text.count("--p_max_len 128 became 40") == 1
