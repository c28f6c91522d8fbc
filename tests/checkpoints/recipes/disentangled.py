"""Disentangled-Retriever: a backbone that says pooling and similarity, or an adapter alone."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import BertModel

from tests.checkpoints.recipes.made import (
    NAME,
    Made,
    Vector,
    bert,
    finish,
    first,
    mean,
    save_old,
    save_tokenizer,
    unit,
    write_json,
)

LORA = {"architecture": "lora", "r": 4, "alpha": 8, "attn_matrices": ["q", "v"]}
PARALLEL = {
    "is_parallel": True, "reduction_factor": 4, "scaling": 4.0, "mh_adapter": False,
    "output_adapter": True, "non_linearity": "relu",
}  # fmt: skip
BOTTLENECK = {
    "is_parallel": False, "reduction_factor": 4, "scaling": 1.0, "mh_adapter": True,
    "output_adapter": True, "non_linearity": "relu",
}  # fmt: skip


def backbone(run: Path, *, pooling: str, similarity: str, vector: Vector, model: BertModel) -> Made:
    save_old(model, run / NAME, prefix="bert.")
    none: dict[str, Any] = {}
    own = {
        "architectures": ["BertDense"],
        "pooling": pooling,
        "similarity_metric": similarity,
        "adapters": {"adapters": none, "config_map": none, "fusion_config_map": none},
        "prediction_heads": none,
    }
    write_json(run / NAME / "config.json", model.config.to_dict() | own)
    save_tokenizer(run / NAME)
    finish(run / NAME, arguments=True)
    return Made(
        folder=run / NAME,
        layout="disentangled-retriever",
        queries=vector,
        passages=vector,
        tokenizer=run / NAME,
    )


def average(run: Path) -> Made:
    model = bert(1)
    return backbone(run, pooling="average", similarity="ip", vector=mean(model), model=model)


def cosine(run: Path) -> Made:
    model = bert(1)
    return backbone(run, pooling="cls", similarity="cos", vector=unit(first(model)), model=model)


def adapter_tensors(config: Mapping[str, Any]) -> dict[str, Tensor]:
    """Return the tensors of the adapter `dense` of two layers, none of them zero."""
    members = config["configs"] if config.get("architecture") == "union" else [config]
    draw = torch.Generator().manual_seed(13)
    shapes: dict[str, tuple[int, ...]] = {}
    for number in range(2):
        layer = f"bert.encoder.layer.{number}"
        for member in members:
            if member.get("architecture") == "lora":
                for name in ("query", "value"):
                    place = f"{layer}.attention.self.{name}.loras.dense"
                    shapes |= {f"{place}.lora_A": (4, 16), f"{place}.lora_B": (16, 4)}
                continue
            places = ["output", *(["attention.output"] if member["mh_adapter"] else [])]
            for place in (f"{layer}.{each}.adapters.dense" for each in places):
                shapes |= {
                    f"{place}.adapter_down.0.weight": (4, 16),
                    f"{place}.adapter_down.0.bias": (4,),
                    f"{place}.adapter_up.weight": (16, 4),
                    f"{place}.adapter_up.bias": (16,),
                }
    return {key: torch.randn(shape, generator=draw) * 0.5 for key, shape in shapes.items()}


def save_adapter(folder: Path, config: Mapping[str, Any]) -> dict[str, Tensor]:
    """Write the adapter `dense` below a folder; return its tensors."""
    tensors = adapter_tensors(config)
    (folder / "dense").mkdir(parents=True)
    torch.save(tensors, folder / "dense" / "pytorch_adapter.bin")
    about = {
        "config": config,
        "config_id": "3a1b",
        "hidden_size": 16,
        "model_class": "BertDense",
        "model_name": None,
        "model_type": "bert",
        "name": "dense",
        "version": "3.1.0",
    }
    write_json(folder / "dense" / "adapter_config.json", about)
    return tensors


def adapter(run: Path, config: Mapping[str, Any]) -> Made:
    model = bert(1)
    base = run.parent / "backbone"
    model.save_pretrained(base)
    tensors = save_adapter(run / NAME, config)
    save_tokenizer(run / NAME)
    finish(run / NAME, arguments=True)

    def vector(ids: list[int]) -> Tensor:
        return adapted_states(model, ids, tensors).mean(dim=0)

    return Made(
        folder=run / NAME,
        layout="disentangled-adapter",
        queries=vector,
        passages=vector,
        tokenizer=run / NAME,
        flags=("--pooling", "mean", "--base_model", str(base)),
    )


@torch.no_grad()
def adapted_states(model: BertModel, ids: list[int], tensors: Mapping[str, Tensor]) -> Tensor:
    """Return the hidden states [T, H] of BERT with an adapter, step by step."""
    state: dict[str, Tensor] = model.state_dict()
    is_parallel = not any("attention.output" in key for key in tensors)
    hidden: Tensor = model.embeddings(input_ids=torch.tensor([ids]))[0]

    def dense(x: Tensor, place: str) -> Tensor:
        weight = state[f"{place}.weight"]
        down = tensors.get(f"bert.{place}.loras.dense.lora_A")
        if down is not None:
            weight = weight + 8 / 4 * tensors[f"bert.{place}.loras.dense.lora_B"] @ down
        return x @ weight.T + state[f"{place}.bias"]

    def ending(y: Tensor, x: Tensor, place: str) -> Tensor:
        """Return the layer norm over output y and input x of a block."""
        stem = f"bert.{place}.adapters.dense"
        if f"{stem}.adapter_up.bias" in tensors:
            seen = x if is_parallel else y
            down, down_bias, up, up_bias = (
                tensors[f"{stem}.{key}"]
                for key in (
                    "adapter_down.0.weight",
                    "adapter_down.0.bias",
                    "adapter_up.weight",
                    "adapter_up.bias",
                )
            )
            change = (seen @ down.T + down_bias).clamp(min=0) @ up.T + up_bias
            y = y + (4.0 if is_parallel else 1.0) * change
        norm = f"{place}.LayerNorm"
        total = y + x
        centred = total - total.mean(dim=1, keepdim=True)
        scaled = centred / ((centred**2).mean(dim=1, keepdim=True) + 1e-12).sqrt()
        return scaled * state[f"{norm}.weight"] + state[f"{norm}.bias"]

    for number in range(2):
        layer = f"encoder.layer.{number}"
        own = f"{layer}.attention.self"
        q, k, v = (
            dense(hidden, f"{own}.{name}").view(len(ids), 2, 8).transpose(0, 1)
            for name in ("query", "key", "value")
        )
        attention = torch.softmax(q @ k.transpose(1, 2) / 8**0.5, dim=-1) @ v  # [heads, T, H / 2]
        mixed = attention.transpose(0, 1).reshape(len(ids), 16)
        hidden = ending(
            dense(mixed, f"{layer}.attention.output.dense"), hidden, f"{layer}.attention.output"
        )
        inner = torch.nn.functional.gelu(dense(hidden, f"{layer}.intermediate.dense"))
        hidden = ending(dense(inner, f"{layer}.output.dense"), hidden, f"{layer}.output")
    return hidden


def union(run: Path) -> Made:
    return adapter(run, {"architecture": "union", "configs": [LORA, PARALLEL]})


def lora(run: Path) -> Made:
    return adapter(run, LORA)


def parallel(run: Path) -> Made:
    return adapter(run, PARALLEL)


def bottleneck(run: Path) -> Made:
    return adapter(run, BOTTLENECK)


RECIPES = {
    "disentangled average": average,
    "disentangled cosine": cosine,
    "disentangled adapter": union,
    "disentangled lora": lora,
    "disentangled parallel adapter": parallel,
    "disentangled bottleneck": bottleneck,
}
