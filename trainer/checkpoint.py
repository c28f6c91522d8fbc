"""What a checkpoint folder looks like: the Sentence Transformers layout.

It states pooling, normalisation, lengths, prefixes and similarity beside the weights, so whoever
opens the folder needs no flag. The keys are those that version 2.0 already knew.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from trainer.model import BiEncoder, has_lora, load_lora, load_transformer

WEIGHTS = "model.safetensors"
ADAPTER_WEIGHTS = "adapter_model.safetensors"
DENSE_KEY = "linear.weight"

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
        model: its transformer's config and weights go to the top level; of one with adapters only
            these, in PEFT's files, which name the transformer that they belong to.
        tokenizer: its files go to the top level.
        texts: lengths and prefixes.
        weights: a state dict of the bi-encoder that some distributed run has gathered, if not
            the model's own.
    """
    # The layout comes before the weights: a half-written folder is never taken for another layout.
    for name, content in layout_files(model, texts).items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    if model.normalize:
        (folder / module_folder(model, "Normalize")).mkdir(exist_ok=True)
    tokenizer.save_pretrained(folder)
    if model.projection is not None:
        matrix = model.projection.weight if weights is None else weights["projection.weight"]
        path = folder / module_folder(model, "Dense") / WEIGHTS
        save_file({DENSE_KEY: matrix.detach().cpu().contiguous()}, path)
    state = None if weights is None else _of_transformer(weights)
    model.transformer.save_pretrained(folder, state_dict=state)


def load_weights(folder: Path, *, model: BiEncoder) -> None:
    """Put the weights of a checkpoint into a model that was built by the same flags."""
    if has_lora(model.transformer):
        load_lora(model.transformer, load_file(folder / ADAPTER_WEIGHTS))
    else:
        model.transformer.load_state_dict(load_transformer(str(folder)).state_dict())
    if model.projection is not None:
        path = folder / module_folder(model, "Dense") / WEIGHTS
        model.projection.load_state_dict({"weight": load_file(path)[DENSE_KEY]})


def _of_transformer(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    prefix = "transformer."
    return {
        name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)
    }


def layout_files(model: BiEncoder, texts: TextSettings) -> dict[str, Json]:
    """Return the content of each side file under its path within the folder."""
    files: dict[str, Json] = {
        "modules.json": [
            {
                "idx": i,
                "name": str(i),
                "path": module_folder(model, name),
                "type": f"sentence_transformers.models.{name}",
            }
            for i, name in enumerate(module_names(model))
        ],
        f"{module_folder(model, 'Pooling')}/config.json": _pooling(model),
        "sentence_bert_config.json": {"max_seq_length": texts.max_length, "do_lower_case": False},
        "config_sentence_transformers.json": {
            "prompts": {"query": texts.query_prefix, "document": texts.passage_prefix},
            "default_prompt_name": None,
            "similarity_fn_name": "cosine" if model.normalize else "dot",
        },
    }
    if model.projection is not None:
        files[f"{module_folder(model, 'Dense')}/config.json"] = {
            "in_features": model.projection.in_features,
            "out_features": model.projection.out_features,
            "bias": False,
            "activation_function": "torch.nn.modules.linear.Identity",
        }
    return files


def module_names(model: BiEncoder) -> list[str]:
    """Return what a text goes through, in the words of Sentence Transformers."""
    names = ["Transformer", "Pooling"]
    if model.projection is not None:
        names.append("Dense")
    return [*names, "Normalize"] if model.normalize else names


def module_folder(model: BiEncoder, name: str) -> str:
    """Return where a module lies within the checkpoint, the transformer at the top."""
    return "" if name == "Transformer" else f"{module_names(model).index(name)}_{name}"


def _pooling(model: BiEncoder) -> dict[str, Any]:
    config = {
        "word_embedding_dimension": model.hidden_size,
        "pooling_mode_cls_token": model.pooling == "cls",
        "pooling_mode_mean_tokens": model.pooling == "mean",
        "pooling_mode_max_tokens": False,
        "pooling_mode_mean_sqrt_len_tokens": False,
    }
    # Versions before 2.3 know no last token and refuse the key, even if it is false.
    return {**config, "pooling_mode_lasttoken": True} if model.pooling == "last" else config
