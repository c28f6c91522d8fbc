"""Keeps the files of the best checkpoints, whatever their trainer deletes.

They are kept as they were until their validation, by further names of the same files where the
file system can, and a link leads to the very best one.
"""

import logging
from math import inf
from pathlib import Path

from asyncval.checkpoints.completeness import examine
from asyncval.checkpoints.folder import Folder, fingerprint
from asyncval.checkpoints.pins import DIGITS, MARK, PARTIAL, PinStore, intact_pin
from asyncval.core.errors import CheckpointError
from asyncval.core.records import best_first, first_measure
from asyncval.core.types import State, Validation
from asyncval.ledger.sqlite import Ledger

logger = logging.getLogger(__name__)
FOLDER = "kept"
LINK = "best"
RETRY_SECONDS = 60.0


class Keeping:
    """The best checkpoints of one plan, as far as their files are still there.

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
        self._told: set[str] = set()
        self._checked: dict[tuple[Path, str], bool] = {}
        """By place and state: whether its files are those that were measured."""
        self.is_due = True
        """Whether something may have become the best since `settle` was through."""

    def pins(self) -> list[Path]:
        """Return the pins that `settle` may want, the best first, until it was through."""
        ranked = self._ranked() if self.is_due else []
        return [each.checkpoint.pin for each in ranked if each.checkpoint.pin]

    def settle(self, now: float) -> None:
        """Keep what is best, and nothing else of this plan; what fails is tried again.

        Args:
            now: The monotonic time.
        """
        if not self.is_due or now < self._not_before:
            return
        kept: list[Validation] = []
        for number, each in enumerate(self._ranked()):
            name = each.checkpoint.name
            try:
                place = self._place_of(each) if len(kept) < self._number else None
            except OSError as error:  # a full disk
                self._tell(f"{name} cannot be kept in {self._store.root} now: {error.strerror}.")
                self._not_before = now + RETRY_SECONDS
                if number == 0:
                    self._point_to(None, name)
                return
            kept += [each] if place else []
            if number == 0:
                self._point_to(place, name)
        self._remove_others(kept)
        self.is_due = False

    def _remove_others(self, kept: list[Validation]) -> None:
        """Remove what was kept before, unless it is better than something that is kept now.

        What is better is of a folder that has other content now, or its place is still free.
        """
        rows = self._rows()
        measure = first_measure(rows)
        measured = {_key(each): each for each in rows if each.state is State.DONE}
        worst = _value(kept[-1], measure) if len(kept) == self._number else -inf
        chosen = set(map(_key, kept))

        def may_stay(path: Path) -> bool:
            known = measured.get(_key_in(path))
            if known is None:  # of another plan, or somebody else's
                return path.suffix != PARTIAL
            is_good = _key(known) in chosen or _value(known, measure) > worst
            return is_good and self._has_content(path, known)

        self._store.clean(filter(may_stay, self._store.root.glob("*")))

    def _place_of(self, validation: Validation) -> Path | None:
        """Return where a checkpoint is kept, after keeping it where its files are still there."""
        checkpoint, key = validation.checkpoint, _key(validation)
        kept = (path for path in self._store.root.glob("*") if _key_in(path) == key)
        there = next((path for path in kept if self._has_content(path, validation)), None)
        if there is not None:
            return there
        sources = [checkpoint.pin, checkpoint.path]
        source = next(
            (path for path in sources if path and self._has_content(path, validation)), None
        )
        if source is None:
            return None
        try:
            folder = Folder.listing(source)
            names = examine(folder, step=None, layout_name=checkpoint.layout).model_files
            return self._store.pin(folder, names, key=key).path
        except CheckpointError:  # it goes just now
            return None

    def _has_content(self, path: Path, validation: Validation) -> bool:
        """Say whether a folder has what was measured; what else is in it does not matter.

        It is read only if its state is not the one that its name tells, and once in each state.
        """
        try:
            folder = Folder.listing(path)
            if intact_pin(path) is not None:
                return True
            seen = path, folder.state
            if seen not in self._checked:
                names = examine(folder, step=None, layout_name=validation.checkpoint.layout)
                digest = fingerprint(path, names.model_files)
                self._checked[seen] = digest == validation.checkpoint.fingerprint
            return self._checked[seen]
        except CheckpointError:  # it is gone, or damaged
            return False

    def _point_to(self, place: Path | None, name: str) -> None:
        """Let the link lead to a place, or to none, in one step."""
        if place is None:
            if self._link.is_symlink():
                self._link.unlink()
            self._tell(
                f"{name} is the best, and its files are not kept: {self._link} is not there."
            )
            return
        target = Path(FOLDER, place.name)
        if self._link.is_symlink() and self._link.readlink() == target:
            return
        partial = self._link.with_name(f".{LINK}{PARTIAL}")
        try:
            partial.unlink(missing_ok=True)
            partial.symlink_to(target)
            partial.replace(self._link)
        except OSError as error:  # a file system without links, or a folder of that name
            self._tell(f"{self._link} cannot be made ({error}): the best one is {place}.")
        else:
            logger.info("%s is the best so far: %s has its files.", name, self._link)

    def _tell(self, message: str) -> None:
        """Warn once."""
        if message not in self._told:
            self._told.add(message)
            logger.warning(message)

    def _rows(self) -> list[Validation]:
        return self._ledger.validations(plan=self._plan)

    def _ranked(self) -> list[Validation]:
        rows = self._rows()
        return best_first(rows, first_measure(rows))


def drop_link(output_dir: Path) -> None:
    """Remove the link where nothing is to be kept: it would not lead to the best for long."""
    link = output_dir / LINK
    if link.is_symlink():
        link.unlink()


def _value(validation: Validation, measure: str) -> float:
    return validation.result.metrics.get(measure, -inf) if validation.result else -inf


def _key(validation: Validation) -> str:
    checkpoint = validation.checkpoint
    return f"{checkpoint.name}{MARK}{checkpoint.fingerprint[:DIGITS]}"


def _key_in(place: Path) -> str:
    """Return the key of what a folder keeps, without the digest of its state."""
    return place.name.rpartition(MARK)[0]
