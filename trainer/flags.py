"""From a command line to a dataclass: the flags of `encode`, `search` and `mine`.

Those of `train` are the Hugging Face trainer's, whose parser takes seconds to import.
"""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, TypeVar

import tyro

from trainer.errors import InputError

C = TypeVar("C")
Flag = Annotated[bool, tyro.conf.FlagCreatePairsOff]
MaybeInt = Annotated[int | None, tyro.conf.arg(metavar="N")]


def parse(config_type: type[C], flags: Sequence[str], *, command: str) -> C:
    """Return the flags of one command; a wrong one ends the process with code 2."""
    return tyro.cli(
        config_type,
        prog=f"python -m trainer {command}",
        args=list(flags),
        use_underscores=True,
        config=(tyro.conf.HelptextFromCommentsOff,),
    )


def check_target(path: Path, *, option: str) -> None:
    """Refuse a folder where a file is to be written, before any work."""
    if path.is_dir():
        raise InputError(f"{option}: {str(path)!r} is a folder. Name a file in it.")


def log_to_stderr() -> None:
    """Log what a user wants to know, with the time, as `train` does."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s")
    logging.getLogger("faiss").setLevel(logging.WARNING)
