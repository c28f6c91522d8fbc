"""A tiny collection on disk: sixty passages of words that tests/models.py's tokenizer knows."""

import json
import random
from dataclasses import dataclass
from pathlib import Path

from tests.models import WORDS

NUM_PASSAGES, NUM_QUERIES = 60, 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Files:
    """Where the collection lies; query `q3` is answered by `p3` and by `p33`."""

    queries: Path
    corpus: Path
    qrels: Path


def write_collection(folder: Path) -> Files:
    """Write passages of 1 to 12 words in two files, queries, and two judgements for each."""
    draw = random.Random(4)
    texts = [" ".join(draw.choices(WORDS, k=draw.randint(1, 12))) for _ in range(NUM_PASSAGES)]
    corpus = folder / "corpus"
    corpus.mkdir(parents=True)
    rows = [
        json.dumps({"docid": f"p{i}", "title": "music" if i % 5 else "", "text": text}) + "\n"
        for i, text in enumerate(texts)
    ]
    (corpus / "split00.jsonl").write_text("".join(rows[:35]))
    (corpus / "split01.jsonl").write_text("".join(rows[35:]))
    queries = folder / "queries.tsv"
    queries.write_text("".join(f"q{i}\t{texts[i]}\n" for i in range(NUM_QUERIES)))
    qrels = folder / "qrels.txt"
    qrels.write_text(
        "".join(
            f"q{i} 0 p{i} 1\nq{i} 0 p{i + 30} 2\nq{i} 0 p{i + 9} 0\n" for i in range(NUM_QUERIES)
        )
    )
    return Files(queries=queries, corpus=corpus, qrels=qrels)
