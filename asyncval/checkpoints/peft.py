"""An adapter of PEFT (LoRA and its kin) on a Hugging Face encoder that lies elsewhere.

`adapter_config.json` names the base model. A relative path is looked for from the folder that
`asyncval` runs in and from those above the checkpoint, as the trainer may have run in any.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from asyncval.checkpoints.folder import Folder
from asyncval.checkpoints.loading import (
    DEFAULT_POOLING,
    TransformerEncoder,
    assumed_pooling,
    closing_layers,
    first_line,
    load_backbone,
    max_positions,
    own_the_weights,
    readings,
    tokenizer_files,
    tokenizer_folder,
)
from asyncval.core.errors import (
    CheckpointBroken,
    CheckpointIncomplete,
    CheckpointUnsupported,
    DependencyMissing,
)
from asyncval.core.types import EncoderOptions, LoadedCheckpoint, Precision

if TYPE_CHECKING:
    from torch import nn

CONFIG = "adapter_config.json"
WEIGHTS = ("adapter_model.safetensors", "adapter_model.bin")


class Peft:
    """What `save_pretrained` of a PEFT model writes."""

    name = "peft"

    def recognises(self, folder: Folder) -> bool:
        """Say whether there is an adapter; its weights come before its configuration."""
        return CONFIG in folder or any(name in folder for name in WEIGHTS)

    def model_files(self, folder: Folder) -> Sequence[str]:
        """Return configuration, weights and tokenizer; the base model is not ours to keep."""
        return [*adapter_files(folder), *tokenizer_files(folder)]

    def load(
        self, folder: Folder, options: EncoderOptions, *, device: str, precision: Precision
    ) -> LoadedCheckpoint:
        """Load the base model and merge the adapter into it."""
        backbone = load_adapted(folder, options, device=device, precision=precision)
        return LoadedCheckpoint(
            encoder=TransformerEncoder(
                backbone,
                pooling=options.pooling or DEFAULT_POOLING,
                head=closing_layers(options, normalize=None, similarity=None),
            ),
            **readings(
                options,
                tokenizer_folder=tokenizer_folder(folder.path)
                or tokenizer_folder(find_base(folder)),
                max_length=max_positions(backbone.config),
            ),
            assumed=assumed_pooling(options),
        )


def adapter_files(folder: Folder, prefix: str = "") -> list[str]:
    """Return configuration and weights of an adapter.

    Raises:
        CheckpointIncomplete: One of them is missing.
    """
    weights = next((prefix + name for name in WEIGHTS if prefix + name in folder), None)
    for name, there in ((CONFIG, prefix + CONFIG in folder), (WEIGHTS[0], weights is not None)):
        if not there:
            raise CheckpointIncomplete(f"{prefix}{name} is missing.")
    return [prefix + CONFIG, str(weights)]


def load_adapted(
    folder: Folder,
    options: EncoderOptions,
    *,
    device: str,
    precision: Precision,
    prefix: str = "",
) -> "nn.Module":
    """Return the base model with the adapter merged into it, in evaluation mode.

    Raises:
        CheckpointError: One of the two cannot be loaded.
        DependencyMissing: PEFT is not installed.
    """
    try:
        from peft import PeftModel
    except ImportError as error:
        raise DependencyMissing(
            f"{folder.path.name} is an adapter of PEFT: run `pip install asyncval[peft]`."
        ) from error
    backbone = load_backbone(
        find_base(folder, prefix),
        device="cpu",
        precision=precision,
        trust_remote_code=options.trust_remote_code,
    )
    try:
        adapted = PeftModel.from_pretrained(backbone, str(folder.path / prefix))
        merged = adapted.merge_and_unload()
    except Exception as error:  # whatever a damaged or foreign adapter makes PEFT raise
        raise CheckpointBroken(f"PEFT cannot load it: {first_line(error)}") from error
    own_the_weights(merged)
    return merged.eval().to(device)  # type: ignore[no-any-return]


def find_base(folder: Folder, prefix: str = "") -> Path:
    """Return where the base model of an adapter is.

    Raises:
        CheckpointUnsupported: It is nowhere to be found.
    """
    config = folder.read_json(prefix + CONFIG)
    name = config.get("base_model_name_or_path") if isinstance(config, dict) else None
    if not isinstance(name, str) or not name:
        raise CheckpointUnsupported(f"{CONFIG} names no base model.")
    for start in (Path(), *(folder.origin or folder.path).parents):
        if (start / name / "config.json").is_file():
            return (start / name).absolute()
    raise CheckpointUnsupported(
        f"{CONFIG} names the base model {name!r}, which is no folder here: put it there, or make "
        "it a full path."
    )
