"""Our splitter against that of the first Asyncval, on the same corpus, in one run.

    python -m venv peer && peer/bin/pip install datasets tqdm
    peer/bin/pip download --no-deps --dest peer asyncval==0.2.0
    python -m zipfile -e peer/asyncval-0.2.0-py3-none-any.whl peer/unpacked
    python bench/split.py --peer_python peer/bin/python \
        --peer_splitter peer/unpacked/asyncval/splitter.py --work_dir /a/disk/with/2GB

The corpus is made up: ids from 0, words of random letters, as many in a passage as MS MARCO has
on the mean. A corpus of N passages is the first N lines of the largest. The wanted ids are the
same for all sizes and lie evenly over the largest, so each size has its share of them.
"""

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

WORDS_PER_PASSAGE = 56
NUM_WORDS = 30_000
NUM_QUERIES = 6_980
MS_MARCO_PASSAGES = 8_841_823
SEED = 7
SIZES = [25_000, 50_000, 100_000, 200_000, 1_000_000]


@dataclass(frozen=True)
class Cost:
    """What a command took; `peak_mib` is that of its largest process."""

    seconds: float
    cpu_seconds: float
    peak_mib: float


def passages(number: int) -> Iterator[str]:
    """Yield the lines of a corpus."""
    draw = random.Random(SEED)
    letters = "etaoinshrdlucmfwypvbgk"
    words = [
        "".join(draw.choices(letters, k=max(2, round(draw.gauss(5, 2))))) for _ in range(NUM_WORDS)
    ]
    for passage_id in range(number):
        length = max(10, round(draw.gauss(WORDS_PER_PASSAGE, 20)))
        text = " ".join(draw.choices(words, k=length))
        yield json.dumps({"text_id": str(passage_id), "text": text}) + "\n"


def make_corpora(folder: Path, sizes: list[int]) -> None:
    """Write a corpus of each size, in a folder of its own."""
    files = []
    for size in sizes:
        (folder / f"corpus-{size}").mkdir(parents=True)
        files.append((size, (folder / f"corpus-{size}" / "corpus.json").open("w")))
    for number, line in enumerate(passages(max(sizes))):
        for size, file in files:
            if number < size:
                file.write(line)
    for _, file in files:
        file.close()


def make_run(folder: Path, *, num_passages: int, num_wanted: int) -> int:
    """Write a run and judgements that name `num_wanted` different passages; return the depth."""
    ids = random.Random(SEED + 1).sample(range(num_passages), num_wanted)
    judged, retrieved = ids[:NUM_QUERIES], ids[NUM_QUERIES:]
    depth = -(-len(retrieved) // NUM_QUERIES)
    with (folder / "qrels.tsv").open("w") as file:
        file.writelines(f"{query}\t0\t{passage}\t1\n" for query, passage in enumerate(judged))
    with (folder / "run.tsv").open("w") as file:
        for query in range(NUM_QUERIES):
            some = retrieved[query * depth : (query + 1) * depth]
            file.writelines(f"{query}\t{each}\t{rank}\n" for rank, each in enumerate(some, start=1))
    return depth


def measure(line: list[str]) -> Cost:
    """Run a command to its end; it must end well."""
    start = time.monotonic()
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}
    process = subprocess.Popen(
        line, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment
    )
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.monotonic() - start
    if os.waitstatus_to_exitcode(status):
        sys.exit(f"`{' '.join(line[:4])} ...` ended with code {os.waitstatus_to_exitcode(status)}.")
    return Cost(seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024)


def kept(folder: Path) -> list[str]:
    """Return the ids in a subset, in order."""
    files = sorted(folder.glob("split*"))
    return [json.loads(line)["text_id"] for path in files for line in path.open()]


def main() -> None:
    """Measure and print one table."""
    parser = argparse.ArgumentParser(description="Our splitter against asyncval==0.2.0's.")
    parser.add_argument("--peer_python", required=True)
    parser.add_argument("--peer_splitter", required=True)
    parser.add_argument("--work_dir", type=Path, required=True)
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES)
    parser.add_argument("--peer_largest", type=int, default=100_000)
    parser.add_argument("--num_wanted", type=int, default=77_000)
    parser.add_argument(
        "--repeats", type=int, default=3, help="Ours runs so often; the median counts."
    )
    options = parser.parse_args()
    work = options.work_dir
    shutil.rmtree(work, ignore_errors=True)
    make_corpora(work, options.sizes)
    depth = make_run(work, num_passages=max(options.sizes), num_wanted=options.num_wanted)
    columns = ["passages", "0.2.0, s", "0.2.0, CPU s", "0.2.0, MiB"]
    columns += ["ours, s", "ours, CPU s", "ours, MiB", "ratio", "same ids"]
    print(f"| {' | '.join(columns)} |")
    print(f"|{' ---: |' * len(columns)}", flush=True)
    ours_at: dict[int, Cost] = {}
    peer_at: dict[int, Cost] = {}
    for size in options.sizes:
        flags = [
            "--candidate_dir", str(work / f"corpus-{size}"), "--run_file", str(work / "run.tsv"),
            "--qrel_file", str(work / "qrels.tsv"), "--depth", str(depth),
        ]  # fmt: skip
        costs = []
        for repeat in range(options.repeats):
            output = work / f"ours-{size}-{repeat}"
            line = [sys.executable, "-m", "asyncval.splitter", *flags]
            costs.append(measure([*line, "--output_dir", str(output)]))
        ours = ours_at[size] = sorted(costs, key=lambda cost: cost.seconds)[len(costs) // 2]
        cells = [
            "",
            "",
            "",
            f"{ours.seconds:.1f}",
            f"{ours.cpu_seconds:.1f}",
            f"{ours.peak_mib:.0f}",
            "",
            "",
        ]
        if size <= options.peer_largest:
            output = work / f"peer-{size}"
            line = [options.peer_python, options.peer_splitter, *flags]
            peer = peer_at[size] = measure(
                [*line, "--output_dir", str(output), "--cache_dir", str(work / f"cache-{size}")]
            )
            same = kept(output) == kept(work / f"ours-{size}-0")
            cells[:3] = [f"{peer.seconds:.1f}", f"{peer.cpu_seconds:.1f}", f"{peer.peak_mib:.0f}"]
            cells[6:] = [f"{peer.seconds / ours.seconds:.0f}", "yes" if same else "NO"]
        print(f"| {size:,} | {' | '.join(cells)} |", flush=True)
    for name, costs_at in (("0.2.0", peer_at), ("ours", ours_at)):
        if len(costs_at) < 2:
            continue
        first, last = min(costs_at), max(costs_at)
        per_passage = (costs_at[last].seconds - costs_at[first].seconds) / (last - first)
        whole = costs_at[last].seconds + per_passage * (MS_MARCO_PASSAGES - last)
        print(
            f"\n{name}: {per_passage * 1e6:.1f} microseconds a passage from {first:,} to {last:,}; "
            f"at that rate {whole:,.0f} s for {MS_MARCO_PASSAGES:,} passages."
        )


if __name__ == "__main__":
    main()
