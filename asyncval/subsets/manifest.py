"""`subset.json`: what a corpus subset was made from, and whether it fits what it is used for."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from asyncval import __version__
from asyncval.core.errors import InvalidData
from asyncval.core.types import Judgements
from asyncval.data.qrels import read_qrels
from asyncval.data.sources import digest_of

FILE_NAME = "subset.json"
FORMAT = 1
NUM_EXAMPLES = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Input:
    """A file that went in; `judgements` is the digest of what a qrels file says."""

    path: str
    bytes: int
    sha256: str
    judgements: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Shard:
    """A file that came out."""

    name: str
    passages: int
    bytes: int
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """Everything that is known of a subset.

    `sources` says for each why passages are there how many were wanted and how many the
    corpus has; a passage may have several. `missing` is how many wanted passages the corpus
    does not have, with a few `missing_examples`.
    """

    candidates: tuple[Input, ...]
    runs: tuple[Input, ...]
    qrels: tuple[Input, ...]
    arguments: Mapping[str, Any]
    num_read: int
    num_kept: int
    sources: Mapping[str, Mapping[str, int]]
    missing: int
    files: tuple[Shard, ...]
    missing_examples: tuple[str, ...] = ()
    made_by: str = field(default=f"asyncval {__version__}")
    format: int = FORMAT

    def write(self, folder: Path) -> None:
        """Write it into the subset's folder."""
        text = json.dumps(asdict(self), indent=2, ensure_ascii=False)
        (folder / FILE_NAME).write_text(text + "\n", encoding="utf-8")


def describe(path: Path, *, judgements: Judgements | None = None) -> Input:
    """Return a place's path, size and digests; what is no file has the size 0.

    Raises:
        InvalidData: It cannot be read.
    """
    digest, size = _digest(path) if path.is_file() else (digest_of([path]), 0)
    return Input(
        path=str(path),
        bytes=size,
        sha256=digest,
        judgements=None if judgements is None else judgements_digest(judgements),
    )


def describe_shard(path: Path, *, num_passages: int) -> Shard:
    """Return what the manifest says of a file of the subset."""
    digest, size = _digest(path)
    return Shard(name=path.name, passages=num_passages, bytes=size, sha256=digest)


def _digest(path: Path) -> tuple[str, int]:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest(), file.tell()
    except OSError as error:
        raise InvalidData(f"{str(path)!r} cannot be read: {error.strerror}.") from error


def judgements_digest(judgements: Judgements) -> str:
    """Return a digest of what is judged, whatever the form and the order of the file."""
    whole = hashlib.sha256()
    for query_id in sorted(judgements):
        for passage_id, grade in sorted(judgements[query_id].items()):
            whole.update(f"{query_id}\0{passage_id}\0{grade}\n".encode())
    return whole.hexdigest()


def manifest_remarks(candidates: Sequence[Path], qrel_files: Sequence[Path]) -> list[str]:
    """Return what a user should know who validates on these passages with these judgements.

    Args:
        candidates: Folders or files of passages; those without a manifest pass unremarked.
        qrel_files: The judgements that they are to be used with.

    Raises:
        InvalidData: A qrels file or a passage file cannot be read.
    """
    there = [each for each in candidates if each.exists()]
    folders = dict.fromkeys(each if each.is_dir() else each.parent for each in there)
    found = [folder for folder in folders if (folder / FILE_NAME).is_file()]
    remarks: list[str] = []
    for folder in found:
        try:
            manifest = json.loads((folder / FILE_NAME).read_text(encoding="utf-8"))
            remarks += _changed_files(folder, manifest["files"])
            remarks += _other_judgements(folder, manifest["qrels"], qrel_files)
        except (OSError, ValueError, KeyError, TypeError):
            remarks.append(
                f"{str(folder / FILE_NAME)!r} cannot be read as the manifest of a subset, so "
                "nobody knows whether it fits these judgements."
            )
    return remarks


def _changed_files(folder: Path, files: Sequence[Mapping[str, Any]]) -> list[str]:
    remarks = []
    for file in files:
        path = folder / file["name"]
        if not path.is_file():
            remarks.append(
                f"{str(path)!r} is missing: its manifest says that {file['passages']} passages "
                "are in it. Make the subset anew with `asyncval split`."
            )
        elif _digest(path) != (file["sha256"], file["bytes"]):
            remarks.append(
                f"{str(path)!r} is not as `asyncval split` wrote it: its content differs from "
                "what the manifest says."
            )
    return remarks


def _other_judgements(
    folder: Path, made_for: Sequence[Mapping[str, Any]], qrel_files: Sequence[Path]
) -> list[str]:
    known = {each["judgements"] for each in made_for}
    names = ", ".join(repr(each["path"]) for each in made_for)
    return [
        f"The subset in {str(folder)!r} was made for the judgements in {names}, and those in "
        f"{str(path)!r} are others: their relevant passages need not be in it. Make one for them "
        "with `asyncval split`, or its numbers will be too low."
        for path in dict.fromkeys(qrel_files)
        if judgements_digest(read_qrels(path)) not in known
    ]
