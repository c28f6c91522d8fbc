"""A subset without a run: `--from_checkpoint` makes the run; `watch` looks at the manifest."""

import json
import subprocess
import sys

from asyncval.subsets.splitting import Choice, split

PATIENCE_SECONDS = 100.0
WORDS = ["ocean", "river", "storm", "light", "stone", "green", "music", "train", "cloud"]


def asyncval(*arguments):
    line = [sys.executable, "-m", "asyncval", *map(str, arguments)]
    return subprocess.run(
        line, capture_output=True, text=True, timeout=PATIENCE_SECONDS, check=False
    )


def write_texts(path, texts):
    lines = [json.dumps({"_id": key, "text": text}) + "\n" for key, text in texts.items()]
    path.write_text("".join(lines))


def write_collection(folder):
    """Write 60 passages, and three queries of which two have judgements."""
    passages = {f"p{i}": " ".join(WORDS[(i * k + k) % 9] for k in range(2, 7)) for i in range(60)}
    write_texts(folder / "corpus.jsonl", passages)
    write_texts(folder / "queries.jsonl", {f"q{i}": WORDS[i] for i in range(3)})
    (folder / "qrels.txt").write_text("q0 0 p58 1\nq1 0 p59 1\n")


def test_a_checkpoint_makes_the_run_that_a_subset_is_then_split_by(tmp_path, copy_of_bert):
    write_collection(tmp_path)
    done = asyncval(
        "split", "--from_checkpoint", copy_of_bert(), "--query_file", tmp_path / "queries.jsonl",
        "--candidate_dir", tmp_path / "corpus.jsonl", "--qrel_file", tmp_path / "qrels.txt",
        "--depth", 4, "--output_dir", tmp_path / "subset", "--devices", "cpu",
        "--cache_dir", tmp_path / "cache",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    run = tmp_path / "subset" / "checkpoint-1.trec"
    lines = [line.split() for line in run.read_text().splitlines()]
    assert [line[0] for line in lines] == ["q0"] * 4 + ["q1"] * 4  # q2 has no judgement
    kept = (tmp_path / "subset" / "split00.jsonl").read_text().splitlines()
    assert {json.loads(line)["_id"] for line in kept} == {line[2] for line in lines} | {
        "p58",
        "p59",
    }
    manifest = json.loads((tmp_path / "subset" / "subset.json").read_text())
    assert manifest["runs"][0]["path"] == "checkpoint-1.trec"
    assert manifest["arguments"]["from_checkpoint"].endswith("checkpoint-1")
    split(
        candidates=[tmp_path / "corpus.jsonl"],
        choice=Choice(qrel_files=[tmp_path / "qrels.txt"], run_files=[run], depths=[4]),
        output_dir=tmp_path / "again",
    )
    assert (tmp_path / "again" / "split00.jsonl").read_text().splitlines() == kept


def test_without_queries_or_with_a_bad_checkpoint_it_is_one_sentence(tmp_path, copy_of_bert):
    write_collection(tmp_path)
    checkpoint = copy_of_bert()
    flags = [
        "split", "--from_checkpoint", checkpoint, "--candidate_dir", tmp_path / "corpus.jsonl",
        "--qrel_file", tmp_path / "qrels.txt", "--output_dir", tmp_path / "subset",
        "--devices", "cpu", "--cache_dir", tmp_path / "cache",
    ]  # fmt: skip
    done = asyncval(*flags)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "give the queries with --query_file" in done.stderr
    (checkpoint / "model.safetensors").write_bytes(b"broken")
    done = asyncval(*flags, "--query_file", tmp_path / "queries.jsonl")
    assert done.returncode == 2
    assert "asyncval split: --from_checkpoint: " in done.stderr
    assert not (tmp_path / "subset").exists()


def test_a_validation_on_a_subset_says_where_the_judgements_are_others(tmp_path, copy_of_bert):
    write_collection(tmp_path)
    (tmp_path / "other.txt").write_text("q0 0 p58 1\nq2 0 p57 1\n")
    split(
        candidates=[tmp_path / "corpus.jsonl"],
        choice=Choice(qrel_files=[tmp_path / "qrels.txt"], num_random=5),
        output_dir=tmp_path / "subset",
    )
    done = asyncval(
        "eval", copy_of_bert(), "--query_file", tmp_path / "queries.jsonl",
        "--candidate_dir", tmp_path / "subset", "--qrel_file", tmp_path / "other.txt",
        "--devices", "cpu", "--cache_dir", tmp_path / "cache",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "was made for the judgements in" in done.stderr
