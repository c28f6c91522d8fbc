"""OpenMatch: `openmatch_config.json` says class, feature, pooling, head and normalisation.

Of an encoder-decoder such as T5 it takes the first hidden state of the decoder, whatever the
configuration says of pooling; of `T5EncoderModel` there is only the encoder.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from asyncval.checkpoints.description import Description, Fact, describe, read_config
from asyncval.checkpoints.folder import Folder
from asyncval.checkpoints.heads import Layer, check_shape, layer_norm, linear, read_tensors, take
from asyncval.checkpoints.towers import has_two_towers, load_towers, tower_files, towers_of
from asyncval.core.errors import CheckpointIncomplete, CheckpointUnsupported
from asyncval.core.types import EncoderOptions, LoadedCheckpoint, Precision

if TYPE_CHECKING:
    from torch import Tensor

CONFIG = "openmatch_config.json"
HEAD, HEAD_CONFIG = "linear.pt", "head_config.json"
NORM, NORM_CONFIG = "layernorm.pt", "layernorm_config.json"
NO_HEAD = Fact("none", CONFIG)
POOLINGS = {"first": "cls", "mean": "mean", "no": "no"}
FEATURES = ("last_hidden_state", "pooler_output")
DELTAS = "delta_model/"
TASK_HEAD = re.compile("For[A-Z]")
"""What is in the names of classes such as BertForMaskedLM."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The configuration; `kinds` are transformers' classes for queries and for passages.

    `pooling` is in OpenMatch's words.
    """

    tied: bool
    kinds: tuple[str, str]
    feature: str
    pooling: str
    linear_head: bool
    layernorm: bool
    normalize: bool

    @property
    def has_decoder(self) -> bool:
        """Whether the vector is the decoder's first hidden state."""
        return "T5" in self.kinds[0] and not self.kinds[0].endswith("EncoderModel")

    def layers(self) -> dict[str, list[tuple[str, str]]]:
        """Return weights and configuration of what follows the pooling, for each tower."""
        kinds = {
            "head": (self.linear_head, HEAD, HEAD_CONFIG),
            "layernorm": (self.layernorm, NORM, NORM_CONFIG),
        }
        return {
            kind: [
                (folder + weights, folder + config)
                for folder in ([""] if self.tied else [f"query_{kind}/", f"passage_{kind}/"])
                if wanted
            ]
            for kind, (wanted, weights, config) in kinds.items()
        }


class OpenMatch:
    """What OpenMatch's trainer of dense retrievers writes."""

    name = "openmatch"

    def recognises(self, folder: Folder) -> bool:
        """Say whether its configuration is there, or a layer that it writes before that."""
        own = {CONFIG, HEAD, HEAD_CONFIG, NORM, NORM_CONFIG}
        return any(name.rpartition("/")[2] in own for name in folder.files)

    def model_files(self, folder: Folder) -> Sequence[str]:
        """Return configuration, transformers, heads and tokenizer."""
        layers = _settings(folder).layers()
        further = [name for places in layers.values() for files in places for name in files]
        missing = next((name for name in further if name not in folder), None)
        if missing:
            raise CheckpointIncomplete(f"{missing} is missing, which {CONFIG} asks for.")
        return [CONFIG, *tower_files(folder), *further]

    def describe(self, folder: Folder, options: EncoderOptions) -> Description:
        """Read the configuration; flags may repeat it."""
        settings = _settings(folder)
        pooling = Fact(POOLINGS[settings.pooling], CONFIG)
        if settings.has_decoder:
            pooling = Fact("cls", f"the decoder of {settings.kinds[0]}")
        elif settings.pooling == "no":  # the feature is one vector already
            pooling = Fact("cls", f"{settings.feature} of {CONFIG}")
        layers = [weights for places in settings.layers().values() for weights, _ in places]
        return describe(
            folder,
            options,
            towers=towers_of(folder),
            pooling=pooling,
            head=Fact(", ".join(layers), CONFIG) if layers else NO_HEAD,
            normalize=Fact(settings.normalize, CONFIG),
        )

    def load(
        self, folder: Folder, options: EncoderOptions, *, device: str, precision: Precision
    ) -> LoadedCheckpoint:
        """Load the classes that the configuration names, and the layers behind them."""
        settings = _settings(folder)
        layers = settings.layers()
        heads = [_head(folder, *files, device=device) for files in layers["head"]]
        norms = [_norm(folder, *files, device=device) for files in layers["layernorm"]]
        return load_towers(
            folder,
            self.describe(folder, options),
            options,
            device=device,
            precision=precision,
            kinds=settings.kinds,
            needs_pooler=settings.feature == "pooler_output",
            read=_reader(settings),
            heads=[heads[:1], heads[-1:]],
            last=[norms[:1], norms[-1:]],
        )


def _settings(folder: Folder) -> Settings:
    """Read the configuration in the spelling of any version.

    Raises:
        CheckpointIncomplete: It is not there.
        CheckpointUnsupported: It asks for something that we do not know.
    """
    if CONFIG not in folder:
        raise CheckpointIncomplete(f"{CONFIG} is missing.")
    config = read_config(folder, CONFIG)
    backbone = config.get("plm_backbone")
    backbone = backbone if isinstance(backbone, dict) else {}
    kind = backbone.get("type") or "AutoModel"  # as the query encoder's
    settings = Settings(
        tied=bool(config.get("tied", not has_two_towers(folder))),
        kinds=(backbone.get("lm_q_type") or kind, backbone.get("lm_p_type") or kind),
        feature=str(backbone.get("feature") or FEATURES[0]),
        pooling=str(config.get("pooling") or "first"),
        linear_head=bool(config.get("linear_head")),
        layernorm=bool(config.get("layernorm")),
        normalize=bool(config.get("normalize")),
    )
    _refuse_unknown(folder, settings)
    return settings


def _refuse_unknown(folder: Folder, settings: Settings) -> None:
    if settings.tied and has_two_towers(folder):
        raise CheckpointUnsupported(
            f'{CONFIG} says "tied": true, but there are query_model and passage_model.'
        )
    if not settings.tied and not has_two_towers(folder):
        raise CheckpointIncomplete(
            f'{CONFIG} says "tied": false, but query_model and passage_model are missing.'
        )
    if any(name.startswith(DELTAS) for name in folder.files):
        raise CheckpointUnsupported(
            f"{DELTAS} has changes by OpenDelta, which are not read: save the merged model."
        )
    if "CLIP" in "".join(settings.kinds):
        raise CheckpointUnsupported(f"{CONFIG} names {settings.kinds[0]}: images are not encoded.")
    headed = next((kind for kind in settings.kinds if TASK_HEAD.search(kind)), None)
    if headed:
        raise CheckpointUnsupported(
            f"{CONFIG} names {headed}: it has a head for another task and gives no hidden states."
        )
    if settings.pooling not in POOLINGS or settings.feature not in FEATURES:
        raise CheckpointUnsupported(
            f"{CONFIG} has the pooling {settings.pooling!r} of {settings.feature!r}; known are "
            f"{', '.join(POOLINGS)} of {' and '.join(FEATURES)}."
        )
    if settings.has_decoder:
        return
    if (settings.pooling == "no") != (settings.feature == "pooler_output"):
        raise CheckpointUnsupported(
            f"{CONFIG} has the pooling {settings.pooling!r} of {settings.feature!r}: that is not "
            "one vector for a text."
        )


def _head(folder: Folder, weights: str, config_name: str, *, device: str) -> Layer:
    config = read_config(folder, config_name)
    tensors = read_tensors(folder, weights, device=device)
    weight = take(tensors, "linear.weight", weights)
    check_shape(weight, (config.get("output_dim"), config.get("input_dim")), weights, config_name)
    if config.get("bias"):
        take(tensors, "linear.bias", weights)
    return linear(weight, tensors.get("linear.bias"))


def _norm(folder: Folder, weights: str, config_name: str, *, device: str) -> Layer:
    tensors = read_tensors(folder, weights, device=device)
    weight = take(tensors, "layernorm.weight", weights)
    bias = take(tensors, "layernorm.bias", weights)
    return layer_norm(weight, bias, eps=float(read_config(folder, config_name).get("eps", 1e-5)))


def _reader(settings: Settings) -> Callable[[Any], Any]:
    """Return what makes hidden states [B, T, H] of a transformer, as pooling expects them."""
    if settings.has_decoder:
        return _DecoderStart
    return _OneVector if settings.feature == "pooler_output" else lambda backbone: backbone


class _DecoderStart:
    """Runs an encoder-decoder for one step: its hidden states are the decoder's, [B, 1, H]."""

    def __init__(self, model: Any) -> None:  # noqa: ANN401
        self._model = model

    def __call__(self, *, input_ids: "Tensor", attention_mask: "Tensor") -> Any:  # noqa: ANN401
        start = input_ids.new_zeros(len(input_ids), 1)  # the id 0, whatever the configuration says
        return self._model(
            input_ids=input_ids, attention_mask=attention_mask, decoder_input_ids=start
        )


class _OneVector:
    """Takes the output `pooler_output` [B, H] as the hidden state of one token."""

    def __init__(self, model: Any) -> None:  # noqa: ANN401
        self._model = model

    def __call__(self, *, input_ids: "Tensor", attention_mask: "Tensor") -> Any:  # noqa: ANN401
        found = self._model(input_ids=input_ids, attention_mask=attention_mask).pooler_output
        return SimpleNamespace(last_hidden_state=found[:, None])
