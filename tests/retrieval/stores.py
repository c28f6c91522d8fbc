"""Makers of texts, token stores and query sets for the tests of retrieval."""

from pathlib import Path

import numpy as np

from asyncval.core.types import QuerySet, Text
from asyncval.retrieval.tokens import TextIds, TokenStore


def make_texts(contents, *, prefix="d"):
    return [Text(id=f"{prefix}{number}", text=each) for number, each in enumerate(contents)]


def make_store(lengths, *, seed=0, vocabulary=80):
    """Return a store of random texts of these lengths."""
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    ids = np.random.default_rng(seed).integers(4, vocabulary, offsets[-1]).astype(np.uint16)
    names = TextIds.of(f"d{number}" for number in range(len(lengths)))
    return TokenStore(ids=ids, offsets=offsets, text_ids=names)


def make_query_set(judgements, query_ids, *, name="dev"):
    return QuerySet(
        name=name,
        path=Path(f"{name}.tsv"),
        qrels_path=Path("qrels.txt"),
        queries=tuple(Text(id=query_id, text="") for query_id in query_ids),
        judgements=judgements,
    )
