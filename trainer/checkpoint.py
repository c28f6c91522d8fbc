"""What a checkpoint folder looks like: the Sentence Transformers layout.

It states pooling, normalisation, lengths, prefixes and similarity beside the weights, so whoever
opens the folder needs no flag. The keys are those that version 2.0 already knew. Of T5's decoder it
knows nothing: such a checkpoint has OpenMatch's layout.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from trainer import openmatch
from trainer.errors import InputError
from trainer.model import BiEncoder, Tower, has_lora, load_lora, load_transformer, part_of

MODULES = "modules.json"
ROUTES = "router_config.json"
WEIGHTS = "model.safetensors"
ADAPTERS = "adapter_config.json"
ADAPTER_WEIGHTS = "adapter_model.safetensors"
PACKAGE = "sentence_transformers.models"
DENSE_KEY = "linear.weight"
IDENTITY = "torch.nn.modules.linear.Identity"

Json = dict[str, Any] | list[dict[str, Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class TextSettings:
    """What was done to a text before the model saw it; prefixes come before what templates make."""

    q_max_len: int
    p_max_len: int
    query_prefix: str = ""
    passage_prefix: str = ""
    query_template: str | None = None
    doc_template: str | None = None

    def of_asyncval(self) -> dict[str, Json]:
        """Return what the library does not know, and Asyncval looks at."""
        templates = {"query": self.query_template, "document": self.doc_template}
        used = {side: template for side, template in templates.items() if template is not None}
        return {
            # The library has one length for both sides.
            "max_lengths": {"query": self.q_max_len, "document": self.p_max_len},
            **({"templates": used} if used else {}),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class TowerFolders:
    """Where the modules of a tower lie within a checkpoint."""

    tower: Tower
    max_length: int
    route: str | None = None

    @property
    def modules(self) -> dict[str, str]:
        """What a text goes through, in the words of Sentence Transformers, and its folder."""
        names = ["Transformer", "Pooling"]
        if self.tower.projection is not None:
            names.append("Dense")
        if self.tower.normalize:
            names.append("Normalize")
        if self.route:
            return {name: f"{self.route}_{i}_{name}" for i, name in enumerate(names)}
        return {name: f"{i}_{name}" if i else "" for i, name in enumerate(names)}


def tower_folders(model: BiEncoder, texts: TextSettings) -> dict[str, TowerFolders]:
    """Return the one tower, whose transformer is at the top, or the routes of a Router."""
    if len(model.towers) == 1:
        longest = max(texts.q_max_len, texts.p_max_len)
        return {"both": TowerFolders(tower=model.query_tower, max_length=longest)}
    query, document = model.query_tower, model.passage_tower
    return {
        "query": TowerFolders(tower=query, max_length=texts.q_max_len, route="query"),
        "document": TowerFolders(tower=document, max_length=texts.p_max_len, route="document"),
    }


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
        model: config and weights of its transformer go to the top level, or for two towers to a
            folder each; of one with adapters only these, in PEFT's files, which name the
            transformer that they belong to.
        tokenizer: its files go beside the transformer's.
        texts: lengths and prefixes.
        weights: a state dict of the bi-encoder that some distributed run has gathered, if not
            the model's own.
    """
    if model.query_tower.pooling == "decoder":
        openmatch.save(folder, model=model, tokenizer=tokenizer, weights=weights)
        return
    # The layout comes before the weights: a half-written folder is never taken for another layout.
    for name, content in layout_files(model, texts).items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    for name, folders in tower_folders(model, texts).items():
        tower, modules = folders.tower, folders.modules
        gathered = None if weights is None else part_of(weights, f"towers.{name}.")
        if "Normalize" in modules:
            (folder / modules["Normalize"]).mkdir(exist_ok=True)
        tokenizer.save_pretrained(folder / modules["Transformer"])
        if tower.projection is not None:
            matrix = gathered["projection.weight"] if gathered else tower.projection.weight
            path = folder / modules["Dense"] / WEIGHTS
            save_file({DENSE_KEY: matrix.detach().cpu().contiguous()}, path)
        state = part_of(gathered, "transformer.") if gathered else None
        tower.transformer.save_pretrained(folder / modules["Transformer"], state_dict=state)


def load_weights(folder: Path, *, model: BiEncoder, texts: TextSettings) -> None:
    """Put the weights of a checkpoint into a model that was built by the same flags."""
    if model.query_tower.pooling == "decoder":
        openmatch.load(folder, model=model)
        return
    for folders in tower_folders(model, texts).values():
        tower, modules = folders.tower, folders.modules
        source = folder / modules["Transformer"]
        if has_lora(tower.transformer):
            load_lora(tower.transformer, load_file(source / ADAPTER_WEIGHTS))
        else:
            tower.transformer.load_state_dict(load_transformer(str(source)).state_dict())
        if tower.projection is not None:
            path = folder / modules["Dense"] / WEIGHTS
            tower.projection.load_state_dict({"weight": load_file(path)[DENSE_KEY]})


def check_start(folder: Path) -> None:
    """Refuse to start from a checkpoint that has no transformer at its top.

    Raises:
        InputError: It is of two towers, or holds only adapters.
    """
    if (folder / "config.json").is_file():
        return
    for name, what in ((ROUTES, "has two towers"), (ADAPTERS, "holds only adapters")):
        if (folder / name).is_file():
            raise InputError(
                f"Model {str(folder)!r} {what} ({name}), and a training starts from one whole "
                "transformer. Give --model_name_or_path the model that it was trained from."
            )


def load_projection(folder: Path, *, tower: Tower) -> None:
    """Put the last layer of the checkpoint that a training starts from, if any, into its tower.

    Raises:
        InputError: The tower has no such layer, or the checkpoint's cannot be trained on.
    """
    try:
        weight = _last_layer(folder)
    except (OSError, ValueError, LookupError, TypeError, SafetensorError) as error:
        raise InputError(
            f"Model {str(folder)!r}: the linear layer at its end cannot be read: {error}. Give "
            "--model_name_or_path a whole checkpoint."
        ) from error
    if weight is None:
        return
    if tower.projection is None or tower.projection.weight.shape != weight.shape:
        raise InputError(
            f"Model {str(folder)!r} ends in a linear layer of {len(weight)} dimensions. Give "
            f"--projection_dim {len(weight)} to train on with it."
        )
    tower.projection.load_state_dict({"weight": weight})


def _last_layer(folder: Path) -> Tensor | None:
    """Return the weight [D, H] of a checkpoint's linear layer."""
    if all((folder / name).is_file() for name in (openmatch.CONFIG, openmatch.HEAD)):
        return openmatch.load_head(folder)
    if not (folder / MODULES).is_file():
        return None
    modules = json.loads((folder / MODULES).read_bytes())
    dense = [folder / each["path"] for each in modules if each["type"].endswith(".Dense")]
    if not dense:
        return None
    config = json.loads((dense[0] / "config.json").read_bytes())
    kind = (len(dense), config["bias"], config["activation_function"])
    if kind != (1, False, IDENTITY):
        raise InputError(
            f"Model {str(folder)!r} ends in a linear layer with a bias or an activation, or "
            "in several, which cannot be trained on here. Give --model_name_or_path a folder with "
            "its transformer only."
        )
    return load_file(dense[0] / WEIGHTS)[DENSE_KEY]


def layout_files(model: BiEncoder, texts: TextSettings) -> dict[str, Json]:
    """Return the content of each side file under its path within the folder."""
    towers = tower_folders(model, texts)
    files: dict[str, Json] = {
        "config_sentence_transformers.json": {
            "prompts": {"query": texts.query_prefix, "document": texts.passage_prefix},
            "default_prompt_name": None,
            "similarity_fn_name": "cosine" if model.query_tower.normalize else "dot",
            **texts.of_asyncval(),
        },
    }
    for folders in towers.values():
        modules = folders.modules
        beside_transformer = f"{modules['Transformer']}/" if modules["Transformer"] else ""
        files[f"{beside_transformer}sentence_bert_config.json"] = {
            "max_seq_length": folders.max_length,
            "do_lower_case": False,
        }
        files[f"{modules['Pooling']}/config.json"] = _pooling(folders.tower)
        if folders.tower.projection is not None:
            files[f"{modules['Dense']}/config.json"] = {
                "in_features": folders.tower.projection.in_features,
                "out_features": folders.tower.projection.out_features,
                "bias": False,
                "activation_function": IDENTITY,
            }
    if len(towers) == 1:
        return {MODULES: _modules(towers["both"].modules), **files}
    return {
        MODULES: _modules({"Router": ""}),
        ROUTES: {
            "types": {
                path: f"{PACKAGE}.{name}"
                for folders in towers.values()
                for name, path in folders.modules.items()
            },
            "structure": {route: list(each.modules.values()) for route, each in towers.items()},
            "parameters": {"default_route": "document", "allow_empty_key": True},
        },
        **files,
    }


def _modules(modules: Mapping[str, str]) -> Json:
    return [
        {"idx": i, "name": str(i), "path": path, "type": f"{PACKAGE}.{name}"}
        for i, (name, path) in enumerate(modules.items())
    ]


def _pooling(tower: Tower) -> dict[str, Any]:
    config = {
        "word_embedding_dimension": tower.hidden_size,
        "pooling_mode_cls_token": tower.pooling == "cls",
        "pooling_mode_mean_tokens": tower.pooling == "mean",
        "pooling_mode_max_tokens": False,
        "pooling_mode_mean_sqrt_len_tokens": False,
    }
    # Versions before 2.3 know no last token and refuse the key, even if it is false.
    return {**config, "pooling_mode_lasttoken": True} if tower.pooling == "last" else config
