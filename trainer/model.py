"""The bi-encoder: one transformer that embeds queries and passages alike."""

from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn
from transformers import AutoModel, PreTrainedModel

from trainer.errors import InputError

Pooling = Literal["cls", "mean", "last"]


def pool(hidden: Tensor, mask: Tensor, pooling: Pooling) -> Tensor:
    """Turn the token vectors of each text into one float32 vector.

    Args:
        hidden: [B, T, D] last hidden states.
        mask: [B, T] 1 for a token, 0 for padding.
        pooling: position 0, the mean over the tokens, or the last token; the latter two work
            with padding on either side.

    Returns:
        [B, D] float32.
    """
    hidden = hidden.float()
    if pooling == "cls":
        return hidden[:, 0]
    if pooling == "last":
        num_padding = mask.flip(1).int().argmax(dim=1)  # [B]: positions after the last token
        rows = torch.arange(len(hidden), device=hidden.device)  # [B]
        return hidden[rows, mask.shape[1] - 1 - num_padding]
    weights = mask.unsqueeze(-1).float()  # [B, T, 1]
    return (hidden * weights).sum(dim=1) / weights.sum(dim=1).clamp(min=1e-9)


class BiEncoder(nn.Module):
    """One tied tower: the same weights for queries and passages."""

    def __init__(
        self, transformer: PreTrainedModel, *, pooling: Pooling = "cls", normalize: bool = False
    ) -> None:
        super().__init__()
        self.transformer = transformer
        self.pooling: Pooling = pooling
        self.normalize = normalize
        # BERT's own tanh pooler is stored with the model but no embedding goes through it.
        pooler = getattr(transformer, "pooler", None)
        if isinstance(pooler, nn.Module):
            pooler.requires_grad_(False)

    @property
    def dimension(self) -> int:
        """Length of an embedding."""
        return int(self.transformer.config.hidden_size)

    def embed(self, tokens: Mapping[str, Tensor]) -> Tensor:
        """Return [B, D] float32 embeddings of token ids and attention mask, both [B, T]."""
        hidden = self.transformer(**tokens).last_hidden_state  # [B, T, D]
        embeddings = pool(hidden, tokens["attention_mask"], self.pooling)  # [B, D]
        return nn.functional.normalize(embeddings, dim=-1) if self.normalize else embeddings

    def forward(
        self, query: Mapping[str, Tensor], passage: Mapping[str, Tensor]
    ) -> tuple[Tensor, Tensor]:
        """Embed both sides in one call, which is what data-parallel wrappers need.

        Returns:
            [B, D] queries and [B * n, D] passages.
        """
        return self.embed(query), self.embed(passage)

    def activation_checkpointing_enable(self, **options: Any) -> None:  # noqa: ANN401
        """Let `--gradient_checkpointing` and its kin reach the transformer."""
        self.transformer.activation_checkpointing_enable(**options)


def load_transformer(name_or_path: str) -> PreTrainedModel:
    """Load a bare transformer in float32, the precision of weights that an optimizer updates."""
    try:
        model = AutoModel.from_pretrained(name_or_path, dtype=torch.float32)
    except (OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise InputError(
            f"Model {name_or_path!r} could not be loaded: {reason} "
            "Give --model_name_or_path a folder with config.json and weights, or a hub name."
        ) from error
    assert isinstance(model, PreTrainedModel)
    return model
