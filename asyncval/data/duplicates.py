"""Whether an id stands twice, at eight bytes an id."""

from array import array
from collections.abc import Iterable
from pathlib import Path

import numpy as np


class SeenIds:
    """Hashes of ids; equal ones are suspects, which another pass has to look at.

    Two ids of ten million have the same hash by chance once in hundreds of thousands of runs.
    """

    def __init__(self) -> None:
        self._hashes = array("q")

    def __len__(self) -> int:
        return len(self._hashes)

    def add(self, text_id: str) -> None:
        """Note an id."""
        self._hashes.append(hash(text_id))

    def suspects(self) -> frozenset[int]:
        """Return the hashes that came more than once."""
        hashes = np.frombuffer(self._hashes, dtype=np.int64)
        hashes.sort()  # where they are
        return frozenset(hashes[1:][hashes[1:] == hashes[:-1]].tolist())


def first_repeated(
    text_ids: Iterable[tuple[Path, str]], suspects: frozenset[int]
) -> tuple[Path, str] | None:
    """Return the first id that was there before, and its file; None where there is none."""
    seen: set[str] = set()
    for path, text_id in text_ids:
        if hash(text_id) in suspects:
            if text_id in seen:
                return path, text_id
            seen.add(text_id)
    return None
