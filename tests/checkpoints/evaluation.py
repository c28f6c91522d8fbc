"""`asyncval eval` in this process, on a few texts, and the vectors that it writes."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from transformers import AutoTokenizer

from asyncval.commands.eval import evaluate_named
from asyncval.config import EvalConfig
from asyncval.core.types import State, Validation
from asyncval.options import parse
from tests.checkpoints.recipes.made import Made, Vector
from tests.models import make_sentences

QUERIES = make_sentences(5, seed=1, longest=6)
PASSAGES = make_sentences(9, seed=2, longest=30)
Q_MAX, P_MAX = 6, 20
"""Less than some of the texts have: cutting them is a part of every toolkit's formula."""


@dataclass(frozen=True)
class Evaluated:
    row: Validation
    queries: NDArray[np.float32]
    passages: NDArray[np.float32]


def evaluate(folder: Path, *flags: str, place: Path) -> Validation:
    """Run the command on one checkpoint; what it writes goes below `place`."""
    place.mkdir(exist_ok=True)
    for name, texts in (("queries", QUERIES), ("passages", PASSAGES)):
        lines = [json.dumps({"text_id": str(i), "text": text}) for i, text in enumerate(texts)]
        (place / f"{name}.jsonl").write_text("\n".join(lines) + "\n")
    (place / "qrels.tsv").write_text("".join(f"{i}\t0\t{i}\t1\n" for i in range(5)))
    arguments = [
        str(folder), *flags,
        "--query_file", str(place / "queries.jsonl"),
        "--candidate_dir", str(place / "passages.jsonl"),
        "--qrel_file", str(place / "qrels.tsv"),
        "--q_max_len", str(Q_MAX), "--p_max_len", str(P_MAX),
        "--output_dir", str(place / "out"), "--cache_dir", str(place / "cache"),
        "--devices", "cpu", "--write_embeddings",
    ]  # fmt: skip
    config = parse(EvalConfig, arguments, command="eval")
    [row] = evaluate_named(config, Console(quiet=True))
    return row


def embeddings(made: Made, *, place: Path) -> Evaluated:
    """Return the vectors that the command writes of a checkpoint."""
    row = evaluate(made.folder, *made.flags, place=place)
    assert row.state is State.DONE, row.reason
    written = place / "out" / "embeddings"
    return Evaluated(
        row,
        queries=np.load(written / f"{made.folder.name}.queries.npy"),
        passages=np.load(written / f"{made.folder.name}.passages.npy"),
    )


def expected(made: Made) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return the vectors of queries and passages by the recipe's formula."""
    sides: tuple[tuple[Vector, list[str], str, int], ...] = (
        (made.queries, QUERIES, made.prefixes[0], Q_MAX),
        (made.passages, PASSAGES, made.prefixes[1], P_MAX),
    )
    tokenizer = AutoTokenizer.from_pretrained(made.tokenizer)
    found = []
    for vector, texts, prefix, length in sides:
        end = [tokenizer.eos_token_id] if made.eos else []
        vectors = []
        for text in texts:
            kept = tokenizer(prefix + text, truncation=True, max_length=length - len(end))
            vectors.append(vector([*kept["input_ids"], *end]))
        found.append(torch.stack(vectors).numpy())
    return found[0], found[1]
