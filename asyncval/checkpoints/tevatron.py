"""Tevatron v1: one transformer or two, the first token, perhaps a linear layer behind it.

A checkpoint without that layer and with one transformer is like any other of Hugging Face.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from asyncval.checkpoints.description import Description, Fact, describe, read_config
from asyncval.checkpoints.folder import Folder
from asyncval.checkpoints.heads import Layer, check_shape, linear, read_tensors, take
from asyncval.checkpoints.towers import has_two_towers, load_towers, tower_files, towers_of
from asyncval.core.errors import CheckpointIncomplete
from asyncval.core.types import EncoderOptions, LoadedCheckpoint, Precision

if TYPE_CHECKING:
    from torch import Tensor

POOLER = "pooler.pt"
POOLER_CONFIG = "pooler_config.json"
NO_POOLER = Fact("none", f"no {POOLER}")
SIDES = ("linear_q", "linear_p")
COLBERT_DIMENSIONS = 32


def has_own_files(folder: Folder) -> bool:
    """Say whether a folder has what Tevatron v1 and RetroMAE alone write."""
    return has_two_towers(folder) or POOLER in folder or POOLER_CONFIG in folder


def is_of_retromae(folder: Folder) -> bool:
    """Say whether RetroMAE wrote it: both write the same, but Tevatron no arguments."""
    return "training_args.bin" in folder and "normalize" not in read_config(folder, POOLER_CONFIG)


class Tevatron:
    """What the trainer of Tevatron 0.1 (v1) writes, with its pooler or untied."""

    name = "tevatron"
    pooling = Fact("cls", "the layout tevatron")  # v1 knows no other

    def recognises(self, folder: Folder) -> bool:
        """Say whether there are two transformers or a pooler, and RetroMAE is not the writer."""
        return has_own_files(folder) and not is_of_retromae(folder)

    def model_files(self, folder: Folder) -> Sequence[str]:
        """Return transformers, pooler and tokenizer."""
        poolers = [name for name in (POOLER, POOLER_CONFIG) if name in folder]
        if len(poolers) == 1:
            missing = POOLER if POOLER_CONFIG in folder else POOLER_CONFIG
            raise CheckpointIncomplete(f"{missing} is missing, which {poolers[0]} needs.")
        return [*tower_files(folder), *poolers]

    def describe(self, folder: Folder, options: EncoderOptions) -> Description:
        """Read the pooler's configuration; without a word on it vectors stay as they are."""
        config = read_config(folder, POOLER_CONFIG)
        shape = f"a linear layer, {config.get('input_dim')} to {config.get('output_dim')}"
        return describe(
            folder,
            options,
            towers=towers_of(folder),
            pooling=self.pooling,
            head=Fact(shape, POOLER_CONFIG) if config else NO_POOLER,
            normalize=Fact(config.get("normalize"), POOLER_CONFIG),
            remarks=_remarks(folder, config.get("output_dim")),
        )

    def load(
        self, folder: Folder, options: EncoderOptions, *, device: str, precision: Precision
    ) -> LoadedCheckpoint:
        """Load the transformers; queries go through `linear_q`, passages through `linear_p`."""
        return load_towers(
            folder,
            self.describe(folder, options),
            options,
            device=device,
            precision=precision,
            heads=_heads(folder, device=device),
        )


def _heads(folder: Folder, *, device: str) -> list[list[Layer]]:
    if POOLER not in folder:
        return [[], []]
    config = read_config(folder, POOLER_CONFIG)
    tensors = read_tensors(folder, POOLER, device=device)
    heads: list[list[Layer]] = []
    for side in SIDES:
        weight: Tensor = take(tensors, f"{side}.weight", POOLER)
        check_shape(
            weight, (config.get("output_dim"), config.get("input_dim")), POOLER, POOLER_CONFIG
        )
        heads.append([linear(weight, take(tensors, f"{side}.bias", POOLER))])
    return heads


def _remarks(folder: Folder, dimensions: object) -> list[str]:
    remarks = []
    if dimensions == COLBERT_DIMENSIONS:
        remarks.append(
            f"{POOLER_CONFIG} has {dimensions} dimensions, as ColBERT of Tevatron has by default: "
            "a ColBERT looks the same on disk, and its first vector alone says little."
        )
    if has_two_towers(folder) and "config.json" in folder:
        remarks.append(
            "There is a config.json beside two transformers, as RetroMAE's ColBERT writes it: its "
            "first vector alone says little."
        )
    return remarks
