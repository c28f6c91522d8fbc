"""Trains a retriever, validates it on the full corpus and on subsets, and compares the results.

    python bench/fidelity.py --model MODEL --data_dir COLLECTION --run_file BM25.trec \
        --negatives_file NEGATIVES.jsonl --work_dir work --plot docs/subsets.png

COLLECTION is in BEIR's layout: corpus.jsonl, queries.jsonl, qrels/test.tsv. A line of NEGATIVES
is {"query": text, "positive_ids": [...], "negative_ids": [...]}. What is in the work folder
already is not made anew. It prints the tables of docs/subsets.md.
"""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

DEPTHS = (1, 5, 10, 50, 100)
OWN_DEPTHS = (1, 5, 10)
MEASURES = ("RR@10", "nDCG@10")
NUM_CHECKPOINTS = 15
RECIPE: dict[str, object] = {
    "pooling": "mean",
    "normalize": True,
    "temperature": 0.05,
    "train_n_passages": 2,
    "per_device_train_batch_size": 32,
    "learning_rate": 1e-3,
    "lr_scheduler_type": "constant",
    "max_steps": 30 * NUM_CHECKPOINTS,
    "save_steps": 30,
    "seed": 1,
    "report_to": "none",
    "use_cpu": True,
}


def run(*words: object, **flags: object) -> str:
    """Run one of our commands to its end and return what it printed."""
    line = [sys.executable, "-m", *map(str, words)]
    for name, value in flags.items():
        values = value if isinstance(value, list | tuple) else [value]
        line += [f"--{name}"] if value is True else [f"--{name}", *map(str, values)]
    environment = os.environ | {"HF_HUB_OFFLINE": "1"}
    done = subprocess.run(line, env=environment, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        sys.exit(f"`{' '.join(line[1:4])} ...` ended with code {done.returncode}.")
    return done.stdout


def records(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the objects of a JSON lines file."""
    with path.open(encoding="utf-8") as file:
        yield from map(json.loads, file)


def train(options: argparse.Namespace) -> Path:
    """Train once; return the folder of the checkpoints."""
    folder: Path = options.work_dir / "training"
    if folder.exists():
        return folder
    texts = {
        record["_id"]: f"{record.get('title', '')} {record['text']}".strip()
        for record in records(options.data_dir / "corpus.jsonl")
    }
    examples = options.work_dir / "train.jsonl"
    with examples.open("w", encoding="utf-8") as file:
        for record in records(options.negatives_file):
            example = {
                "query": record["query"],
                "positives": [texts[each] for each in record["positive_ids"] if each in texts],
                "negatives": [texts[each] for each in record["negative_ids"] if each in texts],
            }
            file.write(json.dumps(example) + "\n")
    run(
        "trainer", "train", model_name_or_path=options.model, train_file=examples,
        output_dir=folder, **RECIPE,
    )  # fmt: skip
    return folder


def split(options: argparse.Namespace, training: Path) -> dict[str, dict[str, Any]]:
    """Make all subsets; return their manifests.

    Those of the run at each depth, random ones of the same sizes, and those of the run that
    the last checkpoint makes itself.
    """
    manifests = {}
    corpus, qrels = options.data_dir / "corpus.jsonl", options.data_dir / "qrels" / "test.tsv"
    flags: dict[str, Any] = {"candidate_dir": corpus, "qrel_file": qrels}
    for depth in DEPTHS:
        chosen = manifest(
            options.work_dir / f"depth {depth}", run_file=options.run_file, depth=depth, **flags
        )
        num_others = chosen["num_kept"] - chosen["sources"]["relevant"]["found"]
        manifests[f"depth {depth}"] = chosen
        manifests[f"random {depth}"] = manifest(
            options.work_dir / f"random {depth}", random=num_others, seed=depth, **flags
        )
    last = max(training.glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1]))
    flags |= {"from_checkpoint": last, "query_file": options.data_dir / "queries.jsonl"}
    flags |= {"devices": "cpu", "cache_dir": options.work_dir / "cache"}
    for depth in OWN_DEPTHS:
        manifests[f"own {depth}"] = manifest(
            options.work_dir / f"own {depth}", depth=depth, **flags
        )
    return manifests


def manifest(folder: Path, **flags: object) -> dict[str, Any]:
    """Make a subset if it is not there yet; return its manifest."""
    if not folder.exists():
        run("asyncval", "split", output_dir=folder, **flags)
    found: dict[str, Any] = json.loads((folder / "subset.json").read_text(encoding="utf-8"))
    return found


def validate(options: argparse.Namespace, training: Path, corpus: Path, name: str) -> Path:
    """Validate all checkpoints on a corpus; return the folder of the results."""
    results: Path = options.work_dir / f"results of {name}"
    if results.exists():
        return results
    qrels = options.data_dir / "qrels" / "test.tsv"
    judged = {line.split("\t")[0] for line in qrels.read_text(encoding="utf-8").splitlines()}
    queries = options.work_dir / "queries.jsonl"
    with queries.open("w", encoding="utf-8") as file:
        for record in records(options.data_dir / "queries.jsonl"):
            if record["_id"] in judged:
                file.write(json.dumps(record) + "\n")
    run(
        "asyncval", "watch", ckpts_dir=training, query_file=queries, candidate_dir=corpus,
        qrel_file=qrels, output_dir=results, cache_dir=options.work_dir / "cache",
        metrics=MEASURES, report_to="none", devices="cpu", max_num_valid=NUM_CHECKPOINTS,
    )  # fmt: skip
    return results


def noise_of_queries(results: Path, *, num_draws: int = 500) -> dict[str, float]:
    """Return how well two halves of the queries agree on the order of the checkpoints.

    Returns:
        The mean tau-b, by measure.
    """
    from scipy.stats import kendalltau

    files = sorted((results / "per_query").iterdir())
    tables = [[line.split("\t") for line in path.read_text().splitlines()] for path in files]
    draw = np.random.default_rng(0)
    taus = {}
    for column, measure in enumerate(tables[0][0][1:], start=1):
        values = np.array([[float(row[column]) for row in table[1:]] for table in tables])
        found = []
        for _ in range(num_draws):
            first, second = np.array_split(draw.permutation(values.shape[1]), 2)
            halves = values[:, first].mean(axis=1), values[:, second].mean(axis=1)
            found.append(kendalltau(*halves).statistic)
        taus[measure] = float(np.mean(found))
    return taus


def shown(estimate: dict[str, float | None], digits: int) -> str:
    """Return a value and its interval as a cell of a table."""
    if estimate["value"] is None:
        return "undefined"
    if estimate["low"] is None:
        return f"{estimate['value']:.{digits}f}"
    return (
        f"{estimate['value']:.{digits}f} [{estimate['low']:.{digits}f}, "
        f"{estimate['high']:.{digits}f}]"
    )


def print_tables(reports: dict[str, dict[str, Any]], manifests: dict[str, dict[str, Any]]) -> None:
    """Print one table for each measure, in Markdown."""
    columns = ["subset", "passages", "share", "tau-b", "Spearman", "same best", "regret"]
    columns += ["inflation", "slope", "texts"]
    for measure in MEASURES:
        print(f"\n**{measure}**\n\n| {' | '.join(columns)} |\n|{' --- |' * len(columns)}")
        for name, report in reports.items():
            found, subset = report["measures"][measure], manifests[name]
            cells = [
                name,
                f"{subset['num_kept']:,}",
                f"{subset['num_kept'] / subset['num_read']:.0%}",
                shown(found["tau"], 2),
                shown(found["spearman"], 2),
                f"{'yes' if found['same_best'] else 'no'} ({found['same_best_share']:.0%})",
                shown(found["regret"], 4),
                shown(found["inflation"], 3),
                shown(found["slope"], 2),
                f"{report['texts_ratio']:.1f}x fewer",
            ]
            print(f"| {' | '.join(cells)} |")


def plot(
    reports: dict[str, dict[str, Any]], manifests: dict[str, dict[str, Any]], path: Path
) -> None:
    """Draw tau by the subset's size, and the curves of the smallest subsets."""
    from matplotlib.figure import Figure

    measure = MEASURES[0]
    figure = Figure(figsize=(10, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    kinds = {"depth": ("o-", "from the run"), "random": ("s--", "random")}
    kinds["own"] = ("^:", "from the last checkpoint's own run")
    for kind, (style, label) in kinds.items():
        names = [name for name in reports if name.startswith(kind)]
        sizes = [manifests[name]["num_kept"] for name in names]
        taus = [reports[name]["measures"][measure]["tau"] for name in names]
        values = [tau["value"] for tau in taus]
        # A percentile interval need not hold the value itself.
        below = [max(tau["value"] - tau["low"], 0) for tau in taus]
        above = [max(tau["high"] - tau["value"], 0) for tau in taus]
        left.errorbar(sizes, values, yerr=[below, above], fmt=style, capsize=3, label=label)
    left.set(xlabel="passages in the subset", ylabel=f"tau-b of {measure} with the full corpus")
    left.legend(frameon=False)
    steps = [each["step"] for each in next(iter(reports.values()))["checkpoints"]]
    full = next(iter(reports.values()))["measures"][measure]["full"]
    right.plot(steps, full, "k-", linewidth=2, label="full corpus")
    for name in ("depth 1", "depth 10", "depth 100", "random 1", "random 10"):
        style = "--" if name.startswith("random") else "-"
        values = reports[name]["measures"][measure]["subset"]
        right.plot(steps, values, style, marker=".", label=name)
    right.set(xlabel="step", ylabel=measure)
    right.legend(frameon=False, fontsize="small")
    figure.savefig(path, dpi=110)


def main() -> None:
    """Do it all."""
    parser = argparse.ArgumentParser(description="Fidelity of subsets over one training.")
    parser.add_argument("--model", required=True)
    for name in ("data_dir", "run_file", "negatives_file", "work_dir"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--plot", type=Path)
    options = parser.parse_args()
    options.work_dir.mkdir(parents=True, exist_ok=True)
    training = train(options)
    manifests = split(options, training)
    full = validate(options, training, options.data_dir / "corpus.jsonl", "full")
    reports = {}
    for name in manifests:
        results = validate(options, training, options.work_dir / name, name)
        text = run("asyncval", "fidelity", "--json", output_dir=results, against=full)
        reports[name] = json.loads(text)
    print_tables(reports, manifests)
    for measure, tau in noise_of_queries(full).items():
        print(f"\n{measure}: two halves of the queries agree at a tau-b of {tau:.2f}.")
    if options.plot is not None:
        plot(reports, manifests, options.plot)


if __name__ == "__main__":
    main()
