"""How long an idle scan over many finished checkpoints takes, and that it opens no file.

python bench/scan.py --checkpoints 1000
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

from asyncval.checkpoints.pins import PinStore
from asyncval.clock import SystemClock
from asyncval.watcher import Habits, Watcher

BEYOND_THE_MODEL = ("training_args.bin", "optimizer.pt", "scheduler.pt", "rng_state.pth")
HEADER = {"embeddings.weight": {"dtype": "F32", "shape": [64], "data_offsets": [0, 256]}}
REPEATS = 20


def make_checkpoints(root: Path, count: int) -> None:
    """Write checkpoints of ten files each, as a trainer does; their weights are tiny."""
    header = json.dumps(HEADER).encode()
    content = {
        "config.json": b"{}",
        "model.safetensors": len(header).to_bytes(8, "little") + header + bytes(range(256)),
        "tokenizer_config.json": b"{}",
        "tokenizer.json": b"{}",
        "special_tokens_map.json": b"{}",
        **dict.fromkeys(BEYOND_THE_MODEL, b"x"),
    }
    for step in range(1, count + 1):
        folder = root / f"checkpoint-{step}"
        folder.mkdir(parents=True)
        for name, each in content.items():
            (folder / name).write_bytes(each)
        (folder / "trainer_state.json").write_text(json.dumps({"global_step": step}))


class Openings:
    """Counts what this process opens to read, folders left out."""

    def __init__(self) -> None:
        self.paths: list[str] = []
        self.is_counting = False
        sys.addaudithook(self._hear)

    def _hear(self, event: str, arguments: tuple[object, ...]) -> None:
        if self.is_counting and event == "open":
            self.paths.append(str(arguments[0]))


def measure(root: Path, pins: Path) -> dict[str, str]:
    """Scan once to find everything, once to know it, and then idly."""
    watcher = Watcher(
        root=root,
        habits=Habits(),
        pins=PinStore(pins, method="none"),
        clock=SystemClock(),
    )
    began = time.perf_counter()
    found = len(list(watcher.scan()))
    first = time.perf_counter() - began
    list(watcher.scan())
    openings, seconds = Openings(), []
    for _ in range(REPEATS):
        openings.is_counting = True
        began = time.perf_counter()
        again = list(watcher.scan())
        seconds.append(time.perf_counter() - began)
        openings.is_counting = False
        assert not again, "what is finished was found again"
    return {
        "checkpoints": str(found),
        "first scan, with digests": f"{first * 1000:.0f} ms",
        f"idle scan, median of {REPEATS}": f"{statistics.median(seconds) * 1000:.1f} ms",
        "idle scan, slowest": f"{max(seconds) * 1000:.1f} ms",
        "files opened by idle scans": str(len(openings.paths)),
    }


def main() -> None:
    """Make the checkpoints, measure, and print a table."""
    parser = argparse.ArgumentParser(description="Time an idle scan.")
    parser.add_argument("--checkpoints", type=int, default=1000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        make_checkpoints(Path(name) / "training", options.checkpoints)
        os.sync()
        for what, value in measure(Path(name) / "training", Path(name) / "pins").items():
            print(f"{what:<32}{value:>12}")


if __name__ == "__main__":
    main()
