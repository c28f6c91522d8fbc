"""From the last byte of a checkpoint to the start of its validation, in a real daemon.

    python bench/latency.py --checkpoints 20

The daemon runs on tiny random encoders. The start is the moment at which its log says
`validating on`: right after that it hands the checkpoint to the waiting evaluation process.
"""

import argparse
import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import workload

ROOT = Path(__file__).parents[1]
PATIENCE_SECONDS = 60.0
LAST = "trainer_state.json"


def make_data(folder: Path) -> list[str]:
    """Write a few passages and queries; return the flags that name them."""
    workload.make_collection(folder, passages=40, queries=10)
    files = {
        "--query_file": "queries.jsonl",
        "--candidate_dir": "corpus.jsonl",
        "--qrel_file": "qrels.tsv",
    }
    return [word for flag, name in files.items() for word in (flag, str(folder / name))]


class Log:
    """What the daemon says, with the time at which each line was read."""

    def __init__(self, process: "subprocess.Popen[str]", path: Path) -> None:
        self._process = process
        self._path = path

    def wait_for(self, text: str) -> float:
        """Return the time at which a text is there."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < deadline and self._process.poll() is None:
            if text in " ".join(self._path.read_text().split()):
                return time.monotonic()
            time.sleep(0.001)
        sys.exit(f"The daemon never said {text!r}:\n{self._path.read_text()}")


def save(model: Path, target: Path, *, step: int) -> float:
    """Save a checkpoint in the order of the Hugging Face trainer; return when it was whole."""
    target.mkdir()
    names = sorted(path.name for path in model.iterdir())
    for name in names:
        shutil.copyfile(model / name, target / name)
    with (target / "config.json").open("a") as file:
        file.write(" " * step)  # another content each
    (target / LAST).write_text(json.dumps({"global_step": step}))
    return time.monotonic()


def measure(work: Path, count: int, more: list[str]) -> list[float]:
    """Return the seconds of `count` checkpoints, each written when the daemon is idle."""
    model, root, log = work / "model", work / "training", work / "log.txt"
    workload.make_checkpoint(model, "tiny")
    root.mkdir()
    flags = make_data(work / "data")
    folders = {"--ckpts_dir": root, "--output_dir": work / "out", "--cache_dir": work / "cache"}
    flags += [word for flag, path in folders.items() for word in (flag, str(path))]
    with log.open("w") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "asyncval", "watch", *flags, "--devices", "cpu", *more],
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=ROOT,
            env=os.environ | {"COLUMNS": "200"},
            text=True,
        )
    seconds = []
    try:
        said = Log(process, log)
        for step in range(count + 1):
            whole_at = save(model, root / f"checkpoint-{step}", step=step)
            seconds.append(said.wait_for(f"checkpoint-{step}: validating") - whole_at)
            said.wait_for(f"checkpoint-{step}: RR@10")
            time.sleep(random.Random(step).uniform(0.1, 0.5))
    finally:
        process.terminate()
        process.wait()
    return seconds[1:]  # the first one had to wait for the start of the daemon


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description="Time from last byte to start of validation.")
    parser.add_argument("--checkpoints", type=int, default=20)
    options = parser.parse_args()
    print(f"{'last byte to start of validation':<40}{'median':>10}{'slowest':>10}")
    for name, more in {"events": [], "polling (--no_inotify)": ["--no_inotify"]}.items():
        with tempfile.TemporaryDirectory() as folder:
            seconds = measure(Path(folder), options.checkpoints, more)
        median, slowest = statistics.median(seconds), max(seconds)
        print(f"{name:<40}{median * 1000:>7.0f} ms{slowest * 1000:>7.0f} ms")


if __name__ == "__main__":
    main()
