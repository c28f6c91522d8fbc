"""What bfloat16 does to a real model's numbers on real collections.

    python bench/precision.py --model MODEL --data CRANFIELD SCIFACT VASWANI

MODEL is a checkpoint folder that `asyncval eval` reads, such as all-MiniLM-L6-v2; each collection
is a folder in BEIR's form. Each is evaluated once in fp32 and once in bfloat16.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import workload

MEASURES = ("nDCG@10", "RR@10")
PRECISIONS = ("fp32", "bf16")


def evaluate(model: Path, data: Path, dtype: str, work: Path) -> dict[str, float]:
    """Return the measures of a model on a collection in one precision."""
    done = subprocess.run(
        [
            sys.executable, "-m", "asyncval", "eval", model, "--dtype", dtype, "--json",
            "--query_file", data / "queries.jsonl", "--candidate_dir", data / "corpus.jsonl",
            "--qrel_file", data / "qrels" / "test.tsv", "--metrics", *MEASURES,
            "--q_max_len", "64", "--p_max_len", "256",
            "--cache_dir", work / "cache", "--output_dir", work / f"{data.name}-{dtype}",
        ],
        env=os.environ | {"HF_HUB_OFFLINE": "1"},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )  # fmt: skip
    (row,) = json.loads(done.stdout)
    measured: dict[str, float] = row["metrics"]
    return measured


def main() -> None:
    """Evaluate, print a table and write it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--data", type=Path, nargs="+", required=True)
    options = parser.parse_args()
    found: dict[str, dict[str, dict[str, float]]] = {}
    with tempfile.TemporaryDirectory() as work:
        for data in options.data:
            found[data.name] = {
                dtype: evaluate(options.model, data, dtype, Path(work)) for dtype in PRECISIONS
            }
    rows = [
        [
            name,
            measure,
            f"{by_dtype['fp32'][measure]:.4f}",
            f"{by_dtype['bf16'][measure]:.4f}",
            f"{by_dtype['bf16'][measure] - by_dtype['fp32'][measure]:+.4f}",
        ]
        for name, by_dtype in found.items()
        for measure in MEASURES
    ]
    title = f"What bfloat16 changes: {options.model.name}"
    header = ["collection", "measure", *PRECISIONS, "difference"]
    workload.save("precision", workload.table(title, header, rows), found)


if __name__ == "__main__":
    main()
