"""Adapters of adapter-transformers 3.1, in plain arithmetic on the transformers of today.

- LoRA: `W + alpha / r * B A` in place of a weight W;
- a parallel adapter: `LayerNorm(y + s * up(relu(down(x))) + x)` in place of
  `LayerNorm(y + x)`, where y is the dense layer's output and x what the block adds to it;
- a bottleneck adapter: the same with `up(relu(down(y)))`, and s = 1.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from asyncval.checkpoints.loading import first_line
from asyncval.core.errors import CheckpointBroken, CheckpointUnsupported

if TYPE_CHECKING:
    from torch import Tensor

MODEL_TYPES = ("bert", "roberta", "xlm-roberta")
"""Transformers whose blocks end in `dense` and `LayerNorm`, as the arithmetic wants it."""
LORA, PARALLEL, BOTTLENECK = "LoRA", "a parallel adapter", "a bottleneck adapter"
ATTENTION = {"q": "attention.self.query", "k": "attention.self.key", "v": "attention.self.value"}
UNKNOWN_TO_US = (
    "ln_before", "ln_after", "original_ln_before", "adapter_residual_before_ln", "phm_layer",
    "use_gating", "intermediate_lora", "output_lora", "inv_adapter", "cross_adapter",
)  # fmt: skip
"""Settings that would need another arithmetic where they are on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """One kind of change, and its places within a layer.

    `left_out` are layers that are not changed. `scaling` counts for adapters: what their
    output is multiplied with; for LoRA it is alpha / r.
    """

    kind: str
    places: tuple[str, ...]
    left_out: frozenset[int]
    scaling: float

    @property
    def stem(self) -> str:
        """What adapter-transformers calls its tensors."""
        return "loras" if self.kind == LORA else "adapters"


def read_members(adapter: Mapping[str, Any], *, where: str) -> list[Member]:
    """Return the changes that an `adapter_config.json` (`where`) consists of.

    Raises:
        CheckpointUnsupported: One is of a kind that we cannot compute.
    """
    config = adapter.get("config")
    if not isinstance(config, dict):
        raise CheckpointUnsupported(f'{where} has no "config".')
    parts = config.get("configs") if config.get("architecture") == "union" else [config]
    if not isinstance(parts, list) or not all(isinstance(part, dict) for part in parts):
        raise CheckpointUnsupported(f'{where} has no list of "configs".')
    return [_member(part, where) for part in parts]


def _member(config: Mapping[str, Any], where: str) -> Member:
    architecture = config.get("architecture")
    if architecture == "prefix_tuning":
        raise CheckpointUnsupported(
            f"{where} has prefix tuning: its keys and values are inside the attention of "
            "adapter-transformers, which is not rebuilt here."
        )
    if architecture not in (None, "lora"):
        raise CheckpointUnsupported(f"{where} has an adapter {architecture!r}, which is not known.")
    odd = [key for key in UNKNOWN_TO_US if config.get(key)]
    odd += [key for key in ("non_linearity",) if config.get(key, "relu") != "relu"]
    odd += [key for key in ("composition_mode",) if config.get(key, "add") != "add"]
    if odd:
        raise CheckpointUnsupported(f"{where} sets {odd[0]} to {config[odd[0]]!r}: not supported.")
    left_out = frozenset(config.get("leave_out") or ())
    try:
        if architecture == "lora":
            places = tuple(ATTENTION[each] for each in config.get("attn_matrices", ("q", "v")))
            scaling = float(config["alpha"]) / float(config["r"])
            return Member(kind=LORA, places=places, left_out=left_out, scaling=scaling)
        is_parallel = bool(config.get("is_parallel"))
        is_on = {
            "attention.output": config.get("mh_adapter", not is_parallel),
            "output": config.get("output_adapter", True),
        }
        return Member(
            kind=PARALLEL if is_parallel else BOTTLENECK,
            places=tuple(place for place, on in is_on.items() if on),
            left_out=left_out,
            scaling=float(config.get("scaling", 1.0)),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointUnsupported(f"{where} cannot be understood: {error!r}.") from error


def adapt(
    backbone: Any,  # noqa: ANN401
    members: Sequence[Member],
    tensors: Mapping[str, "Tensor"],
    *,
    name: str,
    file: str,
) -> None:
    """Change a transformer in place.

    Args:
        backbone: The transformer.
        members: What is changed.
        tensors: The adapter's, by their full names.
        name: The adapter's own name, which is part of them.
        file: Where they come from, for messages.

    Raises:
        CheckpointUnsupported: The transformer is of another kind.
        CheckpointBroken: A tensor is missing, has another shape, or belongs to nothing.
    """
    if backbone.config.model_type not in MODEL_TYPES:
        raise CheckpointUnsupported(
            f"The base model is a {backbone.config.model_type}; adapters of {file} are read on "
            f"{', '.join(MODEL_TYPES)}."
        )
    own = f"{backbone.base_model_prefix}."
    remaining = {key.removeprefix(own): value for key, value in tensors.items()}
    for number, layer in enumerate(backbone.encoder.layer):
        for member in members:
            if number not in member.left_out:
                for place in member.places:
                    prefix = f"encoder.layer.{number}.{place}.{member.stem}.{name}."
                    try:
                        CHANGES[member.kind](layer.get_submodule(place), member, remaining, prefix)
                    except KeyError as error:
                        raise CheckpointBroken(f"{file} has no tensor {error}.") from error
                    except RuntimeError as error:
                        raise CheckpointBroken(
                            f"{file} does not fit the base model at {prefix[:-1]}: "
                            f"{first_line(error)}."
                        ) from error
    if remaining:
        raise CheckpointBroken(
            f"{file} has {len(remaining)} tensors that its configuration does not speak of, for "
            f"example {min(remaining)!r}."
        )


def _add_lora(linear: Any, member: Member, tensors: dict[str, "Tensor"], prefix: str) -> None:  # noqa: ANN401
    down, up = tensors.pop(f"{prefix}lora_A"), tensors.pop(f"{prefix}lora_B")  # [r, H], [H, r]
    weight = linear.weight.data
    linear.weight.data = (weight.float() + member.scaling * (up @ down)).to(weight.dtype)


def _add_adapter(output: Any, member: Member, tensors: dict[str, "Tensor"], prefix: str) -> None:  # noqa: ANN401
    """Put an adapter before the layer norm that ends an attention or feed-forward block."""
    from torch.nn.functional import linear, relu

    keys = ("adapter_down.0.weight", "adapter_down.0.bias", "adapter_up.weight", "adapter_up.bias")
    weights = [tensors.pop(prefix + key).to(output.dense.weight.dtype) for key in keys]
    for key, tensor in zip(keys, weights, strict=True):  # which go with the model to its device
        output.register_buffer(key.replace(".", "_"), tensor, persistent=False)
    if weights[0].shape != weights[2].T.shape or weights[2].shape[0] != len(output.dense.weight):
        raise RuntimeError(f"the adapter's layers are {tuple(weights[0].shape)} and back")

    def forward(hidden_states: "Tensor", input_tensor: "Tensor") -> "Tensor":
        weights = [output.get_buffer(key.replace(".", "_")) for key in keys]
        own = output.dense(hidden_states)
        seen = input_tensor if member.kind == PARALLEL else own
        change = linear(relu(linear(seen, *weights[:2])), *weights[2:])
        return output.LayerNorm(own + member.scaling * change + input_tensor)  # type: ignore[no-any-return]

    output.forward = forward


CHANGES = {LORA: _add_lora, PARALLEL: _add_adapter, BOTTLENECK: _add_adapter}
