"""The first Asyncval's two command lines run as they are, on what its users have."""

import json
import subprocess
import sys
from pathlib import Path

from tests.e2e.conftest import PATIENCE_SECONDS


def run(*arguments: str, cwd: Path) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", *arguments],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
        check=False,
    )


def test_split_and_then_watch(collection, save_checkpoint, bert_folder, tmp_path):
    ranking = [
        f"q{q}\tp{(q * 7 + rank) % 40}\t{rank}\n" for q in range(10) for rank in range(1, 21)
    ]
    (tmp_path / "run.tsv").write_text("".join(ranking))
    done = run(
        "asyncval.splitter",
        "--candidate_dir", str(collection.corpus), "--run_file", "run.tsv",
        "--qrel_file", str(collection.qrels), "--output_dir", "subset",
        "--depth", "2", "--num_splits", "5", "--cache_dir", "cache",
        cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    files = sorted((tmp_path / "subset").glob("split*"))
    assert [path.name for path in files] == [f"split0{n}.jsonl" for n in range(5)]
    kept = [json.loads(line)["text_id"] for path in files for line in path.read_text().splitlines()]
    wanted = {f"p{(q * 7 + rank) % 40}" for q in range(10) for rank in (1, 2)}
    assert set(kept) == wanted | {f"p{q}" for q in range(10)}
    assert kept == sorted(kept, key=lambda passage_id: int(passage_id[1:]))

    # Its training saved no tokenizer with the checkpoint.
    checkpoint = save_checkpoint(50)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (checkpoint / name).unlink()
    done = run(
        "asyncval",
        "--query_file", str(collection.queries), "--candidate_dir", "subset",
        "--ckpts_dir", "training", "--tokenizer_name_or_path", str(bert_folder),
        "--qrel_file", str(collection.qrels), "--metrics", "RR@10", "nDCG@10",
        "--output_dir", "out", "--report_to", "tensorboard", "--logging_dir", "logs",
        "--depth", "10", "--per_device_eval_batch_size", "64", "--fp16",
        "--cache_dir", "cache", "--max_num_valid", "1",
        cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "so everything runs in fp32" in done.stderr
    assert len((tmp_path / "out" / "runs" / "checkpoint-50.trec").read_text().splitlines()) == 100
    assert list((tmp_path / "logs" / "asyncval").glob("events.out.tfevents.*"))


def test_token_ids_give_the_numbers_of_the_text_that_they_came_from(
    collection, save_checkpoint, bert_folder, tmp_path
):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(bert_folder)
    checkpoint = save_checkpoint(50)

    def metrics() -> dict[str, float]:
        done = run(
            "asyncval", "eval", str(checkpoint), *collection.flags(), "--json",
            "--cache_dir", "cache", "--p_max_len", "8", cwd=tmp_path,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        found: dict[str, float] = json.loads(done.stdout)[0]["metrics"]
        return found

    from_text = metrics()
    for path in (collection.queries, collection.corpus / "split00.jsonl"):
        records = [json.loads(line) for line in path.read_text().splitlines()]
        for record in records:
            record["text"] = tokenizer(record["text"], add_special_tokens=False)["input_ids"]
        path.write_text("".join(json.dumps(record) + "\n" for record in records))
    assert metrics() == from_text


def test_hyphens_are_underscores(collection, save_checkpoint, tmp_path):
    flags = [
        flag.replace("_", "-") if flag.startswith("--") else flag for flag in collection.flags()
    ]
    done = run(
        "asyncval", "eval", str(save_checkpoint(1)), *flags, "--p-max-len", "9", cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
