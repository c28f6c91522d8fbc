"""Whether memory and cost per passage grow with the corpus, the vectors dropped.

    python bench/memory.py

Each size is tokenised and validated twice by a process of its own, with a tiny encoder, on a
corpus that is made as it is read. Memory is what the process itself holds (RssAnon), sampled:
the mapped token ids are the page cache's, which gives them back.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import threading
import time
from functools import partial
from pathlib import Path

import numpy as np
import workload

ROOT = Path(__file__).parents[1]
SIZES = (10_000, 100_000, 1_000_000)
QUERIES = 200
SAMPLE_SECONDS = 0.02
WORDS_AT_ONCE = 2**20


def held() -> int:
    """Return the bytes of this process that no file backs."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon"):
            return int(line.split()[1]) * 1024
    raise OSError("There is no RssAnon in /proc/self/status.")


def watch(highest: list[int]) -> None:
    """Keep the highest value up to date."""
    while True:
        highest[0] = max(highest[0], held())
        time.sleep(SAMPLE_SECONDS)


def passages(number: int):  # noqa: ANN201
    """Yield passages one by one."""
    from asyncval.core.types import Text

    vocabulary = np.array(workload.words())
    lengths = workload.passage_lengths(number) - 2
    for start in range(0, number, 4096):
        some = lengths[start : start + 4096]
        draw = np.random.default_rng(start).choice(vocabulary, some.sum())
        for place, text in enumerate(np.split(draw, some.cumsum()[:-1]), start=start):
            yield Text(id=f"p{place}", text=" ".join(text))


def validate(number: int) -> None:
    """Validate twice and print what it took."""
    from asyncval.checkpoints.recognition import load_checkpoint
    from asyncval.clock import SystemClock
    from asyncval.core.measures import parse_measures
    from asyncval.core.types import Checkpoint, EncoderOptions, QuerySet, Text
    from asyncval.evaluation import tame_libraries
    from asyncval.retrieval.encode import Encoding
    from asyncval.retrieval.task import CorpusTexts, Task
    from asyncval.retrieval.tokens import TokenCache
    from asyncval.retrieval.validate import Validator

    tame_libraries()
    options = EncoderOptions(pooling="mean")
    some = next(passages(1)).text.split()[:6]
    with tempfile.TemporaryDirectory() as folder:
        path = workload.make_checkpoint(Path(folder) / "checkpoint", "tiny")
        words = workload.words()
        queries = tuple(Text(id=f"q{i}", text=" ".join([*some, words[i]])) for i in range(QUERIES))
        validator = Validator(
            Task(
                query_sets=[
                    QuerySet(
                        name="bench",
                        path=Path("queries"),
                        qrels_path=Path("qrels"),
                        queries=queries,
                        judgements={f"q{i}": {f"p{i}": 1} for i in range(QUERIES)},
                    )
                ],
                query_digests=["queries"],
                corpora={"": CorpusTexts(digest=str(number), passages=partial(passages, number))},
                measures=parse_measures(["RR@10"]),
                depth=100,
                options=options,
            ),
            load=partial(load_checkpoint, options=options, device="cpu", precision="fp32"),
            encoding=Encoding(device="cpu"),
            cache=TokenCache(Path(folder) / "cache"),
            clock=SystemClock(),
        )
        highest = [held()]
        threading.Thread(target=watch, args=(highest,), daemon=True).start()
        checkpoint = Checkpoint(path=path, step=None, layout="")
        first = validator.validate(checkpoint)
        at_first, highest[0] = highest[0], held()
        seconds = validator.validate(checkpoint).result.seconds
        print(
            json.dumps(
                {
                    "passages": number,
                    "tokenizing_bytes": at_first,
                    "warm_bytes": highest[0],
                    "tokenize_seconds": first.result.seconds["tokenize"],
                    "warm_seconds": seconds["total"],
                }
            )
        )


def main() -> None:
    """Measure, print a table and write it."""
    parser = argparse.ArgumentParser(description="Memory and cost by the size of the corpus.")
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES)
    parser.add_argument("--one", type=int, help="the inner process")
    options = parser.parse_args()
    if options.one:
        validate(options.one)
        return
    found = []
    for size in options.sizes:
        command = [sys.executable, __file__, "--one", str(size)]
        output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
        found.append(json.loads(output.splitlines()[-1]))
    rows = [
        [
            f"{each['passages']:,}",
            f"{each['tokenizing_bytes'] / 2**20:.0f}",
            f"{each['warm_bytes'] / 2**20:.0f}",
            f"{each['tokenize_seconds'] / each['passages'] * 1e6:.0f}",
            f"{each['warm_seconds'] / each['passages'] * 1e6:.0f}",
        ]
        for each in found
    ]
    title = f"Memory and cost by the size of the corpus, {QUERIES} queries, a tiny encoder"
    header = [
        "passages",
        "peak MiB, first checkpoint (tokenises)",
        "peak MiB, later ones",
        "tokenise, µs a passage",
        "later validation, µs a passage",
    ]
    workload.save("memory", workload.table(title, header, rows), {"sizes": found})


if __name__ == "__main__":
    main()
