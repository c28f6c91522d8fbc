"""Embedding files: those of the first dense-retrieval toolkits, and our own.

    NAME (a pickle)                      Tevatron and OpenMatch: (array [N, D], list of ids)
    passage.npy, query.npy               RetroMAE: beside offset2passageid.txt, offset2queryid.txt
    corpus_embeds.npy, query_embeds.npy  Disentangled-Retriever: beside corpus_ids.npy, qids.npy
    NAME.npy                             ours: beside NAME.ids.txt, one id a line
    a folder with `index` and `docid`    the first Asyncval: a flat FAISS index

Nothing that is in a pickle is run.
"""

import math
import struct
import tokenize
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from asyncval.core.errors import InvalidData
from asyncval.data.files import read_lines
from asyncval.data.pickles import is_pickle, read_pickle
from asyncval.data.runs import read_run

ID_FILES = {
    "passage.npy": "offset2passageid.txt",
    "query.npy": "offset2queryid.txt",
    "corpus_embeds.npy": "corpus_ids.npy",
    "query_embeds.npy": "qids.npy",
}
"""Arrays of other toolkits, and the files beside them that have the ids of their rows."""

FLAT_KINDS = (b"IxFI", b"IxF2")
FLAT_HEADER = struct.Struct("<4siqqq?iQ")
"""How a flat FAISS index begins."""

ZIP_MAGIC = b"PK"
BROKEN_ARRAY = (
    EOFError,
    MemoryError,
    OSError,
    OverflowError,
    RecursionError,
    SyntaxError,
    TypeError,
    ValueError,
    tokenize.TokenError,
)
"""What numpy raises for a file that is damaged, or for rows that are no array."""

Embeddings = tuple[NDArray[np.float32], list[str]]
"""Vectors [N, D], and the N ids of their rows."""


def read_embeddings(paths: Sequence[Path]) -> Embeddings:
    """Return all vectors, contiguous, and their ids, in the order of the files.

    One array on disk that is float32 already is mapped into memory rather than read.

    Args:
        paths: Files, or folders of the first Asyncval; several are parts of one whole.

    Raises:
        InvalidData: A file cannot be read or does not fit the others, or an id stands twice.
    """
    parts = [(path, *_read_part(path)) for path in paths]
    if not parts:
        raise InvalidData("There is no embeddings file.")
    filled = [part for part in parts if len(part[2])] or parts[:1]
    first, vectors, _ = filled[0]
    for path, others, _ in filled:
        if others.shape[1:] != vectors.shape[1:]:
            raise InvalidData(
                f"{str(path)!r} has vectors of {others.shape[1]} dimensions, and {str(first)!r} of "
                f"{vectors.shape[1]}: they are not of one model."
            )
    ids = [each for _, _, part_ids in parts for each in part_ids]
    if len(set(ids)) < len(ids):
        seen: set[str] = set()
        twice = next(each for each in ids if each in seen or seen.add(each))  # type: ignore[func-returns-value]
        raise InvalidData(f"The id {twice!r} stands twice in {_listed(paths)}.")
    if len(filled) == 1:
        return np.ascontiguousarray(vectors, dtype=np.float32), ids
    whole = np.empty((len(ids), vectors.shape[1]), dtype=np.float32)
    np.concatenate([part for _, part, _ in filled], out=whole, casting="unsafe")
    return whole, ids


def read_scores(path: Path) -> dict[str, dict[str, float]]:
    """Return a teacher's scores: query id to passage id to score.

    A pickle, perhaps gzipped, of `{query: {passage: score}}`, as sentence-transformers and
    Disentangled-Retriever have it, or lines of `query passage score`, as RetroMAE writes them.

    Raises:
        InvalidData: It is neither, or has no score, or one that is no finite number.
    """
    if not path.is_file():
        raise InvalidData(f"There is no file {str(path)!r}.")
    scores: dict[str, dict[str, float]] = {}
    if not is_pickle(path):
        for line in read_run(path, run_type="score"):
            scores.setdefault(line.query_id, {})[line.passage_id] = line.score or 0.0
        return _checked(scores, path)
    found = read_pickle(path)
    if not isinstance(found, dict):
        raise _no_scores(path)
    for query_id, passages in zip(_to_ids(found, path), found.values(), strict=True):
        if not isinstance(passages, dict):
            raise _no_scores(path)
        try:
            values = [float(score) for score in passages.values()]
        except (TypeError, ValueError, OverflowError) as error:
            raise _no_scores(path) from error
        scores[query_id] = dict(zip(_to_ids(passages, path), values, strict=True))
    return _checked(scores, path)


def _checked(scores: dict[str, dict[str, float]], path: Path) -> dict[str, dict[str, float]]:
    if not any(scores.values()):
        raise _no_scores(path)
    for query_id, passages in scores.items():
        for passage_id, score in passages.items():
            if not math.isfinite(score):
                raise InvalidData(
                    f"{str(path)!r} has the score {score} for query {query_id!r} and passage "
                    f"{passage_id!r}: a finite number is needed."
                )
    return scores


def _no_scores(path: Path) -> InvalidData:
    return InvalidData(
        f"{str(path)!r} has no scores: {{query: {{passage: score}}}} is needed, or lines of query, "
        "passage and score."
    )


def _read_part(path: Path) -> tuple[NDArray[Any], list[str]]:
    """Return what one file has, its vectors in float32 or fewer bits."""
    if path.is_dir():
        vectors, ids = _read_faiss(path)
    elif not path.is_file():
        raise InvalidData(f"There is no embeddings file {str(path)!r}.")
    elif path.suffix == ".npy":
        vectors, ids = _load(path), _read_ids(path)
    elif is_pickle(path):
        vectors, ids = _read_pickled(path)
    else:
        raise InvalidData(
            f"{str(path)!r} is no embeddings file: give a pickle of Tevatron or OpenMatch, or a "
            ".npy with its ids beside it."
        )
    if vectors.ndim != 2 or vectors.dtype.kind != "f":
        if vectors.size or ids:
            raise InvalidData(
                f"{str(path)!r} has an array of {vectors.dtype} and the shape {vectors.shape} "
                "where vectors of floats [N, D] are needed."
            )
        vectors = np.empty((0, 0), dtype=np.float32)  # a process that had no texts writes []
    if len(vectors) != len(ids):
        raise InvalidData(f"{str(path)!r} has {len(vectors)} vectors, but {len(ids)} ids.")
    with np.errstate(all="ignore"):  # what overflows is found in the sum
        if vectors.dtype.itemsize > np.dtype(np.float32).itemsize:
            vectors = vectors.astype(np.float32)
        total = vectors.sum(dtype=np.float64)
    if not np.isfinite(total):
        raise InvalidData(
            f"{str(path)!r} has vectors with NaN or infinity in them, or with numbers that "
            "float32 cannot hold."
        )
    return vectors, ids


def _read_pickled(path: Path) -> tuple[NDArray[Any], list[str]]:
    found = read_pickle(path)
    if not isinstance(found, tuple | list) or len(found) != 2:
        raise InvalidData(f"{str(path)!r} has no embeddings: a pair of vectors and ids is needed.")
    vectors, ids = found
    if not isinstance(ids, list | np.ndarray):
        raise _no_ids(path)
    try:
        if isinstance(vectors, list):  # Tevatron's JAX driver writes one array a row
            lengths = {np.shape(row) for row in vectors}
            if len(lengths) > 1:
                raise InvalidData(f"{str(path)!r} has vectors of different dimensions.")
        array = np.asarray(vectors)
    except BROKEN_ARRAY as error:
        raise InvalidData(
            f"{str(path)!r} has vectors that are no array [N, D]: {error}."
        ) from error
    return array, _to_ids(ids, path)


def _to_ids(found: Iterable[Any], path: Path) -> list[str]:
    """Return ids as text: they are text, UTF-8 in bytes, or whole numbers.

    Raises:
        InvalidData: They are anything else, as floats, whose text is not what the ids were.
    """
    try:
        if isinstance(found, np.ndarray):
            if found.ndim != 1:
                raise _no_ids(path)
            found = found.tolist()
        return [_to_id(each) for each in found]
    except (SystemError, TypeError, ValueError) as error:  # the first: numpy, of no letters
        raise _no_ids(path) from error


def _to_id(value: object) -> str:
    if isinstance(value, bool) or not isinstance(value, str | bytes | int):
        raise TypeError
    text = value.decode() if isinstance(value, bytes) else str(value)
    text.encode()  # half a letter can be read, but never be written
    return text


def _no_ids(path: Path) -> InvalidData:
    return InvalidData(
        f"{str(path)!r} has no list of ids: one of text or of whole numbers is needed."
    )


def _load(path: Path) -> NDArray[Any]:
    try:
        with path.open("rb") as file:
            if file.read(len(ZIP_MAGIC)) == ZIP_MAGIC:
                raise InvalidData(f"{str(path)!r} is an .npz: save each of its arrays as a .npy.")
        found: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    except BROKEN_ARRAY as error:
        raise InvalidData(f"{str(path)!r} cannot be read as an array: {error}.") from error
    return found


def _read_ids(path: Path) -> list[str]:
    """Return the ids of an array's rows, from the file beside it."""
    beside = [path.with_suffix(".ids.txt")]
    if path.name in ID_FILES:
        beside.append(path.with_name(ID_FILES[path.name]))
    file = next((each for each in beside if each.is_file()), None)
    if file is None:
        names = " or ".join(repr(each.name) for each in beside)
        raise InvalidData(f"{str(path)!r} has no ids: there is no {names} beside it.")
    if file.suffix == ".npy":
        return _to_ids(_load(file), file)
    lines = read_lines(file)
    if file.name.startswith("offset2"):
        return [_id_of_row(line, row, file) for row, (_, _, line) in enumerate(lines)]
    return [line for _, _, line in lines]


def _id_of_row(line: str, row: int, file: Path) -> str:
    fields = line.split("\t")
    if len(fields) < 2 or fields[0] != str(row):
        raise InvalidData(
            f"{str(file)!r}, line {row + 1}: row {row} and its id are needed, with a tab between."
        )
    return fields[1]


def _read_faiss(folder: Path) -> tuple[NDArray[Any], list[str]]:
    index_file, ids = folder / "index", folder / "docid"
    if not index_file.is_file() or not ids.is_file():
        raise InvalidData(
            f"{str(folder)!r} is a folder without `index` and `docid`: give the embeddings file."
        )
    return _read_flat_index(index_file), [line for _, _, line in read_lines(ids)]


def _read_flat_index(path: Path) -> NDArray[np.float32]:
    """Map the vectors of a flat index, [N, D], without FAISS, which trusts its files.

    The file has a kind, then D, N, two unused numbers, a byte and the metric, then how many
    floats follow.
    """
    with path.open("rb") as file:
        header = file.read(FLAT_HEADER.size)
    if len(header) < FLAT_HEADER.size or header[:4] not in FLAT_KINDS:
        raise InvalidData(f"{str(path)!r} is no flat FAISS index (IndexFlatIP or IndexFlatL2).")
    _, dimension, num_vectors, _, _, _, _, num_floats = FLAT_HEADER.unpack(header)
    fits = path.stat().st_size == FLAT_HEADER.size + 4 * num_floats
    if dimension < 1 or num_floats != dimension * num_vectors or not fits:
        raise InvalidData(f"{str(path)!r} is damaged: it has not the vectors that it announces.")
    if not num_floats:
        return np.empty((0, dimension), dtype=np.float32)
    shape = (num_vectors, dimension)
    return np.memmap(path, dtype=np.float32, mode="r", offset=FLAT_HEADER.size, shape=shape)


def _listed(paths: Sequence[Path]) -> str:
    return ", ".join(repr(str(path)) for path in paths)
