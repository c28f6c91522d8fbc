"""A teacher's scores that stand in files of their own.

qid docid score                     RetroMAE's lines; the score may be in brackets
{qid: {docid: score}}, pickled      Disentangled-Retriever's, gzipped or not
"""

import gzip
import zlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from trainer.errors import InputError
from trainer.formats.json_texts import number_of
from trainer.lines import GZIP_MAGIC, KeyedLines, LineFile, key_of

PICKLE = b"\x80"


class Teacher:
    """The scores of all files; the first file that has one counts."""

    def __init__(self, paths: Iterable[Path]) -> None:
        """Index text files, of which only 24 bytes a query stay in memory, and read pickles."""
        self._sources = [
            PickledScores(path) if _is_pickle(path) else ScoreLines(path) for path in paths
        ]

    def scores(self, query_id: str, passage_ids: Iterable[str]) -> list[float | None]:
        """Return the scores of some passages of a query; None for one that was not scored."""
        wanted = list(passage_ids)
        found: list[float | None] = [None] * len(wanted)
        for source in self._sources:
            new = source.scores(query_id, wanted)
            found = [old if old is not None else each for old, each in zip(found, new, strict=True)]
        return found


class ScoreLines:
    """Lines of `query passage score`."""

    def __init__(self, path: Path) -> None:
        file = LineFile(path, option="--teacher_score_files", kind="Teacher scores")
        self._lines = KeyedLines(file, _score_line)
        if not len(self._lines):
            raise InputError(f"{file.where} has no score in it.")

    def scores(self, query_id: str, passage_ids: list[str]) -> list[float | None]:
        """Return the scores of some passages of a query."""
        known = dict(self._lines.find(query_id))
        return [known.get(each) for each in passage_ids]


class PickledScores:
    """A pickle, of which 12 bytes a score are kept; nothing that it may hold is run."""

    def __init__(self, path: Path) -> None:
        from asyncval.api import AsyncvalError, read_scores

        try:
            read = read_scores(path)
        except AsyncvalError as error:
            raise InputError(f"--teacher_score_files: {error}") from error
        pairs = (_pair(query, each) for query, passages in read.items() for each in passages)
        keys = np.fromiter(pairs, dtype=np.int64)
        values = (value for passages in read.values() for value in passages.values())
        order = np.argsort(keys)
        self._keys = keys[order]
        self._values = np.fromiter(values, dtype=np.float32)[order]
        if not len(keys):
            raise InputError(f"Teacher scores {str(path)!r} has no score in it.")

    def scores(self, query_id: str, passage_ids: list[str]) -> list[float | None]:
        """Return the scores of some passages of a query."""
        wanted = np.array([_pair(query_id, each) for each in passage_ids], dtype=np.int64)
        places = np.searchsorted(self._keys, wanted).clip(max=len(self._keys) - 1)
        there = self._keys[places] == wanted
        return [
            float(self._values[place]) if found else None
            for place, found in zip(places, there, strict=True)
        ]


def _pair(query_id: str, passage_id: str) -> int:
    return key_of(f"{query_id}\t{passage_id}")


def _score_line(line: str) -> tuple[str, tuple[str, float]]:
    fields = line.split()
    if len(fields) != 3:
        raise ValueError(f"{line.strip()!r} is not `query passage score`")
    try:
        return fields[0], (fields[1], number_of(float(fields[2].strip("[]"))))
    except ValueError:
        raise ValueError(f"the score {fields[2]!r} that is not a finite number") from None


def _is_pickle(path: Path) -> bool:
    if not path.is_file():
        return False  # reading its lines says so
    with path.open("rb") as file:
        first = file.read(2)
    if first == GZIP_MAGIC:
        try:
            with gzip.open(path) as file:
                first = file.read(1)
        except (OSError, EOFError, zlib.error):
            return False  # so does reading these
    return first.startswith(PICKLE)
