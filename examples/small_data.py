"""Bring the quickstart's collection into the form that MS MARCO has in the toolkits' folders.

corpus.tsv                id<TAB>title<TAB>text
train.query.txt           qid<TAB>text, and dev.query.txt
qrels.train.tsv           qid<TAB>0<TAB>id<TAB>1, and qrels.dev.tsv
train.negatives.tsv       qid<TAB>id,id,...: the best of BM25 that are not relevant
train.trec, dev.trec      what BM25 finds
train.scores.txt          qid<TAB>id<TAB>score: BM25 in the place of a cross-encoder
train.scores.pkl.gz       the same, as {qid: {id: score}}
"""

import argparse
import gzip
import json
import math
import pickle
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

WORD = re.compile(r"[A-Za-z]+")
NAME = re.compile(r"def (\w+)")
K1, B = 0.9, 0.4
DEPTH = 100


class Bm25:
    """BM25 over a few thousand passages."""

    def __init__(self, texts: Mapping[str, str]) -> None:
        words = {each: Counter(words_of(text)) for each, text in texts.items()}
        mean = sum(count.total() for count in words.values()) / len(words)
        self._postings: dict[str, list[tuple[str, float]]] = defaultdict(list)
        for each, counts in words.items():
            norm = K1 * (1 - B + B * counts.total() / mean)
            for word, count in counts.items():
                self._postings[word].append((each, count * (K1 + 1) / (count + norm)))
        self._size = len(words)

    def scores(self, query: str) -> dict[str, float]:
        """Return the scores of all passages that share a word with the query, best first."""
        found: dict[str, float] = defaultdict(float)
        for word in words_of(query):
            postings = self._postings.get(word, [])
            weight = math.log(1 + (self._size - len(postings) + 0.5) / (len(postings) + 0.5))
            for each, value in postings:
                found[each] += weight * value
        return dict(sorted(found.items(), key=lambda item: (-item[1], item[0])))


def words_of(text: str) -> list[str]:
    """Return the words of a text in small letters."""
    return [word.lower() for word in WORD.findall(text)]


def read(path: Path) -> list[dict[str, str]]:
    """Read JSON lines."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def write(path: Path, rows: Iterable[tuple[object, ...]], separator: str = "\t") -> None:
    """Write rows, one a line."""
    lines = (separator.join(map(str, row)) + "\n" for row in rows)
    path.write_text("".join(lines), encoding="utf-8")


def one_line(text: str) -> str:
    """Return a text without tabs and line breaks."""
    return " ".join(text.split())


def main() -> None:
    """Write all files."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--collection", type=Path, required=True, help="of collection.py")
    parser.add_argument("--output_dir", type=Path, required=True)
    parser.add_argument("--num_queries", type=int, default=400, help="for training")
    flags = parser.parse_args()
    folder = flags.output_dir
    folder.mkdir(parents=True, exist_ok=True)

    train = read(flags.collection / "train.jsonl")[: flags.num_queries]
    others = read(flags.collection / "corpus.jsonl")
    texts = {str(number): row["positive"] for number, row in enumerate(train)}
    names = {row["text_id"]: str(len(train) + number) for number, row in enumerate(others)}
    texts |= {names[row["text_id"]]: row["text"] for row in others}
    rows = [(each, title(text), one_line(text)) for each, text in texts.items()]
    write(folder / "corpus.tsv", rows)
    write_names_as_queries(folder / "lotte", rows[len(train) :])

    dev = read(flags.collection / "queries.dev.jsonl")
    queries = {
        "train": {f"t{number}": row["query"] for number, row in enumerate(train)},
        "dev": {row["text_id"]: row["text"] for row in dev},
    }
    judged = (flags.collection / "qrels.dev.tsv").read_text("utf-8").splitlines()
    answers = {
        "train": {f"t{number}": str(number) for number in range(len(train))},
        "dev": {line.split("\t")[0]: names[line.split("\t")[2]] for line in judged},
    }
    bm25 = Bm25(texts)
    scores = {}
    for part, asked in queries.items():
        scores[part] = {each: bm25.scores(text) for each, text in asked.items()}
        write(
            folder / f"{part}.query.txt", ((each, one_line(text)) for each, text in asked.items())
        )
        write(folder / f"qrels.{part}.tsv", ((each, 0, p, 1) for each, p in answers[part].items()))
        write(
            folder / f"{part}.trec",
            (
                (each, "Q0", passage, rank, f"{score:.4f}", "bm25")
                for each, found in scores[part].items()
                for rank, (passage, score) in enumerate([*found.items()][:DEPTH], start=1)
            ),
            separator=" ",
        )
    write(
        folder / "train.negatives.tsv",
        (
            (each, ",".join([p for p in found if p != answers["train"][each]][:DEPTH]))
            for each, found in scores["train"].items()
        ),
    )
    everything = {
        each: {p: round(found.get(p, 0.0), 4) for p in texts}
        for each, found in scores["train"].items()
    }
    write(
        folder / "train.scores.txt",
        ((q, p, score) for q, found in everything.items() for p, score in found.items()),
    )
    with gzip.open(folder / "train.scores.pkl.gz", "wb", compresslevel=1) as file:
        pickle.dump(everything, file)
    print(f"{len(texts):,} passages, {len(train):,} training queries, {len(queries['dev'])} others")


def write_names_as_queries(folder: Path, rows: Sequence[tuple[str, str, str]]) -> None:
    """Write a task of which the names of functions are the queries."""
    folder.mkdir(exist_ok=True)
    named = [row for row in rows if row[1]][:50]
    write(folder / "corpus.tsv", ((each, text) for each, _, text in rows))
    write(folder / "query.forum", ((f"n{each}", name) for each, name, _ in named))
    write(folder / "qrels.forum", ((f"n{each}", 0, each, 1) for each, _, _ in named), separator=" ")


def title(text: str) -> str:
    """Return the words in the name of a function."""
    found = NAME.search(text)
    return " ".join(found.group(1).split("_")).strip() if found else ""


if __name__ == "__main__":
    main()
