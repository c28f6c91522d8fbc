"""The bi-encoder: one transformer that embeds queries and passages alike."""

import copy
from collections.abc import Mapping
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import AutoConfig, AutoModel, AutoModelForTextEncoding, PreTrainedModel

from trainer.errors import InputError

Pooling = Literal["cls", "mean", "last", "decoder"]

# A core is busy with so many texts, and what is padding costs as much as text.
CPU_CHUNK_SIZE = 16

# A saved encoder of these looks like an encoder-decoder to `AutoModel`.
T5_TYPES = ("t5", "mt5", "umt5", "longt5")


def pool(hidden: Tensor, mask: Tensor, pooling: Pooling) -> Tensor:
    """Turn the token vectors of each text into one float32 vector.

    Args:
        hidden: [B, T, D] last hidden states.
        mask: [B, T] 1 for a token, 0 for padding.
        pooling: position 0, the mean over the tokens, or the last token; the latter two work
            with padding on either side. With "decoder" the only position is that of its start.

    Returns:
        [B, D] float32.
    """
    hidden = hidden.float()
    if pooling in ("cls", "decoder"):
        return hidden[:, 0]
    if pooling == "last":
        num_padding = mask.flip(1).int().argmax(dim=1)  # [B]: positions after the last token
        rows = torch.arange(len(hidden), device=hidden.device)  # [B]
        return hidden[rows, mask.shape[1] - 1 - num_padding]
    weights = mask.unsqueeze(-1).float()  # [B, T, 1]
    return (hidden * weights).sum(dim=1) / weights.sum(dim=1).clamp(min=1e-9)


class Tower(nn.Module):
    """What makes an embedding of a text: transformer, pooling, perhaps a projection and a norm."""

    def __init__(
        self,
        transformer: PreTrainedModel,
        *,
        pooling: Pooling = "cls",
        projection_dim: int | None = None,
        normalize: bool = False,
        chunk_size: int = 0,
    ) -> None:
        """Put a tower together.

        Args:
            transformer: gives [B, T, H] hidden states.
            pooling: makes them [B, H].
            projection_dim: D, if a linear layer without bias shall make them [B, D].
            normalize: scale the result to length 1.
            chunk_size: texts embedded at a time while training; 0 for all.
        """
        super().__init__()
        self.transformer = transformer
        self.pooling: Pooling = pooling
        hidden_size = int(transformer.config.hidden_size)
        self.projection = (
            nn.Linear(hidden_size, projection_dim, bias=False) if projection_dim else None
        )
        self.normalize = normalize
        self.chunk_size = chunk_size
        # BERT's own tanh pooler is stored with the model but no embedding goes through it.
        pooler = getattr(transformer, "pooler", None)
        if isinstance(pooler, nn.Module):
            pooler.requires_grad_(False)

    @property
    def hidden_size(self) -> int:
        """Length of a token vector, and of an embedding that is not projected."""
        return int(self.transformer.config.hidden_size)

    def embed(self, tokens: Mapping[str, Tensor]) -> Tensor:
        """Return [B, D] float32 embeddings of token ids and attention mask, both [B, T]."""
        inputs = dict(tokens)
        if self.pooling == "decoder":
            # One step of T5's decoder from its start, which has the id 0, as in OpenMatch.
            inputs["decoder_input_ids"] = tokens["input_ids"].new_zeros(len(tokens["input_ids"]), 1)
        hidden = self.transformer(**inputs).last_hidden_state  # [B, T, H], the decoder's [B, 1, H]
        embeddings = pool(hidden, tokens["attention_mask"], self.pooling)  # [B, H]
        if self.projection is not None:
            embeddings = self.projection(embeddings).float()  # [B, D]
        return nn.functional.normalize(embeddings, dim=-1) if self.normalize else embeddings

    def forward(self, tokens: Mapping[str, Tensor]) -> Tensor:
        """Do the same in chunks of texts of like length, whose padding is their own.

        With a chunk size this takes the memory of one chunk. Gao et al. (2021), GradCache: embed
        without activations, take the gradient of the loss by the embeddings, then embed each chunk
        again, with the same dropout, for the weights'. This is activation checkpointing with a
        chunk as the unit, and autograd does the order.
        """
        saves_memory = self.training and self.chunk_size > 0
        embed = self._again if saves_memory else self.embed
        num_texts = len(tokens["input_ids"])
        all_at_once = CPU_CHUNK_SIZE if tokens["input_ids"].is_cpu else num_texts
        size = self.chunk_size if saves_memory else all_at_once
        if num_texts <= size:
            return embed(tokens)
        lengths, order = tokens["attention_mask"].sum(dim=1).sort(stable=True)  # [B]
        embeddings = []
        for rows, longest in zip(torch.split(order, size), torch.split(lengths, size), strict=True):
            width = int(longest[-1])  # texts are padded on the right
            embeddings.append(embed({name: each[rows, :width] for name, each in tokens.items()}))
        return torch.cat(embeddings)[order.argsort()]

    def _again(self, tokens: Mapping[str, Tensor]) -> Tensor:
        """Embed without activations, and with them when the gradient is wanted."""
        embeddings: Tensor = checkpoint(self.embed, tokens, use_reentrant=False)
        return embeddings


class BiEncoder(nn.Module):
    """A tower for both sides, or one for each."""

    def __init__(self, tower: Tower, *, untied: bool = False) -> None:
        """Take a tower; if untied, the passages' begins as a copy of it."""
        super().__init__()
        self.towers = nn.ModuleDict(
            {"query": tower, "document": copy.deepcopy(tower)} if untied else {"both": tower}
        )

    @property
    def query_tower(self) -> Tower:
        """What embeds queries."""
        return cast(Tower, next(iter(self.towers.values())))

    @property
    def passage_tower(self) -> Tower:
        """What embeds passages."""
        return cast(Tower, list(self.towers.values())[-1])

    def forward(
        self, query: Mapping[str, Tensor], passage: Mapping[str, Tensor]
    ) -> tuple[Tensor, Tensor]:
        """Embed both sides in one call, which is what data-parallel wrappers need.

        Args:
            query: [B, T] each.
            passage: [B, n, T] each, or [B * n, T].

        Returns:
            [B, D] queries and [B * n, D] passages.
        """
        texts = {name: tokens.flatten(0, -2) for name, tokens in passage.items()}  # [B * n, T]
        return self.query_tower(query), self.passage_tower(texts)

    def activation_checkpointing_enable(self, **options: Any) -> None:  # noqa: ANN401
        """Let `--gradient_checkpointing` and its kin reach the transformers."""
        for tower in self.towers.values():
            cast(Tower, tower).transformer.activation_checkpointing_enable(**options)


def part_of(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Return the entries of a state dict whose names have a prefix, without it."""
    return {
        name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)
    }


def load_transformer(name_or_path: str, *, decoder: bool = False) -> PreTrainedModel:
    """Load a bare transformer in float32, the precision of weights that an optimizer updates.

    Of T5 and its kin only the encoder is loaded, as Sentence Transformers does, unless `decoder`.
    """
    try:
        config = AutoConfig.from_pretrained(name_or_path)
        is_t5 = config.model_type in T5_TYPES
        if decoder and not is_t5:
            raise InputError(
                f"--pooling decoder is for {', '.join(T5_TYPES)}, and model {name_or_path!r} is "
                f"{config.model_type}. Use cls, mean or last."
            )
        kind = AutoModelForTextEncoding if is_t5 and not decoder else AutoModel
        model = kind.from_pretrained(name_or_path, dtype=torch.float32)
    except (OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise InputError(
            f"Model {name_or_path!r} could not be loaded: {reason} "
            "Give --model_name_or_path a folder with config.json and weights, or a hub name."
        ) from error
    assert isinstance(model, PreTrainedModel)
    return model


def check_lengths(config: Any, **max_lengths: int) -> None:  # noqa: ANN401
    """Refuse texts, by the flag that says their length, that are longer than a model takes."""
    from asyncval.api import max_positions

    limit = max_positions(config)
    for flag, length in max_lengths.items():
        if limit is not None and length > limit:
            raise InputError(
                f"--{flag} is {length}, but the model has positions for {limit} tokens. Use "
                f"--{flag} {limit} or less."
            )


def add_lora(
    transformer: PreTrainedModel, *, rank: int, alpha: int, dropout: float, target_modules: str
) -> None:
    """Freeze a transformer and train adapters beside its linear layers (Hu et al., 2021).

    Args:
        transformer: is changed in place; its checkpoints hold the adapters only.
        rank: of the adapters.
        alpha: their output is scaled by alpha / rank.
        dropout: of their input.
        target_modules: names of layers with commas between them, or "all-linear".
    """
    try:
        from peft import LoraConfig
    except ImportError as error:
        raise InputError("--lora needs PEFT. Run `pip install peft`.") from error
    names = target_modules.split(",")
    config = LoraConfig(
        r=rank,
        lora_alpha=alpha,
        lora_dropout=dropout,
        target_modules=target_modules if names == ["all-linear"] else names,
    )
    try:
        transformer.add_adapter(config)
    except ValueError as error:
        raise InputError(
            f"--lora_target_modules {target_modules!r} does not fit the model: "
            f"{str(error).splitlines()[0]}"
        ) from error


def has_lora(transformer: PreTrainedModel) -> bool:
    """Say whether `add_lora` was called on it."""
    return bool(getattr(transformer, "_hf_peft_config_loaded", False))


def load_lora(transformer: PreTrainedModel, weights: Mapping[str, Tensor]) -> None:
    """Put the content of PEFT's `adapter_model.safetensors` into the adapters."""
    from peft import set_peft_model_state_dict

    # PEFT's files have the names that they have within a PeftModel, which wraps the transformer.
    names = {name.removeprefix("base_model.model."): value for name, value in weights.items()}
    result: Any = set_peft_model_state_dict(transformer, names)
    assert not result.unexpected_keys
