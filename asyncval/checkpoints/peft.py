"""An adapter of PEFT (LoRA and its kin) on a Hugging Face encoder that lies elsewhere.

`adapter_config.json` names the base model, or `--base_model` does.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from asyncval.checkpoints.bases import find_base_folder
from asyncval.checkpoints.description import Description, Fact, describe, one_tower, read_config
from asyncval.checkpoints.folder import Folder
from asyncval.checkpoints.loading import (
    first_line,
    load_backbone,
    own_the_weights,
    tokenizer_files,
)
from asyncval.core.errors import CheckpointBroken, CheckpointIncomplete, DependencyMissing
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

    def describe(self, folder: Folder, options: EncoderOptions) -> Description:
        """Find the base model; all else is said by flags."""
        base = find_base(folder, options)
        return describe(
            folder, options, towers=Fact((str(base.value),), base.source), base=base.value
        )

    def load(
        self, folder: Folder, options: EncoderOptions, *, device: str, precision: Precision
    ) -> LoadedCheckpoint:
        """Load the base model and merge the adapter into it."""
        description = self.describe(folder, options)
        backbone = load_adapted(folder, options, device=device, precision=precision)
        return one_tower(backbone, description)


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
        find_base(folder, options, prefix).value,
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


def find_base(folder: Folder, options: EncoderOptions, prefix: str = "") -> Fact:
    """Return where the base model of an adapter is, and who says so.

    Raises:
        CheckpointUnsupported: It is nowhere to be found.
    """
    named = read_config(folder, prefix + CONFIG).get("base_model_name_or_path")
    return find_base_folder(folder, options, named=named, where=prefix + CONFIG)
