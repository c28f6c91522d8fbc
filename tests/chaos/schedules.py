"""What a schedule is, and a generator of them: the same seed, the same schedule."""

import random
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

from tests.reliability.saving import KINDS

SOURCES = 12
"""How many different checkpoints of each kind there are to save."""
Deed = Literal["save", "pause", "wait", "kill daemon", "kill worker", "recreate root", "fill disk"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Action:
    """One thing that the writer does, or that happens to the daemon.

    `seconds` is how long a pause, a full disk, or the time between two files is, and how long
    after this moment a kill comes. `stop_after` leaves a save torn after so many files, half of
    the next one written where `tears_file`.
    """

    deed: Deed
    seconds: float = 0.0
    step: int = 0
    source: int = 0
    stop_after: int | None = None
    tears_file: bool = True
    tear_exports: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """A writer's habits, and everything that happens, in order.

    `limit` is how many checkpoints it keeps. `aside` says that it renames weights into place, and
    `pin` how the daemon is to keep them.
    """

    seed: int
    kind: str
    limit: int
    aside: bool
    unlink_pause: float
    pin: str
    actions: tuple[Action, ...]

    def count(self, deed: Deed) -> int:
        """Return how often something happens."""
        return sum(action.deed == deed for action in self.actions)


def make_schedule(seed: int, *, can_fill_disk: bool) -> Schedule:
    """Draw a schedule: 4 to 8 checkpoints, 1 to 3 kills, and now and then something else."""
    draw = random.Random(seed)
    actions = list(_saves(draw))
    if draw.random() < 0.2:
        place = draw.randrange(1, len(actions))
        actions.insert(place, Action(deed="recreate root", seconds=draw.uniform(0, 0.5)))
    if draw.random() < 0.25:
        place = draw.randrange(len(actions))
        filled = Action(deed="fill disk", seconds=draw.uniform(0.3, 2.5))
        if can_fill_disk:  # drawn anyway, so that the rest stays the same
            actions.insert(place, filled)
    for _ in range(draw.randint(1, 3)):
        place = draw.randrange(len(actions))
        actions[place:place] = _kill(draw)
    return Schedule(
        seed=seed,
        kind=draw.choice(KINDS),
        limit=draw.choice((1, 1, 2)),
        aside=draw.random() < 0.7,
        unlink_pause=draw.choice((0.0, 0.0, 0.002, 0.01)),
        pin=draw.choice(("auto", "auto", "auto", "copy")),
        actions=tuple(actions),
    )


def _saves(draw: random.Random) -> Iterator[Action]:
    sources = iter(draw.sample(range(SOURCES), SOURCES))
    file_pause = draw.choice((0.0, 0.0, 0.005, 0.03))
    extra = SOURCES - 8  # what torn and rewritten checkpoints may use up
    for number in range(1, draw.randint(4, 8) + 1):
        saved = Action(deed="save", step=100 * number, source=next(sources), seconds=file_pause)
        if draw.random() < 0.15:  # a crash of the trainer
            yield _torn(saved, draw)
            yield Action(deed="pause", seconds=draw.uniform(0, 0.8))
            if draw.random() < 0.3:
                continue  # and its next start continues behind it
        yield saved
        yield Action(deed="pause", seconds=draw.choice((0.02, 0.25, 0.3, draw.uniform(0, 1))))
        if draw.random() < 0.2:
            if draw.random() < 0.7 and extra:
                extra -= 1
                saved = replace(saved, source=next(sources))
            crashes = draw.random() < 0.3
            yield _torn(saved, draw) if crashes else saved
            yield Action(deed="pause", seconds=draw.uniform(0.02, 0.6))


def _torn(action: Action, draw: random.Random) -> Action:
    return replace(action, stop_after=draw.randrange(8), tears_file=draw.random() < 0.7)


def _kill(draw: random.Random) -> Iterator[Action]:
    delay = draw.uniform(0, 0.7)
    if draw.random() < 0.35:
        yield Action(deed="kill worker", seconds=delay)
        return
    yield Action(deed="kill daemon", seconds=delay, tear_exports=draw.random() < 0.4)
    if draw.random() < 0.6:
        yield Action(deed="wait")
