"""The model that an adapter changes: named by the adapter or by `--base_model`.

It is no part of a checkpoint's identity: it is read where it lies, neither kept nor digested with
every checkpoint. One that is changed in place changes what later checkpoints give, and validates
none of the earlier ones anew; `asyncval explain` shows a digest by which it can be noticed.
"""

import hashlib
from pathlib import Path

from asyncval.checkpoints.description import Fact
from asyncval.checkpoints.folder import Folder
from asyncval.checkpoints.loading import local_folders
from asyncval.core.errors import CheckpointUnsupported
from asyncval.core.types import EncoderOptions


def find_base_folder(
    folder: Folder, options: EncoderOptions, *, named: object, where: str, revision: object = None
) -> Fact:
    """Return the folder of the base model, and who says so; the flag comes first.

    Args:
        folder: The checkpoint.
        options: What flags say.
        named: What the adapter says, if anything.
        where: The file that says it.
        revision: Which state of a repository of the hub it means, None for the newest.

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
    cached = _in_hub_cache(named, revision)
    if cached is not None:
        return Fact(cached, f"{where}, in the cache of the hub")
    if not named:
        raise CheckpointUnsupported(f"{where} names no base model: give one with --base_model.")
    raise CheckpointUnsupported(
        f"{where} names the base model {named!r}, which is no folder here, nor in the cache of "
        "the hub: give it with --base_model."
    )


def _in_hub_cache(named: object, revision: object) -> Path | None:
    """Return where an earlier download of a repository lies; nothing is downloaded."""
    from huggingface_hub import try_to_load_from_cache

    if not isinstance(named, str):
        return None
    try:
        found = try_to_load_from_cache(
            named, "config.json", revision=revision if isinstance(revision, str) else None
        )
    except ValueError:  # it cannot be the name of a repository
        return None
    return Path(found).parent if isinstance(found, str) else None


def digest_of_base(path: Path) -> str:
    """Return what tells one state of a base model from another: configuration, sizes of weights."""
    whole = hashlib.sha256((path / "config.json").read_bytes())
    for each in sorted(path.iterdir()):
        if each.suffix in (".safetensors", ".bin"):
            whole.update(f"{each.name} {each.stat().st_size}\n".encode())
    return whole.hexdigest()[:16]
