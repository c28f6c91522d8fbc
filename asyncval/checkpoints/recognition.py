"""Which layout a folder has, and loading it."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Protocol, cast

from asyncval.checkpoints import LAYOUTS
from asyncval.checkpoints.description import Description
from asyncval.checkpoints.folder import Folder
from asyncval.checkpoints.loading import tokenizer_folder
from asyncval.checkpoints.refusals import refuse_others
from asyncval.core.errors import CheckpointUnsupported
from asyncval.core.types import Checkpoint, EncoderOptions, LoadedCheckpoint, Precision, Reading
from asyncval.lookup import look_up

AUTO = "auto"


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
    return [cast(Layout, look_up(name, LAYOUTS, option="--layout")()) for name in LAYOUTS]


def layout_of(folder: Folder, name: str = AUTO) -> Layout:
    """Return the layout of a folder: the one that was asked for, else the first that knows it.

    Raises:
        CheckpointUnsupported: No layout knows it, or it is known to be no dense bi-encoder.
        InvalidOption: There is no layout `name`.
    """
    if name != AUTO:
        return cast(Layout, look_up(name, LAYOUTS, option="--layout")())
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
    known = checkpoint.layout if checkpoint.layout in LAYOUTS else AUTO
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
