"""The model that an adapter changes: named by the adapter or by `--base_model`."""

from pathlib import Path

from asyncval.checkpoints.description import Fact
from asyncval.checkpoints.folder import Folder
from asyncval.checkpoints.loading import local_folders
from asyncval.core.errors import CheckpointUnsupported
from asyncval.core.types import EncoderOptions


def find_base_folder(folder: Folder, options: EncoderOptions, *, named: object, where: str) -> Fact:
    """Return the folder of the base model, and who says so; the flag comes first.

    Args:
        folder: The checkpoint.
        options: What flags say.
        named: What the adapter says, if anything.
        where: The file that says it.

    Raises:
        CheckpointUnsupported: It is nowhere to be found.
    """
    if options.base_model is not None:
        if not (Path(options.base_model) / "config.json").is_file():
            raise CheckpointUnsupported(
                f"--base_model {options.base_model!r} is no folder with a config.json."
            )
        return Fact(Path(options.base_model).absolute(), "--base_model")
    for place in local_folders(folder, named):
        if (place / "config.json").is_file():
            return Fact(place, where)
    if not named:
        raise CheckpointUnsupported(f"{where} names no base model: give one with --base_model.")
    raise CheckpointUnsupported(
        f"{where} names the base model {named!r}, which is no folder here: give it with "
        "--base_model."
    )
