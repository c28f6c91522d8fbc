"""How near encoding is to the machine's best rate, by shape and precision.

    python bench/encode.py

The best rate is that of a plain matrix product in the same precision, by all workers at once,
measured between the rounds. Operations are counted for real tokens, so padding counts as waste.
"""

import argparse
import os
import statistics
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace

import numpy as np
import workload

from asyncval.checkpoints.recognition import load_checkpoint
from asyncval.core.types import Checkpoint, EncoderOptions
from asyncval.retrieval.encode import Encoding, encode_portions
from asyncval.retrieval.profile import Work, measure_rate
from asyncval.retrieval.tokens import TextIds, TokenStore

CLOCK = SimpleNamespace(monotonic=time.perf_counter, now=time.time)


def make_tokens(number: int) -> TokenStore:
    """Return so many passages of made-up tokens."""
    lengths = workload.passage_lengths(number)
    draw = np.random.default_rng(3)
    ids = draw.integers(5, workload.VOCABULARY, int(lengths.sum())).astype(np.uint16)
    return TokenStore(
        ids=ids,
        offsets=np.concatenate([[0], lengths.cumsum()]),
        text_ids=TextIds.of(map(str, range(number))),
    )


def measure(shape: str, precision: str, options: argparse.Namespace) -> dict[str, float]:
    """Return medians over the rounds."""
    tokens = make_tokens(options.passages)
    operations = workload.operations(tokens.lengths, shape)
    encoding = Encoding(device="cpu", precision=precision)
    rounds = []
    with TemporaryDirectory() as folder:
        path = workload.make_checkpoint(Path(folder) / "checkpoint", shape)
        loaded = load_checkpoint(
            Checkpoint(path=path, step=None, layout=""),
            EncoderOptions(pooling="mean"),
            device="cpu",
            precision=precision,
        )
        for _ in range(options.repeats + 1):
            rate = measure_rate(encoding, CLOCK)
            work = Work()
            start = time.perf_counter()
            for portion in encode_portions(
                tokens, loaded.encoder.encode_passages, encoding=encoding
            ):
                work.add(portion)
            seconds = time.perf_counter() - start
            rate = (rate + measure_rate(encoding, CLOCK)) / 2
            rounds.append((seconds, rate, operations / rate / seconds))
    seconds, rates, shares = (statistics.median(each) for each in zip(*rounds[1:], strict=True))
    return {
        "tokens_per_second": work.tokens / seconds,
        "gigaflops": operations / seconds / 1e9,
        "best_gigaflops": rates / 1e9,
        "of_floor": shares,
        "padding": work.padded / work.tokens - 1,
    }


def main() -> None:
    """Measure, print a table and write it."""
    parser = argparse.ArgumentParser(description="Encoding against the machine's best rate.")
    parser.add_argument("--shapes", nargs="+", default=["minilm", "bert-base"])
    parser.add_argument("--dtypes", nargs="+", default=["fp32", "bf16"])
    parser.add_argument("--passages", type=int, default=1000)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    found = {
        f"{shape} {precision}": measure(shape, precision, options)
        for shape in options.shapes
        for precision in options.dtypes
    }
    rows = [
        [
            name,
            f"{each['tokens_per_second']:,.0f}",
            f"{each['gigaflops']:,.0f}",
            f"{each['best_gigaflops']:,.0f}",
            f"{each['of_floor']:.1%}",
            f"{each['padding']:.2%}",
        ]
        for name, each in found.items()
    ]
    title = f"Encoding on {len(os.sched_getaffinity(0))} cores, {options.repeats} rounds"
    header = ["", "tokens/s", "GFLOP/s", "of a matrix product", "share", "padding"]
    workload.save("encode", workload.table(title, header, rows), found)


if __name__ == "__main__":
    main()
