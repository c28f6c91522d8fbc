"""Turn a name into an object: of a table, of an installed package, or `package.module:Name`.

An installed package adds to a table by an entry point in the group of that table: its name is
the name, its value the place. What cannot be used is left out, with one warning.
"""

import difflib
import logging
from collections.abc import Mapping, Sequence
from functools import cache
from importlib import import_module
from importlib.metadata import entry_points
from types import MappingProxyType
from typing import Any

from asyncval.core.errors import InvalidOption

logger = logging.getLogger(__name__)
NEEDED = {
    "asyncval.layouts": ("name", "recognises", "model_files", "describe", "load"),
    "asyncval.reporters": ("publish", "close"),
    "asyncval.text_formats": ("suffixes", "recognises", "digest", "read"),
}
"""The groups of entry points, and the attributes that an object of each must have."""


def look_up(name: str, table: Mapping[str, str], *, option: str, group: str | None = None) -> Any:  # noqa: ANN401
    """Import and return what `name` stands for.

    Args:
        name: A key of `table`, an entry point's name, or `package.module:Name`.
        table: Names to `package.module:Name`; text, so that listing them imports nothing.
        option: The flag that the name was given with, for the message.
        group: The entry points that add to the table.

    Raises:
        InvalidOption: There is no such name, module or attribute, or it is not of the group.
    """
    if group is not None:
        table = {**additions(group), **table}
    place = table.get(name, name)
    module_name, colon, attribute = place.partition(":")
    if not colon:
        near = difflib.get_close_matches(name, table, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise InvalidOption(
            f"{option}: {name!r} is not known.{hint} There are {', '.join(table)}; one of your "
            "own is given as package.module:Name."
        )
    try:
        found = getattr(import_module(module_name), attribute)
    except (ImportError, AttributeError) as error:
        raise InvalidOption(f"{option}: {place!r} cannot be imported: {error}.") from error
    needed = NEEDED[group] if group is not None and name not in table else ()
    lacking = _lacking(found, needed)
    if lacking:
        raise InvalidOption(
            f"{option}: {place!r} has no {lacking[0]!r}: give a class with {', '.join(needed)}."
        )
    return found


def _lacking(found: object, needed: Sequence[str]) -> list[str]:
    return [each for each in needed if not hasattr(found, each)]


@cache
def additions(group: str) -> Mapping[str, str]:
    """Return what installed packages add to a table, names to places; only what can be used."""
    found: dict[str, str] = {}
    for point in sorted(entry_points(group=group), key=lambda each: (each.name, each.value)):
        reason = ""
        try:
            lacking = _lacking(point.load(), NEEDED[group])
            if lacking:
                reason = f"it has no {lacking[0]!r}"
            elif point.name in found:
                reason = f"{found[point.name]} has the same name"
        except Exception as error:  # a border to foreign code
            reason = f"{type(error).__name__}: {error}"
        if reason:
            package = point.dist.name if point.dist else "a package"
            logger.warning(
                "%s %r of %s is left out: %s.", group, point.name, package, reason.rstrip(".")
            )
        else:
            found[point.name] = point.value
    return MappingProxyType(found)
