"""Turn a name into an object: an entry of a table, or the user's own `package.module:Name`."""

import difflib
from collections.abc import Mapping
from importlib import import_module
from typing import Any

from asyncval.core.errors import InvalidOption


def look_up(name: str, table: Mapping[str, str], *, option: str) -> Any:  # noqa: ANN401
    """Import and return what `name` stands for.

    Args:
        name: A key of `table`, or `package.module:Name`.
        table: Names to `package.module:Name`; text, so that listing them imports nothing.
        option: The flag that the name was given with, for the message.

    Raises:
        InvalidOption: There is no such name, module or attribute.
    """
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
        return getattr(import_module(module_name), attribute)
    except (ImportError, AttributeError) as error:
        raise InvalidOption(f"{option}: {place!r} cannot be imported: {error}.") from error
