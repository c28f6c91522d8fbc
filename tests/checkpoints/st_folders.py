"""Folders of Sentence Transformers as its versions write them, by hand."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from tests.models import HIDDEN, save_huggingface

OLD = "sentence_transformers.models.{}"
Tensors = dict[str, torch.Tensor]
NEW = {
    "Dense": "sentence_transformers.base.modules.dense.Dense",
    "Dropout": "sentence_transformers.sentence_transformer.modules.dropout.Dropout",
    "LayerNorm": "sentence_transformers.sentence_transformer.modules.layer_norm.LayerNorm",
    "Normalize": "sentence_transformers.base.modules.normalize.Normalize",
    "Pooling": "sentence_transformers.sentence_transformer.modules.pooling.Pooling",
    "Router": "sentence_transformers.base.modules.router.Router",
    "StaticEmbedding": (
        "sentence_transformers.sentence_transformer.modules.static_embedding.StaticEmbedding"
    ),
    "Transformer": "sentence_transformers.base.modules.transformer.Transformer",
    "WeightedLayerPooling": (
        "sentence_transformers.sentence_transformer.modules.weighted_layer_pooling."
        "WeightedLayerPooling"
    ),
}
"""The names of the modules in version 6."""


def write_modules(folder: Path, *modules: tuple[str, str], **model_config: Any) -> Path:
    """Write `modules.json`, of (kind, path) each, and the configuration of the model."""
    folder.mkdir(parents=True, exist_ok=True)
    listed = [
        {"idx": number, "name": str(number), "path": path, "type": NEW.get(kind, OLD.format(kind))}
        for number, (kind, path) in enumerate(modules)
    ]
    (folder / "modules.json").write_text(json.dumps(listed))
    model_config = {"similarity_fn_name": "dot"} | model_config
    (folder / "config_sentence_transformers.json").write_text(json.dumps(model_config))
    return folder


def write_module(
    folder: Path, config: dict[str, Any] | None, tensors: Tensors | None = None
) -> None:
    """Write the folder of one module."""
    folder.mkdir(parents=True, exist_ok=True)
    if config is not None:
        (folder / "config.json").write_text(json.dumps(config))
    if tensors:
        save_file(tensors, folder / "model.safetensors")


def write_pooling(folder: Path, mode: str | list[str] = "mean", **more: Any) -> None:
    write_module(folder, {"embedding_dimension": HIDDEN, "pooling_mode": mode} | more)


def write_dense(
    folder: Path, *, seed: int = 5, num_in: int = HIDDEN, num_out: int = HIDDEN, **more: Any
) -> Tensors:
    """Write a dense layer with bias and tanh; return its tensors."""
    made = torch.Generator().manual_seed(seed)
    tensors = {
        "linear.weight": torch.randn(num_out, num_in, generator=made),
        "linear.bias": torch.randn(num_out, generator=made),
    }
    if more.get("use_residual") and num_in != num_out:
        tensors["residual.weight"] = torch.randn(num_out, num_in, generator=made)
    config = {
        "in_features": num_in,
        "out_features": num_out,
        "bias": True,
        "activation_function": "torch.nn.modules.activation.Tanh",
    }
    write_module(folder, config | more, tensors)
    return tensors


def write_static(folder: Path, *, seed: int = 7) -> torch.Tensor:
    """Write a static embedding of the tiny tokenizer; return its table."""
    from tests.models import make_tokenizer

    tokenizer = make_tokenizer()
    table = torch.randn(len(tokenizer), HIDDEN, generator=torch.Generator().manual_seed(seed))
    write_module(folder, None, {"embedding.weight": table})
    tokenizer.backend_tokenizer.save(str(folder / "tokenizer.json"))
    return table


def write_router(
    folder: Path, routes: dict[str, list[str]], *, old: bool = False, **more: Any
) -> None:
    """Write the description of a router, whose modules' folders end with their kinds."""
    folder.mkdir(parents=True, exist_ok=True)
    kinds = {each: each.rpartition("_")[2] for steps in routes.values() for each in steps}
    content = {
        "types": {each: OLD.format(kind) if old else NEW[kind] for each, kind in kinds.items()},
        "structure": routes,
        "parameters": {"allow_empty_key": True} | more,
    }
    name = "config.json" if old else "router_config.json"
    (folder / name).write_text(json.dumps(content))


def write_transformer(folder: Path, *, seed: int = 1) -> Path:
    return save_huggingface(folder, seed=seed)
