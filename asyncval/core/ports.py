"""What the services ask of the outside: small protocols, by role."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from asyncval.core.types import (
    Judgements,
    Progress,
    Record,
    Retrieved,
    TextForm,
    Validation,
)

if TYPE_CHECKING:
    from torch import Tensor


class Clock(Protocol):
    """The time, for those who must not ask the machine themselves."""

    def now(self) -> float:
        """Return seconds since the epoch: for records and for people."""

    def monotonic(self) -> float:
        """Return seconds that never run backwards: for measuring and for waiting."""


class Encoder(Protocol):
    """Two towers (or one, twice) that turn token ids into vectors.

    Both take int64 ids and a mask of the same shape [B, T], 1 where there is a token and 0
    where there is padding, on the encoder's device, and return float vectors [B, D]. A mask
    that is a single 1, expanded (all strides 0), says that there is no padding: none has to
    look, for which a GPU would have to be waited for.
    """

    def encode_queries(self, ids: "Tensor", mask: "Tensor") -> "Tensor":
        """Return the vectors of B queries."""

    def encode_passages(self, ids: "Tensor", mask: "Tensor") -> "Tensor":
        """Return the vectors of B passages."""


class TextFormat(Protocol):
    """A form in which queries and passages are kept: files of some suffix, a folder, a name."""

    suffixes: tuple[str, ...]
    """Those of its files, lower case; `.gz` may follow where it reads that. Perhaps none."""

    def recognises(self, place: Path) -> bool:
        """Return whether this reads what is there, as far as can be told without opening it."""

    def digest(self, place: Path) -> bytes:
        """Return a digest of everything there that the texts come from."""

    def read(self, place: Path, form: TextForm) -> Iterator[Record]:
        """Yield what is there, in order.

        Raises:
            InvalidData: Something cannot be read; the message says which file and line.
        """


class QrelsFormat(Protocol):
    """A file format of relevance judgements."""

    def read(self, path: Path) -> Judgements:
        """Return all judgements. Raises InvalidData, which names the file and the line."""


class RunFormat(Protocol):
    """A file format of rankings."""

    def read(self, path: Path) -> Iterator[Retrieved]:
        """Yield the lines in the file's order. Raises InvalidData, naming file and line."""


class Reporter(Protocol):
    """A place that shows results. The ledger is the truth; a reporter is a projection of it."""

    def publish(self, fresh: Sequence[Validation], recorded: Sequence[Validation]) -> None:
        """Show `fresh`, which was not delivered before.

        `recorded` is everything, ascending by step, `fresh` included: who can rewrite
        what it shows makes it equal to that. It is called once at the start, possibly with
        nothing fresh.
        """

    def close(self) -> None:
        """Finish writing."""


ProgressListener = Callable[[Progress], None]
"""Whoever wants to know how far a validation is; called often, so it returns at once."""
