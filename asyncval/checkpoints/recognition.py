"""Which layout a folder has, and loading it."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Protocol, TypeVar, cast

from asyncval.checkpoints import LAYOUT_GROUP, LAYOUTS
from asyncval.checkpoints.description import Description
from asyncval.checkpoints.folder import Folder
from asyncval.checkpoints.loading import tokenizer_folder
from asyncval.checkpoints.refusals import refuse_others
from asyncval.core.errors import CheckpointBroken, CheckpointError, CheckpointUnsupported
from asyncval.core.types import Checkpoint, EncoderOptions, LoadedCheckpoint, Precision, Reading
from asyncval.lookup import additions, look_up

logger = logging.getLogger(__name__)
AUTO = "auto"
T = TypeVar("T")


class Layout(Protocol):
    """A kind of checkpoint folder: how to know it, what makes it whole, how to load it."""

    name: str

    def recognises(self, folder: Folder) -> bool:
        """Say whether the folder is of this kind, be it whole or not."""

    def model_files(self, folder: Folder) -> Sequence[str]:
        """Return the relative paths of all files that the evaluation needs.

        Raises:
            CheckpointIncomplete: One that must be there is not.
            CheckpointUnsupported: It is of this kind, but nothing that we can evaluate.
        """

    def describe(self, folder: Folder, options: EncoderOptions) -> Description:
        """Say how it turns texts into vectors, by its small files and the flags alone.

        Raises:
            CheckpointError: What it says contradicts `options`, or cannot be read.
        """

    def load(
        self, folder: Folder, options: EncoderOptions, *, device: str, precision: Precision
    ) -> LoadedCheckpoint:
        """Load the encoder; weights are copied off their files.

        Raises:
            CheckpointError: It cannot be loaded, or what it says contradicts `options`.
        """


def layouts() -> list[Layout]:
    """Return one of each layout, in the order of recognition."""
    return [*map(_layout, LAYOUTS)]


def _layout(name: str) -> Layout:
    found = cast(Layout, look_up(name, LAYOUTS, option="--layout", group=LAYOUT_GROUP)())
    return found if name in LAYOUTS else Foreign(found, name=name)


class Foreign:
    """A layout of somebody else's, whose bugs concern a checkpoint and never the daemon."""

    def __init__(self, layout: Layout, *, name: str) -> None:
        self._layout = layout
        self.name = name
        self.load = layout.load  # in the evaluation process, which records any error

    def recognises(self, folder: Folder) -> bool:
        """Say whether the folder is of this kind; where it cannot tell, it is not."""
        try:
            return self._layout.recognises(folder)
        except Exception as error:  # a border to foreign code
            _warn_once(f"The layout {self.name!r} failed: {type(error).__name__}: {error}.")
            return False

    def model_files(self, folder: Folder) -> Sequence[str]:
        """Return the relative paths of all files that the evaluation needs."""
        return self._ask(self._layout.model_files, folder)

    def describe(self, folder: Folder, options: EncoderOptions) -> Description:
        """Say how it turns texts into vectors."""
        return self._ask(self._layout.describe, folder, options)

    def _ask(self, method: Callable[..., T], *arguments: object) -> T:
        try:
            return method(*arguments)
        except CheckpointError:
            raise
        except Exception as error:  # a border to foreign code
            raise CheckpointBroken(
                f"The layout {self.name!r} failed in {method.__name__}: {type(error).__name__}: "
                f"{error}."
            ) from error


@cache
def _warn_once(message: str) -> None:
    logger.warning(message)


def layout_of(folder: Folder, name: str = AUTO) -> Layout:
    """Return the layout of a folder: the one that was asked for, else the first that knows it.

    Raises:
        CheckpointUnsupported: No layout knows it, or it is known to be no dense bi-encoder.
        InvalidOption: There is no layout `name`.
    """
    if name != AUTO:
        return _layout(name)
    added = [_layout(each) for each in additions(LAYOUT_GROUP) if each not in LAYOUTS]
    known = next((each for each in added if each.recognises(folder)), None)
    if known is not None:
        return known
    refuse_others(folder)
    for layout in layouts():
        if layout.recognises(folder):
            return layout
    raise CheckpointUnsupported(
        f"{str(folder.path)!r} is no checkpoint of a known layout ({', '.join(LAYOUTS)}): it has "
        "neither modules.json nor config.json."
    )


def load_checkpoint(
    checkpoint: Checkpoint, options: EncoderOptions, *, device: str, precision: Precision
) -> LoadedCheckpoint:
    """Load a checkpoint by its layout; its tokenizer may lie in the folder above it.

    The layout is the one that was found out when the checkpoint was whole in its own place:
    what tells one from another need not be among the files that are kept.

    Raises:
        CheckpointError: It cannot be loaded, or what it says contradicts `options`.
    """
    folder = replace(Folder.listing(checkpoint.location), origin=checkpoint.path)
    is_known = checkpoint.layout in LAYOUTS or checkpoint.layout in additions(LAYOUT_GROUP)
    known = checkpoint.layout if is_known else AUTO
    layout = layout_of(folder, known if options.layout == AUTO else options.layout)
    loaded = layout.load(folder, options, device=device, precision=precision)
    above = tokenizer_folder(checkpoint.path.parent)
    return replace(
        loaded,
        queries=_with_tokenizer(loaded.queries, above),
        passages=_with_tokenizer(loaded.passages, above),
    )


def _with_tokenizer(reading: Reading, place: Path | None) -> Reading:
    return replace(reading, tokenizer_folder=reading.tokenizer_folder or place)
