"""A distributed checkpoint of torch: one file or more a rank, and `.metadata`, written last.

FSDP in transformers and accelerate writes it as `pytorch_model_fsdp_0/`, scripts of one's own
often into the checkpoint itself. It holds tensors and nothing else: `config.json` and the
tokenizer lie beside it or in the folder above.
"""

from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

from asyncval.checkpoints import metadata
from asyncval.checkpoints.description import ITSELF, Description, describe, one_tower
from asyncval.checkpoints.folder import Folder
from asyncval.checkpoints.loading import WEIGHTS, first_line, load_backbone, tokenizer_files
from asyncval.checkpoints.metadata import StoredTensor, read_metadata
from asyncval.core.errors import CheckpointBroken, CheckpointIncomplete, CheckpointUnsupported
from asyncval.core.types import EncoderOptions, LoadedCheckpoint, Precision

if TYPE_CHECKING:
    from torch import Tensor

PLACES = ("", "pytorch_model_fsdp_0/", "model/")
WRAPPER = "model."
"""What accelerate puts before the names of a model's tensors."""


class Distributed:
    """What `torch.distributed.checkpoint.save` writes."""

    name = "distributed"

    def recognises(self, folder: Folder) -> bool:
        """Say whether there are shards, whose `.metadata` may yet be to come."""
        return _place(folder) is not None and not any(name in folder for name in WEIGHTS)

    def model_files(self, folder: Folder) -> Sequence[str]:
        """Return `.metadata` and the files that it names."""
        place = _place(folder) or ""
        marker = f"{place}{metadata.NAME}"
        if marker not in folder:
            raise CheckpointIncomplete(f"{marker} is missing, which is written last.")
        tensors = read_metadata(folder.path / marker).values()
        shards = sorted({f"{place}{piece.file}" for each in tensors for piece in each.pieces})
        missing = [name for name in shards if name not in folder]
        if missing:
            raise CheckpointIncomplete(f"{missing[0]} is missing, which {marker} names.")
        config = ["config.json"] if "config.json" in folder else []
        return [*config, marker, *shards, *tokenizer_files(folder)]

    def describe(self, folder: Folder, options: EncoderOptions) -> Description:
        """Go by the flags alone."""
        return describe(folder, options, towers=ITSELF)

    def load(
        self, folder: Folder, options: EncoderOptions, *, device: str, precision: Precision
    ) -> LoadedCheckpoint:
        """Put the tensors together; what the folder does not record comes from flags."""
        description = self.describe(folder, options)
        backbone = load_backbone(
            _config_folder(folder, options),
            tensors=_read_tensors(folder.path / (_place(folder) or "")),
            device=device,
            precision=precision,
            trust_remote_code=options.trust_remote_code,
        )
        return one_tower(backbone, description)


def _place(folder: Folder) -> str | None:
    """Return the sub-folder of the model's shards (with a slash, or empty), None: none."""
    for place in PLACES:
        inside = [name for name in folder.files if name.rpartition("/")[0] == place.rstrip("/")]
        if f"{place}{metadata.NAME}" in inside or any(each.endswith(".distcp") for each in inside):
            return place
    return None


def _config_folder(folder: Folder, options: EncoderOptions) -> Path:
    places = [folder.path, (folder.origin or folder.path).parent]
    places += [Path(options.base_model)] if options.base_model else []
    for place in places:
        if (place / "config.json").is_file():
            return place
    raise CheckpointUnsupported(
        "A distributed checkpoint has only tensors: put the model's config.json beside them or "
        "into the folder above, or give a model of that kind with --base_model."
    )


def _read_tensors(place: Path) -> dict[str, "Tensor"]:
    """Return all tensors, in memory, by the names that the model itself gives them."""
    stored = read_metadata(place / metadata.NAME)
    wrapped = all(name.startswith(WRAPPER) for name in stored)
    return {
        name.removeprefix(WRAPPER) if wrapped else name: _assemble(place, name, each)
        for name, each in stored.items()
    }


def _assemble(place: Path, name: str, stored: StoredTensor) -> "Tensor":
    import torch

    whole = torch.empty(stored.shape, dtype=getattr(torch, stored.dtype))
    num_filled = 0
    for piece in stored.pieces:
        with (place / piece.file).open("rb") as file:
            file.seek(piece.offset)
            content = BytesIO(file.read(piece.length))
        try:
            part = torch.load(content, map_location="cpu", weights_only=True)
            start = piece.start or (0,) * part.dim()
            region = tuple(slice(at, at + size) for at, size in zip(start, part.shape, strict=True))
            whole[region] = part
        except Exception as error:  # whatever a damaged or foreign file makes torch raise
            raise CheckpointBroken(f"{piece.file} cannot be loaded: {first_line(error)}") from error
        num_filled += part.numel()
    if num_filled != whole.numel():
        raise CheckpointBroken(f"Parts of {name!r} are missing: they would be random.")
    return whole
