"""Build a retrieval collection out of the Python source that is installed anyway.

A query is the first sentence of a function's docstring; its answer is the source of that function
without the docstring. Files are parsed and never imported. Whole sub-packages are kept out of
training, so that nothing that is validated was trained on.
"""

import argparse
import ast
import hashlib
import json
import os
import re
import sysconfig
import textwrap
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

PACKAGES = (
    "python",
    "accelerate",
    "fsspec",
    "huggingface_hub",
    "jinja2",
    "matplotlib",
    "mpmath",
    "networkx",
    "numba",
    "numpy",
    "pandas",
    "pydantic",
    "ranx",
    "rich",
    "scipy",
    "seaborn",
    "sympy",
    "tensorboard",
    "torch",
    "tqdm",
    "transformers",
    "tyro",
    "watchdog",
    "werkzeug",
)
SKIPPED_FOLDERS = {
    "test",
    "tests",
    "testing",
    "idlelib",
    "lib2to3",
    "site-packages",
    "dist-packages",
    "_vendor",
}
# Each of the many files in here is a variation of another.
SKIPPED_MODULES = ("transformers.models", "transformers.testing_utils")

MIN_QUERY_WORDS, MAX_QUERY_WORDS = 4, 40
MAX_PASSAGE_CHARACTERS = 1200  # more than 128 tokens, and no more is read
MIN_LINE_CHARACTERS = 20  # shorter lines say nothing about where a passage comes from
VALIDATED_SHARE = 0.12  # of the sub-packages
MAX_QUERIES_PER_GROUP = 40  # so that no large sub-package is most of the validation

SENTENCE_END = re.compile(r"(?<=[.!?])\s")
MARKUP = re.compile(r"^(>>>|\.\. |:param|@|-{3}|={3})")

Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One function: where it stands, its source without the docstring, and a query if it has one.

    `query` is empty where the docstring is missing or says too little.
    """

    name: str
    group: str
    passage: str
    query: str


def source_files(packages: Sequence[str]) -> list[tuple[str, Path]]:
    """Return (dotted module, file) of all files of the packages, in a fixed order.

    The standard library is called `python`.
    """
    paths = sysconfig.get_paths()
    places = {"python": Path(paths["stdlib"])}
    roots = [(places.get(each, Path(paths["purelib"]) / each), each) for each in packages]
    files = []
    for root, prefix in roots:
        for path in sorted(root.rglob("*.py")):
            parts = path.relative_to(root).with_suffix("").parts
            module = ".".join((prefix, *parts)).removesuffix(".__init__")
            if SKIPPED_FOLDERS.isdisjoint(parts) and not module.startswith(SKIPPED_MODULES):
                files.append((module, path))
    return files


def entries_of(source: tuple[str, Path]) -> list[Entry]:
    """Return the functions and methods of one file; a file that does not parse has none."""
    module, path = source
    try:
        text = path.read_text(encoding="utf-8")
        tree = ast.parse(text)
    except (OSError, SyntaxError, ValueError):
        return []
    lines = text.splitlines()
    group = ".".join(module.split(".")[:2])
    found = []
    for name, function in functions_of(tree):
        passage = passage_of(function, lines)
        if passage:
            query = query_of(function)
            found.append(Entry(name=f"{module}:{name}", group=group, passage=passage, query=query))
    return found


def functions_of(tree: ast.Module) -> Iterator[tuple[str, Function]]:
    """Yield (qualified name, node) of top-level functions and of the methods of classes."""
    for node in tree.body:
        if isinstance(node, Function):
            yield node.name, node
        elif isinstance(node, ast.ClassDef):
            methods = (child for child in node.body if isinstance(child, Function))
            yield from ((f"{node.name}.{method.name}", method) for method in methods)


def passage_of(function: Function, lines: Sequence[str]) -> str:
    """Return the source without the docstring; empty if nothing but a stub would be left."""
    body = function.body[1:] if ast.get_docstring(function) is not None else function.body
    if not body or all(is_stub(statement) for statement in body):
        return ""
    start, end = function.lineno - 1, function.end_lineno
    kept = list(lines[start:end])
    if body is not function.body:
        docstring = function.body[0]
        assert docstring.end_lineno is not None
        if docstring.lineno == function.lineno or docstring.end_lineno == body[0].lineno:
            return ""
        del kept[docstring.lineno - 1 - start : docstring.end_lineno - start]
    passage = textwrap.dedent("\n".join(line.rstrip() for line in kept if line.strip()))
    if len(passage) > MAX_PASSAGE_CHARACTERS:
        passage = passage[:MAX_PASSAGE_CHARACTERS].rpartition("\n")[0]
    return passage


def is_stub(statement: ast.stmt) -> bool:
    """Tell whether a statement does nothing: pass, `...`, a constant or a bare refusal."""
    if isinstance(statement, ast.Raise):
        return "NotImplemented" in ast.dump(statement)
    if isinstance(statement, ast.Return):
        return statement.value is None or isinstance(statement.value, ast.Constant)
    is_constant = isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)
    return is_constant or isinstance(statement, ast.Pass)


def query_of(function: Function) -> str:
    """Return the first sentence of the docstring on one line; empty if it says too little."""
    paragraph = (ast.get_docstring(function) or "").strip().split("\n\n")[0]
    sentence = SENTENCE_END.split(" ".join(paragraph.split()), maxsplit=1)[0]
    if MARKUP.match(sentence):
        return ""
    return sentence if MIN_QUERY_WORDS <= len(sentence.split()) <= MAX_QUERY_WORDS else ""


def is_validated(group: str) -> bool:
    """Tell by a hash of its name whether a sub-package is kept for validation."""
    digest = hashlib.sha256(group.encode()).digest()
    return int.from_bytes(digest[:4]) < VALIDATED_SHARE * 2**32


def unique(entries: Sequence[Entry], key: Callable[[Entry], str]) -> list[Entry]:
    """Return the first entry of each key."""
    return list({key(entry): entry for entry in reversed(entries)}.values())[::-1]


def without_repeated_queries(entries: Iterable[Entry]) -> list[Entry]:
    """Blank every query that several functions share: it would have several answers."""
    entries = list(entries)
    count = Counter(entry.query.lower() for entry in entries)
    return [
        entry
        if count[entry.query.lower()] == 1
        else Entry(name=entry.name, group=entry.group, passage=entry.passage, query="")
        for entry in entries
    ]


def long_lines(entry: Entry) -> set[str]:
    """Return the lines by which a copied passage is recognised."""
    lines = (line.strip() for line in entry.passage.splitlines())
    return {line for line in lines if len(line) >= MIN_LINE_CHARACTERS}


def without_copies(entries: Iterable[Entry], *, of: Iterable[Entry]) -> list[Entry]:
    """Drop entries of which more than half the lines stand in `of`."""
    known: set[str] = set()
    for entry in of:
        known |= long_lines(entry)
    return [e for e in entries if 2 * len(long_lines(e) & known) <= len(long_lines(e))]


def shuffled(entries: Iterable[Entry]) -> list[Entry]:
    """Order by a hash of the name: the same everywhere, and unlike the order of the files."""
    return sorted(entries, key=lambda entry: hashlib.sha256(entry.name.encode()).digest())


def at_most(limit: int, entries: Iterable[Entry]) -> list[Entry]:
    """Keep the first `limit` entries of each sub-package."""
    seen: Counter[str] = Counter()
    kept = []
    for entry in entries:
        seen[entry.group] += 1
        if seen[entry.group] <= limit:
            kept.append(entry)
    return kept


def write_lines(path: Path, rows: Iterable[object]) -> int:
    """Write JSON lines and return how many."""
    lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in rows]
    path.write_text("".join(lines), encoding="utf-8")
    return len(lines)


def build(
    output_dir: Path,
    *,
    num_passages: int,
    num_queries: int,
    packages: Sequence[str] = PACKAGES,
) -> dict[str, int]:
    """Write train.jsonl, corpus.jsonl, queries.dev.jsonl and qrels.dev.tsv; return their sizes."""
    files = source_files(packages)
    with ProcessPoolExecutor(os.cpu_count(), mp_context=get_context("spawn")) as pool:
        parsed = [e for found in pool.map(entries_of, files, chunksize=64) for e in found]
    entries = without_repeated_queries(
        unique(unique(parsed, lambda entry: entry.name), lambda entry: entry.passage)
    )
    train = [e for e in entries if e.query and not is_validated(e.group)]
    kept_out = without_copies((e for e in entries if is_validated(e.group)), of=train)
    # Passages that answer a query first, then those that only stand in the way of them.
    answers = at_most(MAX_QUERIES_PER_GROUP, shuffled(e for e in kept_out if e.query))[:num_queries]
    asked = {entry.name for entry in answers}
    others = shuffled(e for e in kept_out if e.name not in asked)
    corpus = shuffled([*answers, *others[: num_passages - len(answers)]])

    output_dir.mkdir(parents=True, exist_ok=True)
    qrels = [f"q{i} 0 {entry.name} 1\n" for i, entry in enumerate(answers)]
    (output_dir / "qrels.dev.tsv").write_text("".join(qrels).replace(" ", "\t"), encoding="utf-8")
    return {
        "training pairs": write_lines(
            output_dir / "train.jsonl",
            ({"query": e.query, "positive": e.passage} for e in shuffled(train)),
        ),
        "passages": write_lines(
            output_dir / "corpus.jsonl",
            ({"text_id": e.name, "text": e.passage} for e in corpus),
        ),
        "queries": write_lines(
            output_dir / "queries.dev.jsonl",
            ({"text_id": f"q{i}", "text": e.query} for i, e in enumerate(answers)),
        ),
    }


def main() -> None:
    """Build the collection that the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output_dir", type=Path, required=True)
    parser.add_argument("--num_passages", type=int, default=2500)
    parser.add_argument("--num_queries", type=int, default=500)
    parser.add_argument("--packages", nargs="+", default=PACKAGES, help="python: the library")
    flags = parser.parse_args()
    sizes = build(
        flags.output_dir,
        num_passages=flags.num_passages,
        num_queries=flags.num_queries,
        packages=flags.packages,
    )
    print(", ".join(f"{number:,} {name}" for name, number in sizes.items()))


if __name__ == "__main__":
    main()
