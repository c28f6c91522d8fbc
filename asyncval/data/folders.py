"""Folders that hold queries, passages and judgements together, as BEIR's do.

    queries.jsonl   or another readable file of that name
    corpus.jsonl    or another readable file, or a folder `corpus`
    qrels/test.tsv  or the only file in `qrels`, or a file of that name

`ir_datasets:NAME` holds all three, too.
"""

from pathlib import Path

from asyncval.core.errors import InvalidData
from asyncval.data.files import plain_stem
from asyncval.data.sources import text_format

TEST = "test"


def queries_in(place: Path, *, option: str = "--query_file") -> Path:
    """Return the queries of a folder; a place that is no such folder is returned as it is.

    Raises:
        InvalidData: The folder has none.
    """
    if not place.is_dir() or text_format(place) is not None:
        return place
    found = _named(place, "queries")
    if found is None:
        raise InvalidData(
            f"{option}: the folder {str(place)!r} has no queries.jsonl or queries.tsv."
        )
    return found


def corpus_in(place: Path, *, option: str) -> Path:
    """Return the passages of a folder.

    Raises:
        InvalidData: It has none.
    """
    if not place.is_dir() or text_format(place) is not None:
        return place
    inside = place / "corpus"
    found = inside if inside.is_dir() else _named(place, "corpus")
    if found is None:
        raise InvalidData(
            f"{option}: the folder {str(place)!r} has no corpus.jsonl, corpus.tsv or corpus/."
        )
    return found


def qrels_in(place: Path, *, option: str = "--qrel_file") -> Path:
    """Return the judgements of a folder: those called `test`, or the only ones that there are.

    Raises:
        InvalidData: It has none, or several and none is called `test`.
    """
    if not place.is_dir():
        return place
    inside = place / "qrels" if (place / "qrels").is_dir() else place
    pattern = "*" if inside.name == "qrels" else "qrels.*"
    files = sorted(each for each in inside.glob(pattern) if each.is_file())
    tests = [each for each in files if plain_stem(each) == TEST]
    if len(tests) == 1 or len(files) == 1:
        return (tests or files)[0]
    names = ", ".join(each.name for each in files) or "none"
    raise InvalidData(
        f"{option}: the folder {str(inside)!r} has no one file of judgements ({names}): give one."
    )


def _named(folder: Path, stem: str) -> Path | None:
    found = [
        each
        for each in sorted(folder.iterdir())
        if plain_stem(each) == stem and text_format(each) is not None
    ]
    return found[0] if found else None
