"""A plain Hugging Face encoder: `config.json`, weights, perhaps a tokenizer.

It records neither pooling nor normalisation nor similarity: flags say them.
"""

from collections.abc import Sequence

from asyncval.checkpoints.description import ITSELF, Description, describe, one_tower
from asyncval.checkpoints.folder import Folder
from asyncval.checkpoints.loading import load_backbone, tokenizer_files, weight_files
from asyncval.core.types import EncoderOptions, LoadedCheckpoint, Precision


class HuggingFace:
    """What `save_pretrained` of transformers writes."""

    name = "huggingface"

    def recognises(self, folder: Folder) -> bool:
        """Say whether there is a `config.json`, or weights that wait for it."""
        return "config.json" in folder

    def model_files(self, folder: Folder) -> Sequence[str]:
        """Return configuration, weights and tokenizer."""
        return ["config.json", *weight_files(folder), *tokenizer_files(folder)]

    def describe(self, folder: Folder, options: EncoderOptions) -> Description:
        """Go by the flags alone."""
        return describe(folder, options, towers=ITSELF)

    def load(
        self, folder: Folder, options: EncoderOptions, *, device: str, precision: Precision
    ) -> LoadedCheckpoint:
        """Load the transformer; pooling is the first token's unless a flag says otherwise."""
        description = self.describe(folder, options)
        backbone = load_backbone(
            folder.path,
            device=device,
            precision=precision,
            trust_remote_code=options.trust_remote_code,
        )
        return one_tower(backbone, description)
