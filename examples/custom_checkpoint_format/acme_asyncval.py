"""A layout for Asyncval: the checkpoints of the Acme trainer, a training loop written by hand.

It saves everything into one file of torch and says the rest in a file beside it:

    step_500/
      checkpoint.pt     {"model": {"encoder.<name>", "projection.weight"}, "optimizer", "step"}
      config.json       of the transformer, as `config.save_pretrained` writes it
      tokenizer.json    and tokenizer_config.json
      retriever.json    {"pooling": "mean", "cosine": true, "query_prompt": "query: "}; comes last
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from asyncval.checkpoints.description import Description, Fact, describe, loaded, read_config
from asyncval.checkpoints.folder import Folder
from asyncval.checkpoints.loading import (
    TransformerEncoder,
    first_line,
    load_backbone,
    max_positions,
    tokenizer_files,
)
from asyncval.core.errors import CheckpointBroken, CheckpointIncomplete
from asyncval.core.types import EncoderOptions, LoadedCheckpoint, Precision

if TYPE_CHECKING:
    from torch import Tensor

WEIGHTS = "checkpoint.pt"
SETTINGS = "retriever.json"
ENCODER = "encoder."
PROJECTION = "projection.weight"


class Acme:
    """What the Acme trainer writes."""

    name = "acme"

    def recognises(self, folder: Folder) -> bool:
        """Say whether it is one, be it whole or not: the weights come first."""
        return WEIGHTS in folder

    def model_files(self, folder: Folder) -> Sequence[str]:
        """Return the files that are needed; Asyncval checks that each is whole."""
        for name in (WEIGHTS, "config.json", SETTINGS):
            if name not in folder:
                raise CheckpointIncomplete(f"{name} is missing.")
        return [WEIGHTS, "config.json", SETTINGS, *tokenizer_files(folder)]

    def describe(self, folder: Folder, options: EncoderOptions) -> Description:
        """Read the settings: what they say may be repeated by a flag, not contradicted."""
        settings = read_config(folder, SETTINGS)
        return describe(
            folder,
            options,
            towers=Fact("the checkpoint itself", WEIGHTS),
            pooling=Fact(settings.get("pooling"), SETTINGS),
            head=Fact("a projection, if there is one", WEIGHTS),
            similarity=Fact("cos" if settings.get("cosine") else "ip", SETTINGS),
            prefixes=(
                Fact(settings.get("query_prompt"), SETTINGS),
                Fact(settings.get("passage_prompt"), SETTINGS),
            ),
        )

    def load(
        self, folder: Folder, options: EncoderOptions, *, device: str, precision: Precision
    ) -> LoadedCheckpoint:
        """Load the transformer and the projection from the one file."""
        description = self.describe(folder, options)
        tensors = read_model(folder)
        backbone = load_backbone(
            folder.path,
            device=device,
            precision=precision,
            trust_remote_code=options.trust_remote_code,
            tensors={
                name.removeprefix(ENCODER): tensor
                for name, tensor in tensors.items()
                if name.startswith(ENCODER)
            },
        )
        head: list[Callable[[Tensor], Tensor]] = []
        if PROJECTION in tensors:
            matrix = tensors[PROJECTION].float().to(device)
            head.append(lambda vectors: vectors @ matrix.T)
        encoder = TransformerEncoder(
            backbone, pooling=description.pooling.value, head=[*head, *description.closing]
        )
        return loaded(description, encoder, max_lengths=[max_positions(backbone.config)])


def read_model(folder: Folder) -> "dict[str, Tensor]":
    """Return the model's tensors; `weights_only` keeps a pickle from running anything."""
    import torch

    try:
        content: Any = torch.load(folder.path / WEIGHTS, map_location="cpu", weights_only=True)
        return dict(content["model"])
    except Exception as error:  # whatever a damaged or foreign file makes torch raise
        raise CheckpointBroken(f"{WEIGHTS} cannot be loaded: {first_line(error)}") from error
