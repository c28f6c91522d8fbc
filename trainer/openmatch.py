"""OpenMatch's checkpoint layout, for what only it can say: the first token of T5's decoder."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from trainer.model import BiEncoder, Tower, load_transformer, part_of

CONFIG = "openmatch_config.json"
HEAD = "linear.pt"
HEAD_KEY = "linear.weight"


def save(
    folder: Path,
    *,
    model: BiEncoder,
    tokenizer: PreTrainedTokenizerBase,
    weights: Mapping[str, Tensor] | None = None,
) -> None:
    """Write a checkpoint.

    Args:
        folder: made if it does not exist.
        model: its towers run T5's decoder.
        tokenizer: its files go to the top.
        weights: a gathered state dict of the bi-encoder, if not the model's own.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tower = model.query_tower
    kind = type(tower.transformer).__name__
    config = {
        "tied": len(model.towers) == 1,
        # OpenMatch reads the last two where the towers are untied, and writes the first.
        "plm_backbone": {
            "type": kind,
            "feature": "last_hidden_state",
            "lm_q_type": kind,
            "lm_p_type": kind,
        },
        "pooling": "first",
        "linear_head": tower.projection is not None,
        "normalize": tower.normalize,
    }
    # The layout comes before the weights: a half-written folder is never taken for another layout.
    (folder / CONFIG).write_text(json.dumps(config, indent=2) + "\n")
    tokenizer.save_pretrained(folder)
    for name, each, place, head in _places(folder, model):
        gathered = None if weights is None else part_of(weights, f"towers.{name}.")
        if each.projection is not None:
            matrix = gathered["projection.weight"] if gathered else each.projection.weight
            head.mkdir(exist_ok=True)
            torch.save({HEAD_KEY: matrix.detach().cpu().contiguous()}, head / HEAD)
            sizes = {"input_dim": matrix.shape[1], "output_dim": matrix.shape[0]}
            (head / "head_config.json").write_text(json.dumps(sizes) + "\n")
        state = part_of(gathered, "transformer.") if gathered else None
        each.transformer.save_pretrained(place, state_dict=state)


def load(folder: Path, *, model: BiEncoder) -> None:
    """Put the weights of a checkpoint into a model that was built by the same flags."""
    for _, tower, place, head in _places(folder, model):
        saved = load_transformer(str(place), decoder=True)
        tower.transformer.load_state_dict(saved.state_dict())
        if tower.projection is not None:
            tower.projection.load_state_dict({"weight": load_head(head)})


def load_head(folder: Path) -> Tensor:
    """Return the weight [D, H] of a linear head."""
    tensors: dict[str, Tensor] = torch.load(folder / HEAD, weights_only=True)
    return tensors[HEAD_KEY]


def _places(folder: Path, model: BiEncoder) -> Iterator[tuple[str, Tower, Path, Path]]:
    """Yield the name of each tower, the tower, and the folders of its transformer and its head."""
    if len(model.towers) == 1:
        yield "both", model.query_tower, folder, folder
        return
    yield "query", model.query_tower, folder / "query_model", folder / "query_head"
    yield "document", model.passage_tower, folder / "passage_model", folder / "passage_head"
