"""Trains a small retriever from a poor start in three ways, each of whose checkpoints is validated.

    python bench/learning.py --data SCIFACT --teacher MODEL --work_dir work --json learning.json

SCIFACT is a folder in BEIR's form with qrels/train.tsv and qrels/test.tsv; the teacher is a folder
that transformers reads, such as all-MiniLM-L6-v2. The student is its first layers, which retrieve
little as they stand, or `--student MODEL`. BM25 gives the first negatives. All training and mining
is by `python -m trainer`, and `--asyncval` starts the daemon beside each training. What is in the
work folder already is not made anew. It prints the tables of docs/learning.md.
"""

import argparse
import json
import math
import os
import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

MEASURES = ("nDCG@10", "RR@10")
NUM_CHECKPOINTS = 3
NUM_NEGATIVES = 10
Q_MAX_LEN, P_MAX_LEN = 32, 64
TEMPERATURE = 0.05
RECIPE: dict[str, object] = {
    "pooling": "mean",
    "normalize": True,
    "temperature": TEMPERATURE,
    "q_max_len": Q_MAX_LEN,
    "p_max_len": P_MAX_LEN,
    "train_n_passages": 4,
    "per_device_train_batch_size": 16,
    "warmup_steps": 6,
    "logging_steps": 10,
    "save_only_model": True,
    "use_cpu": True,
}
TEACHING = {"objective": "kl", "teacher_temp": TEMPERATURE, "contrastive_loss_weight": 3.0}


def run(*words: object, **flags: object) -> str:
    """Run one of our commands to its end and return what it printed."""
    line = [sys.executable, "-m", *map(str, words)]
    for name, value in flags.items():
        values = value if isinstance(value, list | tuple) else [value]
        line += [f"--{name}"] if value is True else [f"--{name}", *map(str, values)]
    done = subprocess.run(
        line,
        env=os.environ | {"HF_HUB_OFFLINE": "1"},
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    if done.returncode:
        sys.exit(f"`{' '.join(line[1:4])} ...` ended with code {done.returncode}.")
    return done.stdout


def records(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the objects of a JSON lines file."""
    with path.open(encoding="utf-8") as file:
        yield from map(json.loads, file)


def judged(path: Path) -> dict[str, set[str]]:
    """Return the relevant passages of each query in BEIR's judgements."""
    relevant: dict[str, set[str]] = {}
    for line in path.read_text("utf-8").splitlines()[1:]:
        query, passage, grade = line.split("\t")
        if int(grade) > 0:
            relevant.setdefault(query, set()).add(passage)
    return relevant


def words_of(text: str) -> list[str]:
    """Return the words that BM25 compares."""
    return re.findall(r"[a-z0-9]+", text.lower())


class BM25:
    """Okapi's formula (k1 0.9, b 0.4) over a corpus in memory."""

    def __init__(self, passages: dict[str, str]) -> None:
        counts = {each: Counter(words_of(text)) for each, text in passages.items()}
        lengths = {each: sum(found.values()) for each, found in counts.items()}
        mean = sum(lengths.values()) / len(lengths)
        self.postings: dict[str, list[tuple[str, float]]] = {}
        for each, found in counts.items():
            norm = 0.9 * (0.6 + 0.4 * lengths[each] / mean)
            for word, count in found.items():
                self.postings.setdefault(word, []).append((each, count / (count + norm)))
        self.num_passages = len(passages)

    def best(self, query: str, *, number: int) -> list[str]:
        """Return the ids of the best passages, best first."""
        scores: Counter[str] = Counter()
        for word in words_of(query):
            found = self.postings.get(word, [])
            rarity = math.log(1 + (self.num_passages - len(found) + 0.5) / (len(found) + 0.5))
            for each, weight in found:
                scores[each] += rarity * weight
        return [each for each, _ in scores.most_common(number)]


def prepare(options: argparse.Namespace) -> None:
    """Write the queries of each side, the negatives of BM25 and the options of the daemon."""
    data, work = options.data, options.work_dir
    work.mkdir(parents=True, exist_ok=True)
    relevant = {side: judged(data / "qrels" / f"{side}.tsv") for side in ("train", "test")}
    for side, queries in relevant.items():
        with (work / f"{side}-queries.jsonl").open("w") as file:
            for record in records(data / "queries.jsonl"):
                if record["_id"] in queries:
                    file.write(json.dumps(record) + "\n")
    passages = {
        record["_id"]: f"{record.get('title', '')} {record['text']}"
        for record in records(data / "corpus.jsonl")
    }
    index = BM25(passages)
    with (work / "bm25.tsv").open("w") as file:
        for record in records(work / "train-queries.jsonl"):
            known = relevant["train"][record["_id"]]
            best = index.best(record["text"], number=NUM_NEGATIVES + len(known))
            negatives = [each for each in best if each not in known][:NUM_NEGATIVES]
            file.write(f"{record['_id']}\t{','.join(negatives)}\n")
    (work / "asyncval.yaml").write_text(
        f"query_file: [{work / 'test-queries.jsonl'}]\n"
        f"candidate_dir: [{data / 'corpus.jsonl'}]\n"
        f"qrel_file: [{data / 'qrels' / 'test.tsv'}]\n"
        f"metrics: [{', '.join(MEASURES)}]\n"
        f"q_max_len: {Q_MAX_LEN}\np_max_len: {P_MAX_LEN}\n"
        f"cache_dir: {work / 'cache'}\ndevices: [cpu]\n"
    )


def make_student(options: argparse.Namespace) -> Path:
    """Write the first layers of the teacher, unless a student is given."""
    if options.student:
        return Path(options.student)
    from transformers import AutoModel, AutoTokenizer

    folder: Path = options.work_dir / "student"
    if not folder.exists():
        model = AutoModel.from_pretrained(options.teacher)
        model.encoder.layer = model.encoder.layer[: options.num_layers]
        model.config.num_hidden_layers = options.num_layers
        model.save_pretrained(folder)
        AutoTokenizer.from_pretrained(options.teacher).save_pretrained(folder)
    return folder


def write_scores(options: argparse.Namespace) -> Path:
    """Write the teacher's score of each query with its positives and its negatives of BM25."""
    work: Path = options.work_dir
    path = work / "teacher-scores.txt"
    if path.exists():
        return path
    from asyncval.api import EncodingConfig, TextEncoder

    pairs = {
        query: list(found) for query, found in judged(options.data / "qrels/train.tsv").items()
    }
    for line in (work / "bm25.tsv").read_text().splitlines():
        query, _, negatives = line.partition("\t")
        pairs[query] += negatives.split(",")
    wanted = {each for found in pairs.values() for each in found}
    with (work / "scored.jsonl").open("w") as file:
        for record in records(options.data / "corpus.jsonl"):
            if record["_id"] in wanted:
                file.write(json.dumps(record) + "\n")
    config = EncodingConfig(cache_dir=work / "cache", q_max_len=Q_MAX_LEN, p_max_len=P_MAX_LEN)
    teacher = TextEncoder(options.teacher, config, device="cpu")
    vectors = {}
    for is_query, name in ((True, "train-queries.jsonl"), (False, "scored.jsonl")):
        tokens = teacher.tokenize([work / name], is_query=is_query)
        found = teacher.encode(tokens, is_query=is_query)
        vectors[is_query] = dict(zip(list(tokens.text_ids), found, strict=True))
    partial = path.with_suffix(".partial")
    with partial.open("w") as file:
        for query, passages in pairs.items():
            for each in passages:
                score = float(vectors[True][query] @ vectors[False][each])
                file.write(f"{query} {each} {score:.6f}\n")
    partial.replace(path)
    return path


def train(
    options: argparse.Namespace, name: str, *, start: Path, steps: int, **flags: object
) -> Path:
    """Train and validate; return the folder of the last checkpoint."""
    folder: Path = options.work_dir / name
    if not (folder / f"checkpoint-{steps}").exists():
        started = time.monotonic()
        run(
            "trainer", "train", model_name_or_path=start, output_dir=folder,
            train_qrels=options.data / "qrels" / "train.tsv",
            train_query_file=options.work_dir / "train-queries.jsonl",
            corpus_file=options.data / "corpus.jsonl",
            asyncval=options.work_dir / "asyncval.yaml",
            max_steps=steps, save_steps=max(1, steps // NUM_CHECKPOINTS), seed=options.seed,
            **{**RECIPE, "learning_rate": options.learning_rate, **flags},
        )  # fmt: skip
        (folder / "seconds").write_text(f"{time.monotonic() - started:.0f}")
    return folder / f"checkpoint-{steps}"


def mine(options: argparse.Namespace, checkpoint: Path) -> Path:
    """Write the negatives that a checkpoint ranks high."""
    path: Path = options.work_dir / "mined.tsv"
    if not path.exists():
        run(
            "trainer", "mine", model_name_or_path=checkpoint, form="commas", output_file=path,
            qrel_file=options.data / "qrels" / "train.tsv",
            query_file=options.work_dir / "train-queries.jsonl",
            candidate_dir=options.data / "corpus.jsonl",
            depth_range=(1, 30), num_negatives=NUM_NEGATIVES, q_max_len=Q_MAX_LEN,
            p_max_len=P_MAX_LEN, cache_dir=options.work_dir / "cache", device="cpu",
        )  # fmt: skip
    return path


def score_start(options: argparse.Namespace, student: Path) -> dict[str, float]:
    """Return the measures of the untrained student."""
    path: Path = options.work_dir / "start.json"
    if not path.exists():
        found = run(
            "asyncval", "eval", student, config=options.work_dir / "asyncval.yaml",
            output_dir=options.work_dir / "start-validation", pooling="mean", normalize=True,
            json=True,
        )  # fmt: skip
        path.write_text(found)
    measured: dict[str, float] = json.loads(path.read_text())[0]["metrics"]
    return measured


def results(output: Path) -> list[dict[str, Any]]:
    """Return step, measures and seconds of what the daemon validated, ascending by step."""
    found = json.loads(run("asyncval", "results", "--json", output_dir=output))
    return [{name: each[name] for name in ("step", "metrics", "seconds")} for each in found]


def main() -> None:
    """Train, validate and print the tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--teacher", type=Path, required=True)
    parser.add_argument("--student")
    parser.add_argument("--num_layers", type=int, default=3, help="of the teacher, for the student")
    parser.add_argument("--work_dir", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--learning_rate", type=float, default=2e-4)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    for name in ("data", "teacher", "work_dir"):
        setattr(options, name, getattr(options, name).absolute())
    started = time.monotonic()
    prepare(options)
    student = make_student(options)
    steps, bm25 = options.steps, options.work_dir / "bm25.tsv"
    begin = score_start(options, student)
    first = train(options, "contrastive", start=student, steps=steps, neg_file=bm25)
    train(
        options, "distilled", start=student, steps=steps, neg_file=bm25,
        teacher_score_files=write_scores(options), **TEACHING,
    )  # fmt: skip
    train(
        options, "mined", start=first, steps=steps // 2, neg_file=mine(options, first),
        learning_rate=options.learning_rate / 4,
    )  # fmt: skip
    report(options, begin, seconds=time.monotonic() - started)


def report(options: argparse.Namespace, begin: dict[str, float], *, seconds: float) -> None:
    """Print a row for each checkpoint, and what follows from the last ones."""
    print("| training | step | " + " | ".join(MEASURES) + " |")
    print("| --- | ---: |" + " ---: |" * len(MEASURES))
    print("| start | 0 | " + " | ".join(f"{begin[name]:.4f}" for name in MEASURES) + " |")
    last, found = {}, {}
    for name in ("contrastive", "distilled", "mined"):
        found[name] = results(options.work_dir / f"{name}-validation")
        for each in found[name]:
            values = " | ".join(f"{each['metrics'][measure]:.4f}" for measure in MEASURES)
            print(f"| {name} | {each['step']} | {values} |")
        last[name] = found[name][-1]["metrics"][MEASURES[0]]
    start = begin[MEASURES[0]]
    num_saved = sum(len(list((options.work_dir / name).glob("checkpoint-*"))) for name in found)
    num_validated = sum(map(len, found.values()))
    claims = {
        f"contrastive is {last['contrastive'] / start:.2f} times the start": last["contrastive"]
        >= 2 * start,
        f"mined is {last['mined'] - last['contrastive']:+.4f} to contrastive": last["mined"]
        >= last["contrastive"],
        f"distilled is {last['distilled'] - last['contrastive']:+.4f} to contrastive": last[
            "distilled"
        ]
        > last["contrastive"],
        f"{num_validated} of {num_saved} checkpoints were validated": num_validated == num_saved,
    }
    print()
    for claim, holds in claims.items():
        print(f"- {claim}: {'as wanted' if holds else 'NOT as wanted'}")
    print(f"\n{seconds / 60:.1f} minutes.")
    if options.json:
        content = {"start": begin, "results": found, "claims": claims, "seconds": seconds}
        options.json.write_text(json.dumps(content, indent=2) + "\n")


if __name__ == "__main__":
    main()
