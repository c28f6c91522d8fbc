"""One transformer for queries and passages, or one for each: what several toolkits share."""

from collections.abc import Callable, Sequence
from typing import Any

from asyncval.checkpoints.description import ITSELF, Description, Fact, loaded
from asyncval.checkpoints.folder import Folder
from asyncval.checkpoints.heads import Layer
from asyncval.checkpoints.loading import (
    AUTO_MODEL,
    TransformerEncoder,
    TwoTowers,
    load_backbone,
    max_positions,
    tokenizer_files,
    weight_files,
)
from asyncval.core.errors import CheckpointIncomplete
from asyncval.core.types import EncoderOptions, LoadedCheckpoint, Precision

QUERIES = "query_model/"
PASSAGES = "passage_model/"
TWO = Fact((QUERIES, PASSAGES), "one for queries, one for passages")


def has_two_towers(folder: Folder) -> bool:
    """Say whether a transformer for one side is there, whole or not."""
    return any(name.startswith((QUERIES, PASSAGES)) for name in folder.files)


def towers_of(folder: Folder) -> Fact:
    """Return the two folders of transformers, or the checkpoint itself."""
    return TWO if has_two_towers(folder) else ITSELF


def prefixes(folder: Folder) -> tuple[str, ...]:
    """Return where the transformers are below the checkpoint."""
    return (QUERIES, PASSAGES) if has_two_towers(folder) else ("",)


def tower_files(folder: Folder) -> list[str]:
    """Return configuration and weights of every transformer, and the tokenizer.

    Raises:
        CheckpointIncomplete: One of them is missing, as a whole tower may be.
    """
    files = tokenizer_files(folder)
    for prefix in prefixes(folder):
        if f"{prefix}config.json" not in folder:
            raise CheckpointIncomplete(f"{prefix}config.json is missing.")
        files += [f"{prefix}config.json", *weight_files(folder, prefix)]
    return files


def load_towers(
    folder: Folder,
    description: Description,
    options: EncoderOptions,
    *,
    device: str,
    precision: Precision,
    kinds: Sequence[str] = (AUTO_MODEL, AUTO_MODEL),
    needs_pooler: bool = False,
    read: Callable[[Any], Any] = lambda backbone: backbone,
    heads: Sequence[Sequence[Layer]] = ((), ()),
    last: Sequence[Sequence[Layer]] = ((), ()),
) -> LoadedCheckpoint:
    """Load the transformer of each side and put its layers behind it.

    Args:
        folder: The checkpoint.
        description: What it is; its pooling and normalisation count for both sides.
        options: What flags say.
        device: Where to.
        precision: Of the transformers; layers behind the pooling are float32.
        kinds: The class of transformers for each side.
        needs_pooler: Whether their own poolers matter.
        read: Turns a transformer into what pooling takes its hidden states from.
        heads: For each side, the layers before the normalisation.
        last: For each side, those after it.

    Raises:
        CheckpointError: Something cannot be loaded.
    """
    backbones = [
        load_backbone(
            folder.path / prefix,
            device=device,
            precision=precision,
            trust_remote_code=options.trust_remote_code,
            kind=kind,
            needs_pooler=needs_pooler,
        )
        for prefix, kind in zip(prefixes(folder), kinds, strict=False)
    ]
    queries, passages = (
        TransformerEncoder(
            read(backbones[side % len(backbones)]),
            pooling=description.pooling.value,
            head=[*heads[side], *description.closing, *last[side]],
        )
        for side in (0, 1)
    )
    return loaded(
        description,
        TwoTowers(queries=queries, passages=passages),
        max_lengths=[max_positions(backbone.config) for backbone in backbones],
    )
