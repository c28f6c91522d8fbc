"""The border to pyarrow, which is optional."""

from importlib import import_module
from typing import Any

from asyncval.core.errors import DependencyMissing


def import_arrow(module: str, *, what: str) -> Any:  # noqa: ANN401
    """Return a module of pyarrow.

    Args:
        module: For example `pyarrow.parquet`.
        what: What it is needed for, for the message.

    Raises:
        DependencyMissing: It is not installed.
    """
    try:
        return import_module(module)
    except ImportError as error:
        raise DependencyMissing(
            f"{what} needs pyarrow, which is not installed: pip install asyncval[arrow]."
        ) from error
