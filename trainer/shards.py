"""Vectors on disk, in shards that know what they are: three files each.

    passages-0-of-4.npy       float32 [N, D]
    passages-0-of-4.ids.txt   the N ids, one a line
    passages-0-of-4.json      which model, texts and encoding they come from

A shard whose `.npy` is there is whole: it is renamed last.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainer.errors import InputError

Origin = Mapping[str, Any]
"""What vectors depend on: `model`, `texts` (digests), and the options of the encoding."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shard:
    """The place of one shard: number `index` of `num`, of the `side` queries or passages."""

    folder: Path
    side: str
    index: int
    num: int

    @property
    def stem(self) -> str:
        """What the names of its files begin with."""
        return f"{self.side}-{self.index}-of-{self.num}"

    @property
    def vectors(self) -> Path:
        """The file that is there when the shard is whole."""
        return self.folder / f"{self.stem}.npy"

    def is_there(self, origin: Origin) -> bool:
        """Say whether the shard is whole already.

        Raises:
            InputError: It is, but comes from something else.
        """
        if not self.vectors.exists():
            return False
        different = difference(origin_of(self.vectors), origin)
        if different:
            raise InputError(
                f"{str(self.vectors)!r} is there already, with another {different}. Give another "
                "--encoded_save_path, or --overwrite."
            )
        return True

    def write(
        self,
        ids: Sequence[str],
        portions: Iterable[tuple[NDArray[np.int64], NDArray[np.float32]]],
        *,
        origin: Origin,
    ) -> None:
        """Write the shard; vectors go to disk as they come.

        Args:
            ids: [N] ids.
            portions: Rows [n] of the shard and their vectors [n, D]; together, every row once.
            origin: Where they come from.
        """
        line_break = next((each for each in ids if "\n" in each), None)
        if line_break is not None:
            raise InputError(f"The id {line_break!r} has a line break in it. Choose another id.")
        self.folder.mkdir(parents=True, exist_ok=True)
        partial = self.folder / f".{self.stem}.partial.npy"
        vectors: NDArray[np.float32] | None = None
        try:
            for rows, some in portions:
                if vectors is None:
                    vectors = np.lib.format.open_memmap(
                        partial, mode="w+", dtype=np.float32, shape=(len(ids), some.shape[1])
                    )
                vectors[rows] = some
            assert isinstance(vectors, np.memmap), "a shard has at least one text"
            vectors.flush()
            self.vectors.unlink(missing_ok=True)  # an older one, which has other ids
            self._write_text("ids.txt", "".join(f"{each}\n" for each in ids))
            self._write_text("json", json.dumps(origin, indent=2) + "\n")
            partial.replace(self.vectors)
        finally:
            partial.unlink(missing_ok=True)

    def _write_text(self, suffix: str, content: str) -> None:
        partial = self.folder / f".{self.stem}.partial.{suffix}"
        partial.write_text(content, encoding="utf-8")
        partial.replace(self.folder / f"{self.stem}.{suffix}")


def origin_of(vectors: Path) -> Origin:
    """Return where a file's vectors come from, nothing where it is not one of our shards."""
    try:
        found = json.loads(vectors.with_suffix(".json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def difference(one: Origin, other: Origin) -> str:
    """Return the name of the first thing in which two origins differ, or nothing."""
    return next((key for key in {**one, **other} if one.get(key) != other.get(key)), "")


def embedding_files(paths: Sequence[Path], *, side: str, option: str) -> list[Path]:
    """Return the files that paths, patterns and folders of our shards stand for.

    Raises:
        InputError: There are none, or shards that do not belong together, or one is missing.
    """
    files: list[Path] = []
    for path in paths:
        if path.exists():
            files += _shards_in(path, side, option) if path.is_dir() else [path]
        else:  # a shell leaves a pattern as it is when it is quoted
            found = sorted(path.parent.glob(path.name)) if "*" in path.name else []
            if not found:
                raise InputError(f"{option}: there is no file {str(path)!r}.")
            files += [each for each in found if not each.name.endswith((".json", ".ids.txt"))]
    for one, other in pairwise(file for file in files if origin_of(file)):
        different = difference(origin_of(one), origin_of(other))
        if different:
            raise InputError(
                f"{option}: {str(one)!r} and {str(other)!r} do not belong together: another "
                f"{different}. Encode one of them anew."
            )
    return files


def _shards_in(folder: Path, side: str, option: str) -> list[Path]:
    found = sorted(folder.glob(f"{side}-*-of-*.npy"))
    if not found:
        if (folder / "index").is_file():  # the first Asyncval's
            return [folder]
        raise InputError(
            f"{option}: {str(folder)!r} has no {side}-*.npy in it. Give a folder that `encode` "
            "wrote, or the files themselves."
        )
    nums = {int(path.stem.rpartition("-")[2]) for path in found}
    if len(nums) > 1:
        raise InputError(
            f"{option}: {str(folder)!r} has shards of {' and of '.join(map(str, sorted(nums)))}. "
            "Remove those of one encoding."
        )
    (num,) = nums
    shards = [Shard(folder=folder, side=side, index=index, num=num) for index in range(num)]
    missing = [shard.vectors.name for shard in shards if not shard.vectors.exists()]
    if missing:
        raise InputError(f"{option}: {str(folder)!r} lacks {', '.join(missing)}.")
    return [shard.vectors for shard in shards]
