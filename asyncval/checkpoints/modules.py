"""The modules of Sentence Transformers: the files of each, and what it does to a batch of texts.

A batch is a dict that one module after another adds to: `input_ids` and `attention_mask`
[B, T], `prompt_length`, `token_embeddings` [B, T, H], `sentence_embedding` [B, D] float32.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from asyncval.checkpoints.description import read_config
from asyncval.checkpoints.folder import Folder
from asyncval.checkpoints.loading import (
    first_line,
    load_backbone,
    needed,
    pool,
    tokenizer_files,
    unit_length,
    weight_files,
)
from asyncval.checkpoints.peft import CONFIG as ADAPTER
from asyncval.checkpoints.peft import WEIGHTS as ADAPTER_WEIGHTS
from asyncval.checkpoints.peft import adapter_files, load_adapted
from asyncval.core.errors import CheckpointBroken, CheckpointIncomplete, CheckpointUnsupported
from asyncval.core.types import EncoderOptions, Pooling, Precision

if TYPE_CHECKING:
    from torch import Tensor, nn

Batch = dict[str, Any]
Module = Callable[[Batch], None]
TRANSFORMER_CONFIGS = tuple(
    f"sentence_{kind}_config.json"  # version 1 named it after the kind of transformer
    for kind in ("bert", "roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet")
)
VECTOR = "sentence_embedding"
POOLINGS: Mapping[str, Pooling] = {
    "cls": "cls",
    "max": "max",
    "mean": "mean",
    "mean_sqrt_len_tokens": "mean_sqrt_len",
    "weightedmean": "weightedmean",
    "lasttoken": "last",
}
POOLING_KEYS: Mapping[str, Pooling] = {  # until version 5, in the order of concatenation
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "last",
}
WORDS = "it works on words, which a tokenizer of its own makes"
SPARSE = "its vectors have a place for every token of the vocabulary, which is no dense retrieval"
TOKENS = "it keeps a vector for every token (ColBERT), which is no search for one vector"
REFUSED = {
    **dict.fromkeys(("BoW", "CNN", "LSTM", "WordEmbeddings", "WordWeights"), WORDS),
    **dict.fromkeys(("MLMTransformer", "SpladePooling", "SparseStaticEmbedding"), SPARSE),
    **dict.fromkeys(("SparseAutoEncoder", "CSRSparsity", "IDF"), SPARSE),
    **dict.fromkeys(("MultiVectorMask", "HierarchicalTokenPooling"), TOKENS),
    **dict.fromkeys(("CLIPModel", "CLIPTextModel"), "it is for images"),
}
"""Modules that are known, and why they are not read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """Where a module lies: `prefix` is empty or ends with a slash; and how it is to be loaded."""

    folder: Folder
    prefix: str
    options: EncoderOptions
    device: str
    precision: Precision

    @property
    def config(self) -> dict[str, Any]:
        """The module's configuration."""
        return read_config(self.folder, f"{self.prefix}config.json")


def transformer_files(folder: Folder, prefix: str) -> list[str]:
    """Return those of a transformer (an adapter's, or a whole one's) and of its tokenizer."""
    if any(prefix + name in folder for name in (ADAPTER, *ADAPTER_WEIGHTS)):
        own = adapter_files(folder, prefix)
    else:
        own = _config_and_weights(folder, prefix)
    settings = [prefix + name for name in TRANSFORMER_CONFIGS if prefix + name in folder]
    return [*own, *settings[:1], *tokenizer_files(folder, prefix)]


def settings_of(folder: Folder, prefix: str) -> tuple[str, dict[str, Any]]:
    """Return the file that says how a transformer wants its texts, and what it says."""
    names = [prefix + name for name in TRANSFORMER_CONFIGS]
    name = next((each for each in names if each in folder), names[0])
    return name, read_config(folder, name)


def _config(folder: Folder, prefix: str) -> list[str]:
    return [require(folder, f"{prefix}config.json")]


def _config_and_weights(folder: Folder, prefix: str) -> list[str]:
    return [*_config(folder, prefix), *weight_files(folder, prefix)]


def _maybe_config(folder: Folder, prefix: str) -> list[str]:
    return [name for name in (f"{prefix}config.json",) if name in folder]


def _static_files(folder: Folder, prefix: str) -> list[str]:
    return [require(folder, f"{prefix}tokenizer.json"), *weight_files(folder, prefix)]


def require(folder: Folder, name: str) -> str:
    """Return the name of a file that must be there.

    Raises:
        CheckpointIncomplete: It is not.
    """
    if name not in folder:
        raise CheckpointIncomplete(f"{name} is missing.")
    return name


def transformer(site: Site) -> tuple[Module, Any]:
    """Load a transformer, or an adapter and its base; return its configuration too."""
    _check_settings(site)
    folder, prefix, options = site.folder, site.prefix, site.options
    if prefix + ADAPTER in folder:
        backbone = load_adapted(
            folder, options, device=site.device, precision=site.precision, prefix=prefix
        )
    else:
        backbone = load_backbone(
            folder.path / prefix,
            device=site.device,
            precision=site.precision,
            trust_remote_code=options.trust_remote_code,
        )

    def run(batch: Batch) -> None:
        mask = needed(batch["attention_mask"])
        output = backbone(input_ids=batch["input_ids"], attention_mask=mask)
        batch["token_embeddings"] = output.last_hidden_state.float()
        batch["all_layers"] = getattr(output, "hidden_states", None)

    return run, backbone.config


def _check_settings(site: Site) -> None:
    """Refuse what version 6 can do to texts and hidden states beyond the plain thing."""
    name, settings = settings_of(site.folder, site.prefix)
    ways = settings.get("modality_config") or {"text": {}}
    way = ways.get("text") or {}
    plain = {
        "transformer_task": settings.get("transformer_task", "feature-extraction")
        == "feature-extraction",
        "modality_config": "text" in ways
        and "message" not in ways  # a chat template around every text
        and way.get("method", "forward") == "forward"
        and way.get("method_output_name", "last_hidden_state") == "last_hidden_state",
        "module_output_name": settings.get("module_output_name", "token_embeddings")
        == "token_embeddings",
        "processing_kwargs": not settings.get("processing_kwargs"),
        "query_expansion": not settings.get("query_expansion"),
    }
    odd = [key for key, is_plain in plain.items() if not is_plain]
    if odd:
        raise CheckpointUnsupported(f"{name} has {odd[0]} {settings[odd[0]]!r}, which is not read.")


def _pooling(site: Site) -> Module:
    modes = pooling_modes(site.folder, site.prefix)
    whole = site.config.get("include_prompt") is not False

    def run(batch: Batch) -> None:
        import torch

        hidden, mask = batch["token_embeddings"], batch["attention_mask"]
        skip = 0 if whole else batch["prompt_length"]
        batch[VECTOR] = torch.cat([pool(hidden, mask, mode, skip=skip) for mode in modes], dim=-1)

    return run


def pooling_modes(folder: Folder, prefix: str) -> Sequence[Pooling]:
    """Return the modes of a pooling module, whose vectors are concatenated.

    Raises:
        CheckpointUnsupported: One of them is not known, or there is none.
    """
    config = read_config(folder, f"{prefix}config.json")
    mode = config.get("pooling_mode")  # version 6 has one name, or a list of names
    names = [mode] if isinstance(mode, str) else list(mode or ())
    names = names or [key for key in POOLING_KEYS if config.get(key)]
    known = {**POOLINGS, **POOLING_KEYS}
    if not names or any(name not in known for name in names):
        raise CheckpointUnsupported(f"{prefix}config.json has the pooling {names}, not known.")
    return [known[name] for name in names]


def _dense(site: Site) -> Module:
    """Load a dense layer, its activation, and what is added to it."""
    import torch

    config = site.config
    try:
        num_in, num_out = config["in_features"], config["out_features"]
        layers = {"linear": torch.nn.Linear(num_in, num_out, bias=config.get("bias", True))}
        residual: Callable[[Tensor], Tensor] | None = None
        if config.get("use_residual"):
            residual = torch.nn.Identity()
            if num_in != num_out:
                residual = layers["residual"] = torch.nn.Linear(num_in, num_out, bias=False)
    except (KeyError, TypeError, RuntimeError) as error:
        raise CheckpointBroken(f"{site.prefix}config.json is no dense layer: {error}.") from error
    _load_state(site, torch.nn.ModuleDict(layers))
    linear, activation = layers["linear"], _activation(site, config)
    source = config.get("module_input_name") or VECTOR
    target = config.get("module_output_name") or source

    def run(batch: Batch) -> None:
        given = _take(batch, source, site.prefix)
        made = activation(linear(given))
        batch[target] = made if residual is None else made + residual(given)

    return run


def _activation(site: Site, config: Mapping[str, Any]) -> "nn.Module":
    """Return an activation by its name; only those of torch itself are made."""
    import torch

    name = str(config.get("activation_function", "torch.nn.modules.activation.Tanh"))
    kind = getattr(torch.nn, name.rpartition(".")[2], None)
    if (
        name.startswith("torch.nn.")
        and isinstance(kind, type)
        and issubclass(kind, torch.nn.Module)
    ):
        try:
            return kind()
        except TypeError:
            pass  # it is a layer with arguments, no activation
    raise CheckpointUnsupported(
        f"{site.prefix}config.json has the activation {name!r}, not one of torch's."
    )


def _normalize(site: Site) -> Module:
    config = site.config
    source = config.get("module_input_name") or VECTOR
    target = config.get("module_output_name") or source

    def run(batch: Batch) -> None:
        batch[target] = unit_length(_take(batch, source, site.prefix))

    return run


def _layer_norm(site: Site) -> Module:
    import torch

    norm = torch.nn.LayerNorm(_number(site, "dimension"))
    _load_state(site, torch.nn.ModuleDict({"norm": norm}))

    def run(batch: Batch) -> None:
        batch[VECTOR] = norm(_take(batch, VECTOR, site.prefix))

    return run


def _layer_mixture(site: Site) -> Module:
    """Load a weighted mean of the hidden states of several layers."""
    import torch

    first = _number(site, "layer_start")
    [weights] = _tensors(site, ["layer_weights"])

    def run(batch: Batch) -> None:
        layers = batch["all_layers"]
        if layers is None or len(layers) - first != len(weights):
            raise CheckpointUnsupported(
                f"{site.prefix} mixes {len(weights)} layers from number {first} on, which the "
                "transformer does not give: its config.json must have output_hidden_states."
            )
        stack = torch.stack([layer.float() for layer in layers[first:]])  # [L, B, T, H]
        batch["token_embeddings"] = torch.tensordot(weights, stack, dims=1) / weights.sum()

    return run


def _static(site: Site) -> Module:
    """Load a table of vectors, whose mean over the tokens is the vector of a text."""
    found = _all_tensors(site)
    if "embedding.weight" in found:
        table = found["embedding.weight"]
    elif "embeddings" in found:  # as model2vec writes it
        table = found["embeddings"]
        if "mapping" in found:
            table = table[found["mapping"].long()]
        if "weights" in found:
            table = table.float() * found["weights"].float()[:, None]
    else:
        raise CheckpointBroken(f"{site.prefix} has no tensor 'embedding.weight'.")
    table = table.float().to(site.device)

    def run(batch: Batch) -> None:
        batch[VECTOR] = pool(table[batch["input_ids"]], batch["attention_mask"], "mean")

    return run


def _nothing(site: Site) -> Module:
    return lambda batch: None


def _take(batch: Batch, name: str, prefix: str) -> "Tensor":
    if name not in batch:
        raise CheckpointUnsupported(f"{prefix} reads {name!r}, which no module before it makes.")
    return batch[name]  # type: ignore[no-any-return]


def _number(site: Site, key: str) -> int:
    value = site.config.get(key)
    if not isinstance(value, int) or value < 0:
        raise CheckpointBroken(f"{site.prefix}config.json has no {key}.")
    return value


def _load_state(site: Site, module: "nn.Module") -> None:
    """Give a module its tensors: all that it needs, and none that it does not know."""
    try:
        module.load_state_dict(_all_tensors(site))
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise CheckpointBroken(f"{_weights(site)} does not fit: {reason}") from error
    module.to(site.device).eval()


def _tensors(site: Site, names: Sequence[str]) -> "list[Tensor]":
    found = _all_tensors(site)
    lacking = [name for name in names if name not in found]
    if lacking:
        raise CheckpointBroken(f"{_weights(site)} has no tensor {lacking[0]!r}.")
    return [found[name].float().to(site.device) for name in names]


def _all_tensors(site: Site) -> "dict[str, Tensor]":
    """Read a small file of weights; nothing in it is executed.

    Raises:
        CheckpointBroken: It is damaged, or holds more than tensors.
    """
    import torch
    from safetensors.torch import load

    name = _weights(site)
    path = site.folder.path / name
    try:
        if path.suffix == ".safetensors":
            return load(path.read_bytes())
        found = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever a damaged or foreign file makes torch raise
        raise CheckpointBroken(
            f"{name} cannot be read: it is damaged, or holds more than tensors "
            f"({first_line(error)})."
        ) from error
    if not isinstance(found, dict) or not all(isinstance(v, torch.Tensor) for v in found.values()):
        raise CheckpointBroken(f"{name} does not hold tensors by their names.")
    return found


def _weights(site: Site) -> str:
    return weight_files(site.folder, site.prefix)[-1]


FILES: Mapping[str, Callable[[Folder, str], list[str]]] = {
    "Dense": _config_and_weights,
    "Dropout": _maybe_config,
    "LayerNorm": _config_and_weights,
    "Normalize": _maybe_config,
    "Pooling": _config,
    "StaticEmbedding": _static_files,
    "Transformer": transformer_files,
    "WeightedLayerPooling": _config_and_weights,
}
"""The files of each kind of module, in its folder."""

LOADERS: Mapping[str, Callable[[Site], Module]] = {
    "Dense": _dense,
    "Dropout": _nothing,
    "LayerNorm": _layer_norm,
    "Normalize": _normalize,
    "Pooling": _pooling,
    "StaticEmbedding": _static,
    "WeightedLayerPooling": _layer_mixture,
}
"""How each kind but the transformer is loaded."""
