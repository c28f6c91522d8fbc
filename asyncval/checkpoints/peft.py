"""An adapter of PEFT (LoRA and its kin) on a Hugging Face encoder that lies elsewhere.

`adapter_config.json` names the base model, or `--base_model` does.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from asyncval.checkpoints.bases import find_base_folder
from asyncval.checkpoints.description import Description, Fact, describe, one_tower, read_config
from asyncval.checkpoints.folder import Folder
from asyncval.checkpoints.loading import (
    finish,
    first_line,
    load_backbone,
    tokenizer_files,
)
from asyncval.core.errors import (
    CheckpointBroken,
    CheckpointError,
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
        from peft import PeftConfig, PeftModel
    except ImportError as error:
        raise DependencyMissing(
            f"{folder.path.name} is an adapter of PEFT: run `pip install asyncval[peft]`."
        ) from error
    backbone = load_backbone(
        find_base(folder, options, prefix).value,
        device="cpu",
        precision=precision,
        trust_remote_code=options.trust_remote_code,
        is_base=True,
    )
    place = str(folder.path / prefix)
    try:
        config = PeftConfig.from_pretrained(place)
        if config.is_prompt_learning:
            raise CheckpointUnsupported(
                f"It is an adapter of the kind {config.peft_type}, which changes the input and not "
                "the weights, so it cannot be merged: not supported."
            )
        adapted = PeftModel.from_pretrained(backbone, place, config=config)
        _refuse_other_tensors(adapted, folder, adapter_files(folder, prefix)[-1])
        merged = adapted.merge_and_unload()
    except CheckpointError:
        raise
    except Exception as error:  # whatever a damaged or foreign adapter makes PEFT raise
        raise CheckpointBroken(f"PEFT cannot load it: {first_line(error)}") from error
    return finish(merged, device=device)  # type: ignore[no-any-return]


def _refuse_other_tensors(adapted: Any, folder: Folder, weights: str) -> None:  # noqa: ANN401
    """Refuse an adapter that lacks tensors, or has some that the base has no place for.

    PEFT only warns then, and what is missing would stay as it began: without effect.
    """
    import torch
    from peft import get_peft_model_state_dict
    from safetensors import safe_open

    path = folder.path / weights
    if path.suffix == ".safetensors":
        with safe_open(path, framework="pt") as file:
            found = set(file.keys())
    else:
        found = set(torch.load(path, map_location="cpu", weights_only=True))
    needed = set(get_peft_model_state_dict(adapted, save_embedding_layers=False))
    embedded = {name for name in found if ".embed" in name or "embeddings." in name}
    odd = sorted(needed - found) or sorted(found - needed - embedded)
    if odd:
        raise CheckpointBroken(
            f"{weights} {'lacks' if odd[0] in needed else 'has'} {len(odd)} tensors that the base "
            f"model {'needs' if odd[0] in needed else 'has no place for'}, for example {odd[0]!r}: "
            "it was made for another one, or its training wrote only a part."
        )


def find_base(folder: Folder, options: EncoderOptions, prefix: str = "") -> Fact:
    """Return where the base model of an adapter is, and who says so.

    Raises:
        CheckpointUnsupported: It is nowhere to be found.
    """
    config = read_config(folder, prefix + CONFIG)
    return find_base_folder(
        folder,
        options,
        named=config.get("base_model_name_or_path"),
        revision=config.get("revision"),
        where=prefix + CONFIG,
    )
