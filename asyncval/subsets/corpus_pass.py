"""One pass over a corpus: the lines of the passages that a subset keeps, and their sharing out."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import compress
from pathlib import Path

from asyncval.core.errors import InvalidData
from asyncval.core.sampling import Reservoir, Wanted, share_out
from asyncval.core.types import Record, TextForm
from asyncval.data.files import BYTE_ORDER_MARK, plain_suffix
from asyncval.data.sources import read_records
from asyncval.data.texts import record_id

PASSAGES_PER_NEWS = 4096
JSON_LINES = ".jsonl"
SIZE_BYTES = 4  # the last of a gzip file: its unpacked size modulo 2**32


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """How far a pass is, in bytes of the unpacked files; `total_bytes` may be too low."""

    num_read: int
    num_kept: int
    done_bytes: int
    total_bytes: int


ReadingListener = Callable[[Reading], None]


@dataclass(slots=True)
class Kept:
    """What a pass found, in a file of lines of which not all are kept.

    `lines` has 1 for every line that is kept and 0 for one that was drawn and lost its place
    to a later one. `drawn` has the id and the line number in each place of the reservoir.
    """

    path: Path
    num_read: int = 0
    num_bytes: int = 0
    lines: bytearray = field(default_factory=bytearray)
    drawn: dict[int, tuple[str, int]] = field(default_factory=dict)
    suffix: str = ""
    """That of a file with such lines."""

    def __len__(self) -> int:
        return self.lines.count(1)

    def reading(self, total_bytes: int) -> Reading:
        """Return how far the pass is."""
        return Reading(
            num_read=self.num_read,
            num_kept=len(self),
            done_bytes=self.num_bytes,
            total_bytes=total_bytes,
        )


def collect(
    files: Sequence[Path],
    *,
    form: TextForm,
    wanted: Wanted,
    reservoir: Reservoir,
    path: Path,
    listener: ReadingListener,
) -> Kept:
    """Write the lines of the wanted passages and of those that are drawn to `path`, in order.

    Raises:
        InvalidData: A line cannot be read, a kept passage stands twice, or lines of different
            formats would come together.
    """
    kept = Kept(path)
    total_bytes = sum(map(_unpacked_bytes, files))
    with path.open("wb") as output:
        for file in files:
            for passage in read_records(file, option="--candidate_dir", form=form):
                passage_id = record_id(passage)
                if passage_id in wanted:
                    if not wanted.find(passage_id):
                        raise InvalidData(f"{str(file)!r}: the id {passage_id!r} stands twice.")
                    output.write(_whole_line(passage, kept))
                    kept.lines.append(1)
                elif reservoir.size and _draw(passage_id, reservoir, kept):
                    output.write(_whole_line(passage, kept))
                kept.num_read += 1
                kept.num_bytes += len(passage.raw)
                if kept.num_read % PASSAGES_PER_NEWS == 0:
                    listener(kept.reading(total_bytes))
    listener(kept.reading(kept.num_bytes))
    _check_drawn(kept)
    return kept


def _draw(passage_id: str, reservoir: Reservoir, kept: Kept) -> bool:
    place = reservoir.offer()
    if place is None:
        return False
    if place in kept.drawn:
        kept.lines[kept.drawn[place][1]] = 0
    kept.drawn[place] = passage_id, len(kept.lines)
    kept.lines.append(1)
    return True


def _check_drawn(kept: Kept) -> None:
    seen: set[str] = set()
    for passage_id, _ in kept.drawn.values():
        if passage_id in seen:
            raise InvalidData(f"--candidate_dir: the id {passage_id!r} stands twice in the corpus.")
        seen.add(passage_id)


def _whole_line(passage: Record, kept: Kept) -> bytes:
    """Return a passage's own line, fit to stand anywhere in a file; what has none gets JSON."""
    suffix = plain_suffix(passage.path) if passage.raw else JSON_LINES
    suffix = JSON_LINES if suffix == ".json" else suffix
    if kept.suffix not in ("", suffix):
        raise InvalidData(
            f"--candidate_dir: files of different formats ({kept.suffix}, {suffix}) cannot become "
            "one subset: split them apart."
        )
    kept.suffix = suffix
    if not passage.raw:
        return json.dumps(passage.values, ensure_ascii=False, default=str).encode() + b"\n"
    raw = passage.raw.removeprefix(BYTE_ORDER_MARK)
    return raw if raw.endswith(b"\n") else raw + b"\n"


def _unpacked_bytes(path: Path) -> int:
    if not path.is_file():
        return 0
    size = path.stat().st_size
    if path.suffix != ".gz" or size < SIZE_BYTES:
        return size
    with path.open("rb") as file:
        file.seek(-SIZE_BYTES, 2)
        return int.from_bytes(file.read(), "little")


def share_out_lines(kept: Kept, *, num_files: int) -> Mapping[Path, int]:
    """Write the kept lines into files beside theirs, evenly, which is then removed.

    Returns:
        How many passages are in each file. Where there are fewer passages than files, there
        is one file for each.
    """
    shards: dict[Path, int] = {}
    with kept.path.open("rb") as file:
        lines: Iterator[bytes] = compress(file, kept.lines)
        for number, size in enumerate(filter(None, share_out(len(kept), num_files))):
            shard = kept.path.with_name(f"split{number:02d}{kept.suffix}")
            with shard.open("wb") as output:
                for _ in range(size):
                    output.write(next(lines))
            shards[shard] = size
    kept.path.unlink()
    return shards
