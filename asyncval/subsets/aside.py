"""A folder that appears whole or not at all, whatever interrupts the writing of it."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from asyncval.core.errors import OutputUnavailable

NAME = ".asyncval.partial"


@contextmanager
def written_aside(folder: Path, *, last: str) -> Iterator[Path]:
    """Give an empty folder whose files become those of `folder` when the block ends well.

    Where `folder` is new, it appears in one step. Where it is there already, its other files
    stay, and the new ones move in one by one, `last` as the last: who finds that one finds
    all. After an exception or a signal that raises one, none of them is there.

    Args:
        folder: Where the files go; folders above it are made too.
        last: The name of the file that says that the others are complete.

    Raises:
        OutputUnavailable: Something cannot be written.
    """
    folder = folder.absolute()
    is_new = not folder.exists()
    partial = folder.with_name(f".{folder.name}{NAME}") if is_new else folder / NAME
    try:
        shutil.rmtree(partial, ignore_errors=True)  # of a process that was killed
        partial.mkdir(parents=True)
        yield partial
        if is_new:
            partial.rename(folder)
        else:
            _move(partial, folder, last=last)
    except OSError as error:
        raise OutputUnavailable(
            f"--output_dir: {str(folder)!r} cannot be written: {error.strerror or error}."
        ) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _move(partial: Path, folder: Path, *, last: str) -> None:
    moved: list[Path] = []
    try:
        for path in sorted(partial.iterdir(), key=lambda each: (each.name == last, each.name)):
            moved.append(folder / path.name)
            path.replace(folder / path.name)
    except BaseException:
        for path in moved:
            path.unlink(missing_ok=True)
        raise
