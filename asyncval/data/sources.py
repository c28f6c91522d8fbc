"""Where texts come from: which format reads a place, what a folder offers, digests.

A place is a file, a folder, or a name such as `ir_datasets:beir/scifact`.
"""

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import cast

from asyncval.core.errors import InvalidData
from asyncval.core.ports import TextFormat
from asyncval.core.types import Record, Text, TextForm
from asyncval.data import TEXT_FORMAT_GROUP, TEXT_FORMATS
from asyncval.data.files import FileFormat, plain_stem, plain_suffix
from asyncval.data.ir_datasets import dataset_name
from asyncval.data.texts import to_texts
from asyncval.lookup import additions, look_up

NO_PASSAGES = ("subset.json",)
PLAIN = TextForm()


def text_format(place: Path, name: str = "auto") -> TextFormat | None:
    """Return the format of this name, or with `auto` the first that recognises a place, if any."""
    if name != "auto":
        return _format(name)
    return next((each for each in _formats() if each.recognises(place)), None)


def _format(name: str) -> TextFormat:
    kind = look_up(name, TEXT_FORMATS, option="--text_format", group=TEXT_FORMAT_GROUP)
    return cast(TextFormat, kind())


def _formats() -> Iterator[TextFormat]:
    return map(_format, dict.fromkeys([*TEXT_FORMATS, *additions(TEXT_FORMAT_GROUP)]))


def require_text_format(place: Path, *, option: str, name: str = "auto") -> TextFormat:
    """Return the format that reads a place.

    Raises:
        InvalidData: There is nothing, or an empty file, or something that nothing reads.
    """
    found = text_format(place, name)
    if not place.exists() and (found is None or found.suffixes):
        raise InvalidData(f"{option}: there is no file {str(place)!r}.")
    if place.is_file() and place.stat().st_size == 0:
        raise InvalidData(f"{option}: the file {str(place)!r} is empty.")
    if found is None:
        raise InvalidData(
            f"{option}: {str(place)!r} is nothing that a format reads: name it "
            f"{' or '.join(_suffixes())} (.gz may follow), or say --text_format."
        )
    return found


def _suffixes() -> list[str]:
    return [each.suffixes[0] for each in _formats() if each.suffixes]


def located(place: Path) -> str:
    """Return a place as it can be given to a process in another folder."""
    return str(place.absolute()) if place.exists() else str(place)


def place_stem(place: Path) -> str:
    """Return what to call the texts of a place: its name without suffixes."""
    name = dataset_name(place)
    return name.replace("/", "-") if name is not None else plain_stem(place)


def read_records(place: Path, *, option: str, form: TextForm = PLAIN) -> Iterator[Record]:
    """Yield the records of one place in whichever format it is."""
    return require_text_format(place, option=option, name=form.format).read(place, form)


def read_texts(place: Path, *, option: str, form: TextForm = PLAIN) -> Iterator[Text]:
    """Yield the texts of one place in whichever format it is."""
    return to_texts(read_records(place, option=option, form=form), form)


def passage_files(
    candidates: Sequence[Path], *, option: str = "--candidate_dir", form: TextForm = PLAIN
) -> list[Path]:
    """Return the places that `candidates` offer, which are files, folders or names, in order.

    A folder that is no place itself gives its readable files by name, or, where it is a BEIR
    data set, only its `corpus.jsonl`. Where a format is named and nothing has its suffixes, all
    files are meant.

    Raises:
        InvalidData: Something is not there, or a folder has no passage file.
    """
    files: list[Path] = []
    for candidate in candidates:
        if not candidate.is_dir() or text_format(candidate) is not None:
            require_text_format(candidate, option=option, name=form.format)
            files.append(candidate)
            continue
        there = sorted(
            path
            for path in candidate.iterdir()
            if path.is_file() and not path.name.startswith(".") and path.name not in NO_PASSAGES
        )
        inside = [path for path in there if _reads(path, form)]
        if not inside and form.format != "auto":
            inside = there
        corpus = [path for path in inside if plain_stem(path) == "corpus"]
        if not inside:
            raise InvalidData(
                f"{option}: the folder {str(candidate)!r} has no passage file "
                f"({', '.join(_suffixes())}, .gz may follow)."
            )
        files.extend(corpus or inside)
    return files


def _reads(path: Path, form: TextForm) -> bool:
    """Return whether a file in a folder is one of those that are meant."""
    found = text_format(path, form.format)
    return found is not None and (not found.suffixes or plain_suffix(path) in found.suffixes)


def digest_of(places: Sequence[Path], form: TextForm = PLAIN) -> str:
    """Return a digest of the content of all places, in order, and of how it is to be read.

    The names of files do not count.
    """
    whole = hashlib.sha256()
    for place in places:
        whole.update((text_format(place, form.format) or FileFormat()).digest(place))
    if form.format != "auto" or form.columns or form.template is not None:
        whole.update(repr((form.format, form.columns, form.template)).encode())
    return whole.hexdigest()
