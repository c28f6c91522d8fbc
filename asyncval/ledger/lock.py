"""One daemon per output folder: a lock that ends with its process, however it ends."""

import fcntl
import os
from pathlib import Path
from typing import TextIO

from asyncval.core.errors import OutputUnavailable

FILE_NAME = "asyncval.lock"


class OutputLock:
    """Holds an output folder for this process; children do not inherit the lock.

    Raises:
        OutputUnavailable: The folder cannot be written, or another process holds it.
    """

    def __init__(self, folder: Path) -> None:
        if folder.exists() and not folder.is_dir():
            raise OutputUnavailable(f"--output_dir: {str(folder)!r} is no folder.")
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._file: TextIO = (folder / FILE_NAME).open("a+", encoding="utf-8")
        except OSError as error:
            raise OutputUnavailable(
                f"--output_dir: {str(folder)!r} cannot be written: {error.strerror}."
            ) from error
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self._file.seek(0)
            holder = self._file.read().strip() or "unknown"
            self._file.close()
            raise OutputUnavailable(
                f"--output_dir: {str(folder)!r} is in use by another asyncval (process {holder}). "
                "Stop it first, or give another folder."
            ) from error
        try:
            self._file.truncate(0)
            self._file.write(str(os.getpid()))
            self._file.flush()
        except OSError as error:
            raise OutputUnavailable(
                f"--output_dir: {str(folder)!r} cannot be written: {error.strerror}."
            ) from error

    def release(self) -> None:
        """Let go of the folder."""
        self._file.close()


def is_held(folder: Path) -> bool:
    """Say whether a process holds an output folder now."""
    try:
        with (folder / FILE_NAME).open(encoding="utf-8") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    return False
