"""A Sentence Transformers folder: `modules.json` names the modules, each in its own folder.

Read from the files alone, for versions 2 to 6: a transformer, pooling by one mode, dense
layers, normalisation, prompts, similarity and length.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, cast

from asyncval.checkpoints.folder import Folder
from asyncval.checkpoints.loading import (
    TransformerEncoder,
    agree,
    closing_layers,
    first_line,
    load_backbone,
    max_positions,
    tokenizer_files,
    tokenizer_folder,
    unit_length,
    weight_files,
)
from asyncval.checkpoints.peft import CONFIG as ADAPTER
from asyncval.checkpoints.peft import WEIGHTS as ADAPTER_WEIGHTS
from asyncval.checkpoints.peft import adapter_files, load_adapted
from asyncval.core.errors import CheckpointBroken, CheckpointIncomplete, CheckpointUnsupported
from asyncval.core.types import (
    EncoderOptions,
    LoadedCheckpoint,
    Pooling,
    Precision,
    Reading,
    Similarity,
)

if TYPE_CHECKING:
    from torch import Tensor

MODULES = "modules.json"
MODEL_CONFIG = "config_sentence_transformers.json"
TRANSFORMER_CONFIG = "sentence_bert_config.json"
POOLINGS: Mapping[str, Pooling] = {"cls": "cls", "mean": "mean", "lasttoken": "last"}
POOLING_KEYS: Mapping[str, Pooling] = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_lasttoken": "last",
}
SIMILARITIES: Mapping[str, Similarity] = {"cosine": "cos", "dot": "ip", "dot_product": "ip"}
PASSAGE_PROMPTS = ("document", "passage", "corpus")


class SentenceTransformers:
    """What `SentenceTransformer.save` and its trainer write."""

    name = "sentence-transformers"

    def recognises(self, folder: Folder) -> bool:
        """Say whether its own files are there; the model's come before `modules.json`."""
        return MODULES in folder or MODEL_CONFIG in folder

    def model_files(self, folder: Folder) -> Sequence[str]:
        """Return the files of every module that `modules.json` names."""
        files = [MODULES, *_present(folder, MODEL_CONFIG)]
        for kind, prefix in _modules(folder):
            if kind == "Transformer":
                files += _transformer_files(folder, prefix)
                files += _present(folder, f"{prefix}{TRANSFORMER_CONFIG}")
                files += tokenizer_files(folder, prefix)
            elif kind == "Pooling":
                _require(folder, f"{prefix}config.json")
                files.append(f"{prefix}config.json")
            elif kind == "Dense":
                _require(folder, f"{prefix}config.json")
                files += [f"{prefix}config.json", *weight_files(folder, prefix)]
            elif kind != "Normalize":
                raise CheckpointUnsupported(f"{MODULES} has a module {kind!r}, which is not known.")
        return files

    def load(
        self, folder: Folder, options: EncoderOptions, *, device: str, precision: Precision
    ) -> LoadedCheckpoint:
        """Load the modules; flags may repeat what the folder says, not contradict it."""
        modules = _modules(folder)
        kinds = [kind for kind, _ in modules]
        if kinds[:2] != ["Transformer", "Pooling"] or kinds.count("Pooling") > 1:
            raise CheckpointUnsupported(
                f"{MODULES} has {', '.join(kinds)}; a transformer and its pooling must come first."
            )
        (_, root), (_, pooling_folder), *rest = modules
        if root + ADAPTER in folder:
            backbone = load_adapted(
                folder, options, device=device, precision=precision, prefix=root
            )
        else:
            backbone = load_backbone(
                folder.path / root,
                device=device,
                precision=precision,
                trust_remote_code=options.trust_remote_code,
            )
        model_config = folder.read_json(MODEL_CONFIG) if MODEL_CONFIG in folder else {}
        bert_config = (
            folder.read_json(root + TRANSFORMER_CONFIG)
            if (root + TRANSFORMER_CONFIG in folder)
            else {}
        )
        pooling = agree("--pooling", options.pooling, _pooling(folder, pooling_folder))
        head = [_layer(folder, kind, prefix, device=device) for kind, prefix in rest]
        head += closing_layers(options, normalize=None, similarity=_similarity(model_config))
        prompts = model_config.get("prompts") or {}
        default = prompts.get(model_config.get("default_prompt_name"), "")
        limits = (
            max_positions(backbone.config),
            bert_config.get("max_seq_length") or _tokenizer_length(folder, root),
        )
        reading = partial(
            Reading,
            tokenizer_folder=tokenizer_folder(folder.path / root),
            max_length=min((limit for limit in limits if limit), default=None),
            lower_case=bool(bert_config.get("do_lower_case")),
            append_eos=bool(options.append_eos),
        )
        return LoadedCheckpoint(
            encoder=TransformerEncoder(backbone, pooling=cast(Pooling, pooling), head=head),
            queries=reading(
                prefix=_prefix(
                    "--query_prefix", options.query_prefix, prompts.get("query") or default
                )
            ),
            passages=reading(
                prefix=_prefix(
                    "--passage_prefix",
                    options.passage_prefix,
                    next((prompts[name] for name in PASSAGE_PROMPTS if prompts.get(name)), default),
                )
            ),
        )


def _transformer_files(folder: Folder, prefix: str) -> list[str]:
    """Return a transformer's files: an adapter's, or a configuration and weights."""
    if any(prefix + name in folder for name in (ADAPTER, *ADAPTER_WEIGHTS)):
        return adapter_files(folder, prefix)
    _require(folder, f"{prefix}config.json")
    return [f"{prefix}config.json", *weight_files(folder, prefix)]


def _tokenizer_length(folder: Folder, prefix: str) -> int | None:
    """Return the maximum length that version 6 keeps with the tokenizer."""
    name = f"{prefix}tokenizer_config.json"
    value = folder.read_json(name).get("model_max_length") if name in folder else None
    return value if isinstance(value, int) and value < 10**6 else None


def _modules(folder: Folder) -> list[tuple[str, str]]:
    """Return (kind, folder with a closing slash or empty) of every module, in order."""
    _require(folder, MODULES)
    try:
        return [
            (each["type"].rpartition(".")[2], f"{each['path'].strip('/')}/" if each["path"] else "")
            for each in folder.read_json(MODULES)
        ]
    except (KeyError, TypeError, AttributeError) as error:
        raise CheckpointBroken(f"{MODULES} is not a list of modules: {error}.") from error


def _pooling(folder: Folder, prefix: str) -> Pooling:
    config = folder.read_json(f"{prefix}config.json")
    mode = config.get("pooling_mode")  # version 6 has one name, or a list of names
    modes = [mode] if isinstance(mode, str) else list(mode or ())
    modes = modes or [key for key, on in config.items() if key.startswith("pooling_mode_") and on]
    known = {**POOLINGS, **POOLING_KEYS}
    if len(modes) != 1 or modes[0] not in known:
        raise CheckpointUnsupported(f"{prefix}config.json has the pooling {modes}, not known yet.")
    if config.get("include_prompt") is False:
        raise CheckpointUnsupported(f"{prefix}config.json leaves the prompt out of the pooling.")
    return known[modes[0]]


def _similarity(model_config: Mapping[str, Any]) -> Similarity | None:
    name = model_config.get("similarity_fn_name")
    if name is None:
        return None
    if name not in SIMILARITIES:
        raise CheckpointUnsupported(f"{MODEL_CONFIG} has the similarity {name!r}, not searchable.")
    return SIMILARITIES[name]


def _prefix(flag: str, said: str | None, recorded: str) -> str:
    return cast(str, agree(flag, said, recorded or None) or "")


def _layer(
    folder: Folder, kind: str, prefix: str, *, device: str
) -> Callable[["Tensor"], "Tensor"]:
    return unit_length if kind == "Normalize" else _dense(folder, prefix, device=device)


def _dense(folder: Folder, prefix: str, *, device: str) -> Callable[["Tensor"], "Tensor"]:
    """Load a dense layer and its activation; only activations of torch itself are made."""
    import torch
    from safetensors.torch import load_file

    config = folder.read_json(f"{prefix}config.json")
    name = config.get("activation_function", "torch.nn.modules.activation.Tanh")
    activation = getattr(torch.nn, name.rpartition(".")[2], None)
    if not name.startswith("torch.nn.") or not isinstance(activation, type):
        raise CheckpointUnsupported(
            f"{prefix}config.json has the activation {name!r}, not torch's."
        )
    if config.get("use_residual") or config.get("module_input_name", "sentence_embedding") != (
        "sentence_embedding"
    ):
        raise CheckpointUnsupported(f"{prefix} is a dense layer of a kind that is not known yet.")
    linear = torch.nn.Linear(
        config["in_features"], config["out_features"], bias=config.get("bias", True)
    )
    [weights] = weight_files(folder, prefix)
    path = folder.path / weights
    try:
        state = (
            load_file(path)
            if path.suffix == ".safetensors"
            else torch.load(path, map_location="cpu", weights_only=True)
        )
        linear.load_state_dict({key.removeprefix("linear."): value for key, value in state.items()})
    except Exception as error:  # whatever a damaged or foreign file makes torch raise
        raise CheckpointBroken(f"{weights} cannot be loaded: {first_line(error)}") from error
    return torch.nn.Sequential(linear, activation()).to(device).eval()


def _present(folder: Folder, name: str) -> list[str]:
    return [name] if name in folder else []


def _require(folder: Folder, name: str) -> None:
    if name not in folder:
        raise CheckpointIncomplete(f"{name} is missing.")
