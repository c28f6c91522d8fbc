"""Keeps the files of the best checkpoints, whatever their trainer deletes.

They are kept as they were until their validation, by further names of the same files where the
file system can, and a link leads to the very best one.
"""

import logging
from math import inf
from pathlib import Path

from asyncval.checkpoints.folder import Folder
from asyncval.checkpoints.pins import DIGITS, MARK, PARTIAL, PinStore, intact_pin
from asyncval.core.errors import CheckpointError
from asyncval.core.records import best_first, first_measure
from asyncval.core.types import State, Validation
from asyncval.ledger.sqlite import Ledger

logger = logging.getLogger(__name__)
FOLDER = "kept"
LINK = "best"
RETRY_SECONDS = 10.0


class Keeping:
    """The best checkpoints of one plan.

    What was best under another plan stays, unless it is measured anew and is not among the best.

    Args:
        ledger: Says which they are.
        plan: The plan's digest.
        output_dir: `kept` in it has their files, and `best` is a link to those of the best one.
        number: How many are kept.
    """

    def __init__(self, ledger: Ledger, *, plan: str, output_dir: Path, number: int) -> None:
        self._ledger = ledger
        self._plan = plan
        self._number = number
        self._store = PinStore(output_dir / FOLDER, method="auto")
        self._link = output_dir / LINK
        self._not_before = -inf
        self._trouble = ""
        self.is_due = True
        """Whether something may have become the best since `settle` was through."""

    def pins(self) -> list[Path]:
        """Return the pins that `settle` may want, until it was through."""
        best = self._best(self._rows()) if self.is_due else []
        return [each.checkpoint.pin for each in best if each.checkpoint.pin]

    def settle(self, now: float) -> None:
        """Keep what is best, and nothing else of this plan; what fails is tried again.

        Args:
            now: The monotonic time.
        """
        if not self.is_due or now < self._not_before:
            return
        try:
            self._settle()
        except OSError as error:  # a full disk, or one that knows no links
            if self._trouble != str(error):
                logger.warning("The best checkpoint cannot be kept (%s): trying again.", error)
            self._trouble = str(error)
            self._not_before = now + RETRY_SECONDS
        else:
            self.is_due = False

    def _settle(self) -> None:
        rows = self._rows()
        best = {_key(each): each for each in self._best(rows)}
        kept = {_key_in(pin.path): pin.path for pin in self._store.intact()}
        for key in best.keys() - kept.keys():
            place = self._take(best[key], key)
            if place is not None:
                kept[key] = place
        measured = {_key(each) for each in rows if each.state is State.DONE}
        stay = {kept[key] for key in best.keys() & kept.keys()}
        stay |= {path for path in self._store.root.glob("*") if _key_in(path) not in measured}
        self._store.clean(path for path in stay if path.suffix != PARTIAL)
        first = next(iter(best), "")
        self._point_to(kept.get(first), first.partition(MARK)[0])

    def _take(self, validation: Validation, key: str) -> Path | None:
        """Keep what was pinned; where that is gone, or was rewritten, there is nothing to keep."""
        pin = validation.checkpoint.pin
        if pin is None or intact_pin(pin) is None:
            return None
        try:
            folder = Folder.listing(pin)
            return self._store.pin(folder, list(folder.files), key=key).path
        except CheckpointError:
            return None

    def _point_to(self, place: Path | None, name: str) -> None:
        """Let the link lead to a place, or to none, in one step."""
        if place is None:
            self._link.unlink(missing_ok=True)
            return
        target = Path(FOLDER, place.name)
        if self._link.is_symlink() and self._link.readlink() == target:
            return
        partial = self._link.with_name(f".{LINK}{PARTIAL}")
        partial.unlink(missing_ok=True)
        partial.symlink_to(target)
        partial.replace(self._link)
        logger.info("%s is the best so far: %s has its files.", name, self._link)

    def _rows(self) -> list[Validation]:
        return self._ledger.validations(plan=self._plan)

    def _best(self, rows: list[Validation]) -> list[Validation]:
        return best_first(rows, first_measure(rows))[: self._number]


def _key(validation: Validation) -> str:
    checkpoint = validation.checkpoint
    return f"{checkpoint.name}{MARK}{checkpoint.fingerprint[:DIGITS]}"


def _key_in(place: Path) -> str:
    """Return the key of what a folder keeps, without the digest of its state."""
    return place.name.rpartition(MARK)[0]
