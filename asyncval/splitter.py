"""`asyncval split`: a subset of a corpus that is small and hard. One pass, linear time.

`python -m asyncval.splitter` is the first Asyncval's spelling of it.
"""

import logging
import shutil
import sys
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from asyncval.core.errors import InvalidData, InvalidOption, NothingToDo, OutputUnavailable
from asyncval.core.sampling import judged_passages, passages_of_run, share_out
from asyncval.core.types import RunType
from asyncval.data.collection import read_texts
from asyncval.data.files import passage_files, plain_suffix
from asyncval.data.qrels import read_qrels
from asyncval.data.runs import read_run

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Split:
    """What a split did: how many passages were read, kept, and wanted in vain."""

    num_read: int
    num_kept: int
    num_missing: int
    files: tuple[Path, ...]


def split(
    *,
    candidates: Sequence[Path],
    run_file: Path,
    qrel_files: Sequence[Path],
    output_dir: Path,
    depth: int,
    num_splits: int = 1,
    run_type: RunType = "auto",
) -> Split:
    """Write the passages that the run retrieved or that are judged, as their files have them.

    The lines keep their bytes and their order. The files appear together or not at all.

    Raises:
        UsageError: An input cannot be used, or the output is there already.
        NothingToDo: No wanted passage is in the corpus.
    """
    if depth < 1 or num_splits < 1:
        raise InvalidOption(f"--depth {depth} and --num_splits {num_splits} must be 1 or more.")
    files = passage_files(candidates)
    suffixes = {plain_suffix(path) for path in files}
    if len(suffixes) > 1:
        raise InvalidData(
            f"--candidate_dir: files of different formats ({', '.join(sorted(suffixes))}) cannot "
            "become one subset: split them apart."
        )
    if output_dir.exists() and any(output_dir.glob("split*")):
        raise OutputUnavailable(
            f"--output_dir: {str(output_dir)!r} has a subset already. Remove it or give another."
        )
    wanted = passages_of_run(read_run(run_file, run_type=run_type), depth=depth)
    if not wanted:
        raise InvalidData(f"--run_file: {str(run_file)!r} is empty.")
    wanted |= judged_passages(map(read_qrels, qrel_files))
    logger.info("Looking for %d passages in %d files.", len(wanted), len(files))
    partial = output_dir.with_name(f".{output_dir.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        partial.mkdir(parents=True)
        num_read, num_kept = _collect(files, wanted, partial / "kept")
        if not num_kept:
            raise NothingToDo(
                f"None of the {len(wanted)} wanted passages is in the corpus: do the run and the "
                "judgements belong to it?"
            )
        suffix = ".jsonl" if suffixes == {".json"} else suffixes.pop()
        names = _share_out(partial / "kept", num_kept, num_splits, suffix)
        (partial / "kept").unlink()
        output_dir.mkdir(parents=True, exist_ok=True)
        for name in names:
            (partial / name).replace(output_dir / name)
    except OSError as error:
        raise OutputUnavailable(
            f"--output_dir: {str(output_dir)!r} cannot be written: {error.strerror}."
        ) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return Split(
        num_read=num_read,
        num_kept=num_kept,
        num_missing=len(wanted) - num_kept,
        files=tuple(output_dir / name for name in names),
    )


def _collect(files: Sequence[Path], wanted: set[str], place: Path) -> tuple[int, int]:
    """Write the lines of the wanted passages to `place`; return how many were read and kept."""
    num_read = 0
    found: set[str] = set()
    with place.open("wb") as output:
        for path in files:
            for passage in read_texts(path, option="--candidate_dir"):
                num_read += 1
                if passage.id not in wanted:
                    continue
                if passage.id in found:
                    raise InvalidData(f"{str(path)!r}: the id {passage.id!r} stands twice.")
                found.add(passage.id)
                output.write(passage.raw.rstrip(b"\r\n") + b"\n")
    return num_read, len(found)


def _share_out(place: Path, total: int, parts: int, suffix: str) -> list[str]:
    """Copy the lines of a file into `parts` files beside it; return their names."""
    names = []
    with place.open("rb") as lines:
        for number, size in enumerate(share_out(total, parts)):
            name = f"split{number:02d}{suffix}"
            with (place.parent / name).open("wb") as output:
                deque((output.write(lines.readline()) for _ in range(size)), maxlen=0)
            names.append(name)
    return names


if __name__ == "__main__":
    from asyncval.cli import main

    sys.exit(main(["split", *sys.argv[1:]]))
