"""Small files of tensors, and the layers that toolkits put behind the pooling."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING

from asyncval.checkpoints.folder import Folder
from asyncval.core.errors import CheckpointBroken

if TYPE_CHECKING:
    from torch import Tensor

Layer = Callable[["Tensor"], "Tensor"]


def read_tensors(folder: Folder, name: str, *, device: str = "cpu") -> dict[str, "Tensor"]:
    """Return the tensors of a file of `torch.save`, in float32; nothing in it is executed.

    Raises:
        CheckpointBroken: It cannot be read, or holds anything but tensors by name.
    """
    import torch

    try:
        content = torch.load(folder.path / name, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever a damaged or malicious file makes torch raise
        reason = "it is damaged, or holds more than tensors."
        raise CheckpointBroken(f"{name} cannot be read: {reason}") from error
    if not isinstance(content, Mapping) or not all(
        isinstance(value, torch.Tensor) for value in content.values()
    ):
        raise CheckpointBroken(f"{name} cannot be read: it is no set of tensors by name.")
    return {str(key): value.to(device, torch.float32) for key, value in content.items()}


def take(tensors: Mapping[str, "Tensor"], key: str, name: str) -> "Tensor":
    """Return one tensor of the file `name`.

    Raises:
        CheckpointBroken: It is not there, so it would be random.
    """
    if key not in tensors:
        raise CheckpointBroken(f"{name} has no tensor {key!r}, only {', '.join(sorted(tensors))}.")
    return tensors[key]


def linear(weight: "Tensor", bias: "Tensor | None" = None) -> Layer:
    """Return the layer [B, in] to [B, out] of a weight [out, in]."""
    from torch.nn.functional import linear as apply

    return partial(apply, weight=weight, bias=bias)


def check_shape(weight: "Tensor", wanted: tuple[object, object], name: str, config: str) -> None:
    """Compare a weight [out, in] with what a configuration says of both.

    Raises:
        CheckpointBroken: They differ.
    """
    if tuple(weight.shape) != wanted:
        raise CheckpointBroken(
            f"{name} has a layer of the shape {tuple(weight.shape)} where {config} says {wanted}."
        )


def layer_norm(weight: "Tensor", bias: "Tensor | None", *, eps: float) -> Layer:
    """Return the normalisation of [B, D] by mean and variance over D."""
    from torch.nn.functional import layer_norm as apply

    return partial(apply, normalized_shape=tuple(weight.shape), weight=weight, bias=bias, eps=eps)
