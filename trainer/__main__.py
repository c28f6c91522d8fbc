"""Dispatch `python -m trainer COMMAND FLAGS`; torch is imported by the command, not by the help."""

import importlib
import sys
from collections.abc import Callable, Sequence
from typing import cast

from asyncval.api import AsyncvalError
from trainer.errors import InputError

# command -> (module with `main(flags)`, what it does)
COMMANDS = {
    "train": ("trainer.train", "train a dense retriever with in-batch and hard negatives"),
    "encode": ("trainer.encode", "write the vectors of queries or of a corpus, in shards"),
    "search": ("trainer.search", "search vectors exactly, and write a run"),
    "mine": ("trainer.mine", "write hard negatives that a checkpoint or a run finds"),
}

USAGE_ERROR = 2


def usage() -> str:
    """Return the help text: the commands, one a line."""
    commands = "\n".join(f"  {name:<8}{purpose}" for name, (_, purpose) in COMMANDS.items())
    return (
        "usage: python -m trainer COMMAND FLAGS\n\n"
        f"commands:\n{commands}\n\n"
        "python -m trainer COMMAND --help lists the flags of a command.\n"
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code; wrong input is one sentence on stderr."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if not arguments or arguments[0] in ("-h", "--help"):
        (sys.stdout if arguments else sys.stderr).write(usage())
        return 0 if arguments else USAGE_ERROR
    command, *flags = arguments
    if command not in COMMANDS:
        sys.stderr.write(f"Unknown command {command!r}. Use one of: {', '.join(COMMANDS)}.\n")
        return USAGE_ERROR
    module = importlib.import_module(COMMANDS[command][0])
    run = cast(Callable[[Sequence[str]], None], module.main)
    try:
        run(flags)
    except (InputError, AsyncvalError) as error:
        sys.stderr.write(f"{error}\n")
        return USAGE_ERROR
    return 0


if __name__ == "__main__":
    sys.exit(main())
