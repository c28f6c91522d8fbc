"""Checkpoints of our own trainer need no flag but the data."""

import json
import shutil
import subprocess
import sys

import pytest

from tests.e2e.conftest import PATIENCE_SECONDS, asyncval
from trainer.checkpoint import TextSettings, save_checkpoint
from trainer.model import BiEncoder, Tower, load_transformer
from trainer.tokenizer import load_tokenizer


@pytest.mark.parametrize(
    "model_flags",
    [
        ["--pooling", "mean", "--normalize"],
        ["--pooling", "last", "--projection_dim", "8", "--lora", "--lora_r", "4"],
        ["--pooling", "mean", "--projection_dim", "8", "--untie_encoder"],
    ],
    ids=["plain", "adapter and head", "two towers"],
)
def test_every_checkpoint_of_a_training_is_validated(
    bert_folder, collection, tmp_path, model_flags
):
    if "--lora" in model_flags:
        pytest.importorskip("peft", reason="peft is not installed")
    passages = [
        json.loads(line) for line in (collection.corpus / "split00.jsonl").read_text().splitlines()
    ]
    examples = [{"query": p["text"][:20], "positive": p["text"]} for p in passages]
    (tmp_path / "train.jsonl").write_text("".join(json.dumps(e) + "\n" for e in examples))
    done = subprocess.run(
        [
            sys.executable, "-m", "trainer", "train", "--model_name_or_path", str(bert_folder),
            "--train_file", str(tmp_path / "train.jsonl"), "--train_n_passages", "1",
            "--output_dir", str(tmp_path / "training"), "--max_steps", "4", "--save_steps", "2",
            "--q_max_len", "16", "--p_max_len", "32", "--per_device_train_batch_size", "8",
            "--report_to", "none", *model_flags,
        ],
        capture_output=True, text=True, timeout=PATIENCE_SECONDS, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    done = asyncval(
        "watch", *collection.flags(), "--ckpts_dir", str(tmp_path / "training"),
        "--output_dir", str(tmp_path / "out"), "--cache_dir", str(tmp_path / "cache"),
        "--max_num_valid", "2",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    lines = (tmp_path / "out" / "results.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    assert [(row["step"], row["status"]) for row in rows] == [(2, "done"), (4, "done")]
    said = [warning for row in rows for warning in row["warnings"]]
    assert not any("assumed" in warning for warning in said)


def test_a_template_of_the_training_is_missed_where_it_is_not_used(
    bert_folder, collection, tmp_path
):
    checkpoint = shutil.copytree(bert_folder, tmp_path / "checkpoint-1")
    texts = TextSettings(q_max_len=16, p_max_len=32, doc_template="Text: <text>")
    tower = Tower(load_transformer(str(bert_folder)), pooling="mean", projection_dim=None)
    save_checkpoint(
        checkpoint, model=BiEncoder(tower), tokenizer=load_tokenizer(str(bert_folder)), texts=texts
    )

    def warnings(*more):
        done = asyncval(
            "eval", str(checkpoint), *collection.flags(), *more, "--json",
            "--output_dir", str(tmp_path / f"out-{len(more)}"),
            "--cache_dir", str(tmp_path / "cache"),
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)[0]["warnings"]

    missed = "--doc_template was 'Text: <text>' in training, and is none here."
    assert warnings() == [missed]
    assert warnings("--doc_template", "Text: <text>") == []
