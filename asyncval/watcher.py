"""Finds checkpoints in a folder, and keeps each readable from the moment it is whole."""

import hashlib
import logging
import os
from collections.abc import Iterator, Mapping, Sequence, Set
from contextlib import suppress
from dataclasses import dataclass, field, replace
from math import inf
from pathlib import Path
from re import Pattern
from urllib.parse import quote, unquote

from asyncval.checkpoints.completeness import (
    SENTINEL,
    STALE_FACTOR,
    WholeFolder,
    examine,
    inventory_of,
    is_finished,
)
from asyncval.checkpoints.folder import FileStat, Folder, fingerprint, is_folder
from asyncval.checkpoints.loading import WEIGHTS
from asyncval.checkpoints.pins import DIGITS, MARK, PinStore
from asyncval.checkpoints.recognition import AUTO, layout_of
from asyncval.core.discovery import CHECKPOINT_NAME, Sighting, step_in_name
from asyncval.core.errors import (
    CheckpointBlocked,
    CheckpointError,
    CheckpointIncomplete,
    UsageError,
)
from asyncval.core.ports import Clock
from asyncval.core.types import Checkpoint, State

logger = logging.getLogger(__name__)
LOOK_AGAIN_EVERY = 32
"""In how many scans every known folder is listed once, for changes that no witness shows."""
MARKS = ("config.json", "modules.json", "adapter_config.json")
"""One of these is in nearly every folder with a model."""
Witness = tuple[tuple[Path, int, int], ...]
"""Paths of a folder that no save leaves as they were, with modification time and size."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What became of a folder: a checkpoint to queue, or one that cannot be had, and why.

    `folder_state` is that of its listing: while it stays, there is nothing new to find.
    `pin_state` is that of the files to be read.
    """

    checkpoint: Checkpoint
    folder_state: str
    fate: State = State.QUEUED
    reason: str = ""
    pin_state: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Habits:
    """What is known of the trainer.

    Args:
        pattern: Matches the whole name of a checkpoint folder; its last group is the step.
        sentinel: The file that it writes last.
        settle_seconds: How long a folder must have been unchanged where that file is missing.
        layout: What it writes, `auto` to find that out.
    """

    pattern: Pattern[str] = CHECKPOINT_NAME
    sentinel: str = SENTINEL
    settle_seconds: float = 5.0
    layout: str = AUTO


@dataclass(slots=True)
class Watcher:
    """Looks for checkpoints below one folder; every state of a folder is reported once.

    Args:
        root: The folder that the trainer writes to; it need not exist yet.
        habits: How the trainer writes.
        pins: Where checkpoints are kept.
        clock: Measures how long a folder has been quiet.
    """

    root: Path
    habits: Habits
    pins: PinStore
    clock: Clock
    reported: dict[str, str] = field(default_factory=dict)
    """The state in which each folder was reported, by name; may be given from before."""
    waiting: dict[str, str] = field(default_factory=dict)
    """What is not complete, by name, and why."""
    changed_at: float = 0.0
    """The monotonic time of the last change that a scan saw."""
    _sightings: dict[str, Sighting] = field(default_factory=dict)
    _witnesses: dict[str, Witness] = field(default_factory=dict)
    _listings: dict[str, Mapping[str, FileStat]] = field(default_factory=dict)
    """The files of each folder when it was taken last, as far as this process saw them."""
    _nameless: set[str] = field(default_factory=set)
    _inventory: frozenset[str] = frozenset()
    """The model files of the checkpoint that was taken last."""
    _is_hidden: bool = False
    """Whether the root could not be listed when it was tried last."""
    _num_scans: int = 0

    def scan(self, *, give_up: bool = False, last_step: float = inf) -> Iterator[Found]:
        """Look once; yield what was not reported before, in step order.

        Args:
            give_up: Decide about every folder that is as an earlier scan saw it: what is whole is
                taken, and what is not, or is doubtful and was changed lately, is reported as such.
            last_step: Do not give up on folders of a later step: nobody waits for them.
        """
        candidates = self._candidates()
        if candidates is None:
            return
        present = {path.name for _, path in candidates}
        for name in sorted(self._sightings.keys() - present):
            found = self._lose(name)
            if found is not None:
                yield found
        for name in self.reported.keys() - present:
            self._witnesses.pop(name, None)
            self._listings.pop(name, None)
        for name in self.waiting.keys() - present:
            self.waiting.pop(name, None)
        if not self._num_scans:
            self._inventory = self._known_inventory(candidates)
        self._num_scans += 1
        for number, (step, path) in enumerate(candidates):
            if (number + self._num_scans) % LOOK_AGAIN_EVERY == 0:
                self._witnesses.pop(path.name, None)
            found = self._look(path, step, give_up=give_up and step <= last_step)
            if found is not None:
                yield found

    def adopt(self, recorded: Set[Path]) -> Iterator[Found]:
        """Yield what a killed process pinned and did not record.

        Args:
            recorded: The pins that are known.
        """
        for pin in self.pins.intact():
            name, origin, before, layout, _ = pin.path.name.rsplit(MARK, 4)
            step = step_in_name(name, self.habits.pattern)
            if pin.path in recorded or origin != self._origin or step is None:
                continue
            path = (self.root / name).absolute()
            state = _state_of(path)
            if not state.startswith(before):
                state = before  # of its own, which is no more
            try:
                whole = examine(Folder.listing(pin.path), step=None, layout_name=unquote(layout))
                digest = fingerprint(pin.path, whole.model_files)
            except (CheckpointError, UsageError, OSError):  # a layout that is not installed now
                continue
            self.reported[name] = state
            checkpoint = Checkpoint(
                path=path, step=step, layout=whole.layout, fingerprint=digest, pin=pin.path
            )
            yield Found(checkpoint=checkpoint, folder_state=state, pin_state=pin.state)

    def _known_inventory(self, candidates: Sequence[tuple[int, Path]]) -> frozenset[str]:
        """Return the model files of the last checkpoint that was taken before the start."""
        for _, path in reversed(candidates):
            if path.name in self.reported:
                with suppress(CheckpointError, OSError):
                    folder = Folder.listing(path)
                    return inventory_of(layout_of(folder, self.habits.layout).model_files(folder))
        return frozenset()

    @property
    def _origin(self) -> str:
        """Digits of the root, which the pins of other roots do not have."""
        root = str(self.root.absolute()).encode("utf-8", "surrogateescape")
        return hashlib.sha256(root).hexdigest()[:8]

    def forget(self, name: str) -> None:
        """Look at a folder again as if it had never been reported."""
        self.reported.pop(name, None)
        self._witnesses.pop(name, None)
        self._listings.pop(name, None)

    def _candidates(self) -> list[tuple[int, Path]] | None:
        """Return what may be checkpoints, in step order; None where that cannot be told now."""
        found = []
        try:
            with os.scandir(self.root) as entries:
                for entry in entries:
                    step = step_in_name(entry.name, self.habits.pattern)
                    if step is None:
                        self._pass_over(entry.name)
                    elif is_folder(entry) and self._is_text(entry.name):
                        found.append((step, self.root / entry.name))
        except (FileNotFoundError, NotADirectoryError):  # not yet, or not any more
            found = []
        except OSError as error:  # no right to, a file system that stumbled
            if not self._is_hidden:
                logger.warning("%s: %s. It is tried again.", self.root, error.strerror)
            self._is_hidden = True
            return None
        self._is_hidden = False
        return sorted(found)

    def _pass_over(self, name: str) -> None:
        """Say once of a folder with a model that its name tells no step."""
        if name not in self._nameless and any(_is_there(self.root / name / each) for each in MARKS):
            self._nameless.add(name)
            logger.info("%r is passed over: its name tells no step (--ckpt_pattern).", name)

    def _is_text(self, name: str) -> bool:
        """Say whether a name can be recorded; say once of one that cannot."""
        try:
            name.encode()
        except UnicodeEncodeError:
            if name not in self._nameless:
                self._nameless.add(name)
                logger.warning("%r is passed over: its name is not UTF-8.", name)
            return False
        return True

    def _lose(self, name: str) -> Found | None:
        """Report a folder that was seen and is gone."""
        state = str(self._sightings.pop(name).state)
        step = step_in_name(name, self.habits.pattern)
        why = self.waiting.pop(name, "")
        if name in self.reported and name not in self._listings:
            return None  # known from before our start, and on its way out when we came
        return Found(
            checkpoint=Checkpoint(
                path=(self.root / name).absolute(), step=step, layout="", fingerprint=state
            ),
            folder_state=state,
            fate=State.LOST,
            reason=f"It was deleted before it was complete. Last seen: {why}",
        )

    def _look(self, path: Path, step: int, *, give_up: bool) -> Found | None:
        name = path.name
        if name in self._witnesses and self._witnesses[name] == _witness(self._witnesses[name]):
            return None
        try:
            folder = Folder.listing(path)
        except CheckpointBlocked as error:
            checkpoint = Checkpoint(path=path.absolute(), step=step, layout="")
            return self._block(checkpoint, "", str(error))
        except CheckpointError as error:
            self.waiting[name] = str(error)
            return None
        state = folder.state
        if self.reported.get(name) == state:
            self._witnesses[name] = self._choose_witness(folder)
            self._listings.setdefault(name, folder.files)
            self.waiting.pop(name, None)
            return None
        if self._is_remnant(folder):
            self._sightings.pop(name, None)
            self.waiting.pop(name, None)
            return None
        before = self._sightings.get(name)
        sighting = self._sight(name, state)
        give_up = give_up and sighting is before  # what came or changed just now is being written
        checkpoint = Checkpoint(path=path.absolute(), step=step, layout="", fingerprint=state)
        quiet = sighting.quiet_seconds(self.clock.monotonic())
        try:
            return self._decide(folder, checkpoint, quiet, give_up=give_up)
        except CheckpointBlocked as error:
            return self._block(checkpoint, state, str(error))
        except CheckpointError as error:
            return self._postpone(folder, checkpoint, str(error), quiet, give_up=give_up)
        except OSError as error:  # no space for the pin, a file system that stumbled
            return self._block(checkpoint, state, f"It cannot be kept now: {error.strerror}.")
        except UsageError:
            raise
        except Exception as error:  # one folder that nobody foresaw must not end the daemon
            reason = f"It cannot be examined: {type(error).__name__}: {error}"
            return self._postpone(folder, checkpoint, reason, quiet, give_up=give_up)

    def _decide(
        self, folder: Folder, checkpoint: Checkpoint, quiet: float, *, give_up: bool
    ) -> Found | None:
        """Take a folder that is whole once it has been quiet for long enough.

        Raises:
            CheckpointError: It is not whole, or there is no time to find out whether it is.
        """
        whole = examine(
            folder,
            step=checkpoint.step,
            sentinel_name=self.habits.sentinel,
            inventory=self._inventory,
            layout_name=self.habits.layout,
        )
        patience = whole.quiet_factor * self.habits.settle_seconds
        if quiet < patience and not give_up:
            self.waiting[checkpoint.name] = whole.reason
            return None
        age = self.clock.now() - folder.changed_at
        if whole.is_doubtful and max(quiet, age) < patience:
            raise CheckpointIncomplete(whole.reason)
        return self._take(folder, checkpoint, whole)

    def _sight(self, name: str, state: str) -> Sighting:
        """Note in which state a folder is, and since when."""
        now = self.clock.monotonic()
        sighting = self._sightings.get(name)
        if sighting is None or sighting.state != state:
            self.changed_at = now
            sighting = Sighting(state, now)
        self._sightings[name] = sighting
        return sighting

    def _is_remnant(self, folder: Folder) -> bool:
        """Say whether this is what is left of a reported folder: nothing new, something gone."""
        before = self._listings.get(folder.path.name, {})
        return len(folder.files) < len(before) and folder.files.items() <= before.items()

    def _postpone(
        self, folder: Folder, checkpoint: Checkpoint, reason: str, quiet: float, *, give_up: bool
    ) -> Found | None:
        """Wait for the rest of a folder; report it as broken when nobody writes it any more."""
        self.waiting[checkpoint.name] = reason
        finished = is_finished(folder, self.habits.sentinel)
        patience = self.habits.settle_seconds * (1 if finished else STALE_FACTOR)
        if quiet < patience and not give_up:
            return None
        # What its trainer finished and is damaged failed; what nobody finished is broken.
        fate = State.FAILED if finished else State.BROKEN
        return self._report(
            Found(checkpoint=checkpoint, folder_state=folder.state, fate=fate, reason=reason),
            folder,
        )

    def _block(self, checkpoint: Checkpoint, state: str, reason: str) -> Found | None:
        """Report once that a folder cannot be read or kept, and go on trying."""
        self.forget(checkpoint.name)
        if self.waiting.get(checkpoint.name) == reason:
            return None
        self.waiting[checkpoint.name] = reason
        return Found(checkpoint=checkpoint, folder_state=state, fate=State.BLOCKED, reason=reason)

    def _take(self, folder: Folder, checkpoint: Checkpoint, whole: WholeFolder) -> Found:
        """Pin a whole folder and report it; its identity is that of the pinned content."""
        key = (checkpoint.name, self._origin, folder.state[:DIGITS], quote(whole.layout, safe=""))
        pin = self.pins.pin(folder, whole.model_files, key=MARK.join(key))
        self._inventory = inventory_of(whole.model_files)
        digest = fingerprint(pin.path, whole.model_files)
        return self._report(
            Found(
                checkpoint=replace(
                    checkpoint,
                    layout=whole.layout,
                    fingerprint=digest,
                    pin=pin.path if pin.path != folder.path else None,
                ),
                folder_state=folder.state,
                pin_state=pin.state,
                reason=whole.reason if whole.is_doubtful else "",
            ),
            folder,
        )

    def _report(self, found: Found, folder: Folder) -> Found:
        name = found.checkpoint.name
        self.reported[name] = found.folder_state
        self._sightings.pop(name, None)
        self.waiting.pop(name, None)
        self._witnesses[name] = self._choose_witness(folder)
        # What was not whole may become so by losing a file: that is none of its remnants.
        self._listings[name] = folder.files if found.fate is State.QUEUED else {}
        return found

    def _choose_witness(self, folder: Folder) -> Witness:
        """Return the folder itself, the sentinel and the weights: what every save changes."""
        chosen = [folder.path]
        for name in folder.files:
            last = name.rpartition("/")[2]
            if name == self.habits.sentinel or last in WEIGHTS or "-of-" in last:
                chosen.append(folder.path / name)
        if len(chosen) == 1:
            chosen += [folder.path / name for name in folder.files]
        return tuple(
            (path, *_time_and_size(folder, path.relative_to(folder.path).as_posix()))
            for path in chosen
        )


def _time_and_size(folder: Folder, name: str) -> tuple[int, int]:
    if name == ".":
        return folder.folders[""], 0
    return folder.files[name].mtime_ns, folder.files[name].size


def _witness(before: Witness) -> Witness | None:
    """Return the same paths as they are now, None where one is gone."""
    try:
        stats = [(path, path.stat()) for path, _, _ in before]
    except OSError:
        return None
    return tuple(
        (path, stat.st_mtime_ns, 0 if number == 0 else stat.st_size)
        for number, (path, stat) in enumerate(stats)
    )


def _is_there(path: Path) -> bool:
    """Say whether there is a file, as far as we may know."""
    try:
        return path.exists()
    except OSError:  # a folder that is another user's
        return False


def _state_of(path: Path) -> str:
    """Return the state of a folder, empty where it is gone."""
    try:
        return Folder.listing(path).state
    except CheckpointError:
        return ""


def known_states(states: Mapping[str, str], root: Path) -> dict[str, str]:
    """Return the states of folders directly below `root` by name, from those by path."""
    below = f"{root.absolute()}/"
    return {
        path.removeprefix(below): state
        for path, state in states.items()
        if path.startswith(below) and "/" not in path.removeprefix(below)
    }
