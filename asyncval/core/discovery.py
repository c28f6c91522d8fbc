"""Which folders may be checkpoints, and since when one of them has been quiet. Pure."""

import re
from collections.abc import Hashable
from dataclasses import dataclass

from asyncval.core.errors import InvalidOption

CHECKPOINT_NAME = re.compile(r"(?:(?:checkpoint|global_step|step|epoch|iter)[-_]?)?(\d+)")
"""`checkpoint-500`, `step_500`, `epoch-3`, `500`; the number is the trainer's step."""
LARGEST_STEP = 2**63 - 1
"""What a database and TensorBoard can hold."""


def step_in_name(name: str, pattern: re.Pattern[str] = CHECKPOINT_NAME) -> int | None:
    """Return the step that a checkpoint folder's name tells, or None if it is none's name.

    Args:
        name: The folder's own name.
        pattern: Must match all of it; its last group is the step.
    """
    match = pattern.fullmatch(name)
    digits = match[match.lastindex or 0] if match else ""
    if not digits or not digits.isascii() or not digits.isdecimal():
        return None
    step = int(digits)
    return step if step <= LARGEST_STEP else None


def compile_pattern(text: str) -> re.Pattern[str]:
    """Read a user's pattern of checkpoint names.

    Raises:
        InvalidOption: It is no regular expression, or has no group for the step.
    """
    try:
        pattern = re.compile(text)
    except re.error as error:
        raise InvalidOption(
            f"--ckpt_pattern: {text!r} is no regular expression: {error}."
        ) from error
    if pattern.groups < 1:
        raise InvalidOption(
            f"--ckpt_pattern: {text!r} has no group for the step; for example 'model_(\\d+)'."
        )
    return pattern


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
