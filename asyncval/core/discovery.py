"""Which folders may be checkpoints, and since when one of them has been quiet. Pure."""

import re
from collections.abc import Hashable
from dataclasses import dataclass

CHECKPOINT_NAME = re.compile(r"(?:(?:checkpoint|global_step|step|epoch|iter)[-_]?)?(\d+)")
"""`checkpoint-500`, `step_500`, `epoch-3`, `500`; the number is the trainer's step."""


def step_in_name(name: str) -> int | None:
    """Return the step that a checkpoint folder's name tells, or None if it is none's name."""
    match = CHECKPOINT_NAME.fullmatch(name)
    return int(match[1]) if match and match[1].isascii() else None


@dataclass(frozen=True, slots=True)
class Sighting:
    """A state of a folder, and the monotonic time at which it was seen first."""

    state: Hashable
    since: float

    def seen_again(self, state: Hashable, now: float) -> "Sighting":
        """Return the sighting after another look: the same one if nothing changed."""
        return self if state == self.state else Sighting(state, now)

    def quiet_seconds(self, now: float) -> float:
        """Return for how long the state has not changed."""
        return now - self.since
