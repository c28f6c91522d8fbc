"""The commands: which there are, and what their errors and signals become.

Nothing heavy is imported before it is known which command it is.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from asyncval import __version__
from asyncval.core.errors import AsyncvalError

EXIT_USAGE = 2
EXIT_INTERRUPTED = 130


@dataclass(frozen=True, slots=True)
class Command:
    """A command: the class of its options, the function that does it, and one line of help."""

    config: str
    action: str
    help: str


COMMANDS = {
    "watch": Command(
        "WatchConfig",
        "asyncval.commands.watch:watch",
        "validate every checkpoint of a training, as it comes",
    ),
    "eval": Command(
        "EvalConfig", "asyncval.commands.eval:evaluate", "validate the named checkpoints once"
    ),
    "retry": Command("RetryConfig", "asyncval.commands.ledgers:retry", "queue again what failed"),
    "explain": Command(
        "ExplainConfig",
        "asyncval.commands.explain:explain",
        "say why a folder is (not yet) a checkpoint",
    ),
    "split": Command(
        "SplitConfig",
        "asyncval.commands.split:split_corpus",
        "make a corpus subset from a run and judgements",
    ),
    "tokenize": Command(
        "TokenizeConfig",
        "asyncval.commands.tokenize:tokenize",
        "tokenise the texts ahead of time",
    ),
    "fidelity": Command(
        "FidelityConfig",
        "asyncval.commands.fidelity:fidelity",
        "compare results on a subset with those on the full corpus",
    ),
    "results": Command(
        "ResultsConfig", "asyncval.commands.ledgers:results", "print what was measured"
    ),
    "status": Command(
        "StatusConfig",
        "asyncval.commands.ledgers:status",
        "print what waits, runs and failed, and why",
    ),
}
HELP = f"""Asyncval {__version__}: validates every checkpoint of a dense-retriever training.

usage: asyncval COMMAND [OPTIONS]

{chr(10).join(f"  {name:<10}{command.help}" for name, command in COMMANDS.items())}

`asyncval COMMAND --help` has the options of each.
`python -m asyncval --OPTIONS` is `watch`.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if not words or words[0] in ("-h", "--help", "help"):
        print(HELP, end="")
        return 0 if words else EXIT_USAGE
    if words[0] == "--version":
        print(__version__)
        return 0
    name = "watch" if words[0].startswith("--") else words.pop(0)
    if name not in COMMANDS:
        print(
            f"asyncval: there is no command {name!r}. There are {', '.join(COMMANDS)}.",
            file=sys.stderr,
        )
        return EXIT_USAGE
    try:
        return _run(name, words)
    except AsyncvalError as error:
        print(f"asyncval {name}: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except BrokenPipeError:  # the reader of our output went away, as `head` does
        sys.stdout = None
        return 0


def _run(name: str, words: list[str]) -> int:
    config_module: Any = import_module("asyncval.config")
    options: Any = import_module("asyncval.options")
    command = COMMANDS[name]
    module, _, action = command.action.partition(":")
    config = options.parse(getattr(config_module, command.config), words, command=name)
    return int(getattr(import_module(module), action)(config))
