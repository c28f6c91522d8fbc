"""What a recipe makes: a checkpoint as a toolkit writes it, and the vectors that it stands for.

The vectors come from the model in memory, one text at a time, by the toolkit's formula in plain
tensor arithmetic: nothing of what reads the folder takes part.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import BertModel, PreTrainedModel

from tests.models import bert_config, make_tokenizer

STEP = 100
NAME = f"checkpoint-{STEP}"
Vector = Callable[[list[int]], Tensor]
"""The vector [D] of one text, from its token ids, special tokens included."""

torch.set_num_threads(1)  # spares tiny tensors the wait for a second thread


@dataclass(frozen=True, kw_only=True)
class Made:
    """A checkpoint on disk.

    `flags` say what it does not record. `prefixes` are put before queries and passages,
    `eos` behind both.
    """

    folder: Path
    layout: str
    queries: Vector
    passages: Vector
    tokenizer: Path
    flags: tuple[str, ...] = ()
    prefixes: tuple[str, str] = ("", "")
    eos: bool = False
    dimension: int = 16
    max_length: int | None = 40


def bert(seed: int) -> BertModel:
    torch.manual_seed(seed)
    model = BertModel(bert_config())
    model.eval()
    return model


def hidden_states(model: PreTrainedModel, ids: list[int]) -> Tensor:
    """Return [T, H]."""
    with torch.no_grad():
        states: Tensor = model(input_ids=torch.tensor([ids])).last_hidden_state
        return states[0]


def first(model: PreTrainedModel) -> Vector:
    return lambda ids: hidden_states(model, ids)[0]


def mean(model: PreTrainedModel) -> Vector:
    return lambda ids: hidden_states(model, ids).sum(dim=0) / len(ids)


def last(model: PreTrainedModel) -> Vector:
    return lambda ids: hidden_states(model, ids)[-1]


def unit(vector: Vector) -> Vector:
    def scaled(ids: list[int]) -> Tensor:
        found = vector(ids)
        return found / (found * found).sum().sqrt()

    return scaled


def projected(vector: Vector, weight: Tensor, bias: Tensor | None = None) -> Vector:
    """Return W x + b of the vector x."""
    return lambda ids: weight @ vector(ids) + (0 if bias is None else bias)


def random_linear(seed: int, outputs: int = 8, inputs: int = 16) -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(seed)
    return torch.randn(outputs, inputs, generator=draw), torch.randn(outputs, generator=draw)


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def save_old(model: PreTrainedModel, folder: Path, *, prefix: str = "") -> None:
    """Write configuration and weights as transformers 4.21 did, with its buffer of positions."""
    model.config.architectures = [type(model).__name__]
    write_json(folder / "config.json", model.config.to_dict())
    state = {prefix + key: value for key, value in model.state_dict().items()}
    if isinstance(model, BertModel):
        state[f"{prefix}embeddings.position_ids"] = torch.arange(40)[None]
    torch.save(state, folder / "pytorch_model.bin")


def finish(folder: Path, *, arguments: bool) -> None:
    """Write what the trainer of Hugging Face writes into the folder behind the model."""
    if arguments:
        torch.save({"per_device_train_batch_size": 8}, folder / "training_args.bin")
    for name in ("optimizer.pt", "scheduler.pt", "rng_state.pth"):
        torch.save({"a": torch.ones(3)}, folder / name)
    state = {"global_step": STEP, "epoch": 1.0, "max_steps": 200, "log_history": []}
    write_json(folder / "trainer_state.json", state)


def save_tokenizer(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    make_tokenizer().save_pretrained(folder)
    return folder


def plain_tied(run: Path, *, seed: int, arguments: bool) -> Made:
    """Write one old model for queries and passages, its tokenizer only in the folder above."""
    model = bert(seed)
    save_old(model, run / NAME)
    finish(run / NAME, arguments=arguments)
    return Made(
        folder=run / NAME,
        layout="huggingface",
        queries=first(model),
        passages=first(model),
        tokenizer=save_tokenizer(run),
    )
