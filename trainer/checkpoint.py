"""What a checkpoint folder looks like: the Sentence Transformers layout.

It states pooling, normalisation, lengths, prefixes and similarity beside the weights, so whoever
opens the folder needs no flag. The keys are those that version 2.0 already knew.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor
from transformers import PreTrainedTokenizerBase

from trainer.model import BiEncoder

POOLING_FOLDER = "1_Pooling"
NORMALIZE_FOLDER = "2_Normalize"

Json = dict[str, Any] | list[dict[str, Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class TextSettings:
    """What was done to a text before the model saw it."""

    max_length: int
    query_prefix: str = ""
    passage_prefix: str = ""


def save_checkpoint(
    folder: Path,
    *,
    model: BiEncoder,
    tokenizer: PreTrainedTokenizerBase,
    texts: TextSettings,
    weights: Mapping[str, Tensor] | None = None,
) -> None:
    """Write everything that is needed to embed a text.

    Args:
        folder: made if it does not exist.
        model: its transformer's config and weights go to the top level.
        tokenizer: its files go to the top level.
        texts: lengths and prefixes.
        weights: a state dict of the transformer that some distributed run has gathered, if not
            the model's own.
    """
    # The layout comes before the weights: a half-written folder is never taken for another layout.
    for name, content in layout_files(model, texts).items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    if model.normalize:
        (folder / NORMALIZE_FOLDER).mkdir(exist_ok=True)
    tokenizer.save_pretrained(folder)
    state = None if weights is None else dict(weights)
    model.transformer.save_pretrained(folder, state_dict=state)


def layout_files(model: BiEncoder, texts: TextSettings) -> dict[str, Json]:
    """Return the content of each side file under its path within the folder."""
    return {
        "modules.json": _modules(normalize=model.normalize),
        f"{POOLING_FOLDER}/config.json": _pooling(model),
        "sentence_bert_config.json": {"max_seq_length": texts.max_length, "do_lower_case": False},
        "config_sentence_transformers.json": {
            "prompts": {"query": texts.query_prefix, "document": texts.passage_prefix},
            "default_prompt_name": None,
            "similarity_fn_name": "cosine" if model.normalize else "dot",
        },
    }


def _modules(*, normalize: bool) -> list[dict[str, Any]]:
    modules = [("", "Transformer"), (POOLING_FOLDER, "Pooling")]
    if normalize:
        modules.append((NORMALIZE_FOLDER, "Normalize"))
    return [
        {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{name}"}
        for i, (path, name) in enumerate(modules)
    ]


def _pooling(model: BiEncoder) -> dict[str, Any]:
    config = {
        "word_embedding_dimension": model.dimension,
        "pooling_mode_cls_token": model.pooling == "cls",
        "pooling_mode_mean_tokens": model.pooling == "mean",
        "pooling_mode_max_tokens": False,
        "pooling_mode_mean_sqrt_len_tokens": False,
    }
    # Versions before 2.3 know no last token and refuse the key, even if it is false.
    return {**config, "pooling_mode_lasttoken": True} if model.pooling == "last" else config
