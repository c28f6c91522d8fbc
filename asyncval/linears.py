"""Linear layers on a CPU by oneDNN, whose weights lie as it wants them.

PyTorch gives fp32 products to MKL, which keeps AVX-512 idle on processors of other makers than its
own, and turns bfloat16 weights over for oneDNN in each call. On an AMD EPYC with AVX-512 a packed
layer takes less than half the time in fp32. Where this build of PyTorch cannot do that, or another
result comes out, layers stay as they are.
"""

from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

ACTIVATION = "intermediate_act_fn"
"""What BERT and its kin call the function after the layer `dense`."""
ROWS = 2048
"""For how many rows the layout of packed weights is chosen."""
TOLERANCE = {"torch.float32": 1e-5, "torch.bfloat16": 1e-1}


def pack_linears(model: "nn.Module") -> None:
    """Replace all plain linear layers of a model on the CPU, in evaluation mode, by packed ones.

    Those of BERT and its kin that a GELU follows have it built in.
    """
    from torch import nn

    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if type(child) is not nn.Linear or not can_pack(child.weight.dtype):
                continue
            if name == "dense" and _is_gelu(getattr(parent, ACTIVATION, None)):
                setattr(parent, name, _packed_linear()(child, activation="gelu"))
                setattr(parent, ACTIVATION, nn.Identity())
            else:
                setattr(parent, name, _packed_linear()(child))


def _is_gelu(activation: Any) -> bool:  # noqa: ANN401
    """Say whether this is the GELU by the error function, and not one of those that are near it."""
    import torch

    return getattr(activation, "act", None) is torch.nn.functional.gelu


def linear(weight: "Tensor") -> Any:  # noqa: ANN401
    """Return the fastest function that multiplies rows [..., K] on the CPU by a weight [N, K]."""
    import torch

    if not can_pack(weight.dtype):
        return lambda rows: torch.nn.functional.linear(rows, weight)
    packed = _pack(weight)
    return lambda rows: _product(rows, packed, None)


@cache
def can_pack(dtype: "torch.dtype") -> bool:
    """Say whether layers of this type can be packed here, and give what they should."""
    import torch

    if str(dtype) not in TOLERANCE:
        return False
    generator = torch.Generator().manual_seed(1)
    rows, weight, bias = (
        torch.randn(shape, generator=generator).to(dtype) for shape in ((2, 3, 64), (48, 64), (48,))
    )
    expected = torch.nn.functional.linear(rows, weight, bias)
    try:
        with torch.inference_mode():
            found = _product(rows, _pack(weight), bias)
    except (AttributeError, RuntimeError):  # another build, or a CPU without such instructions
        return False
    difference = (found.float() - expected.float()).abs().max()
    return bool(difference <= TOLERANCE[str(dtype)] * expected.float().abs().max())


@cache
def _packed_linear() -> Any:  # noqa: ANN401
    """Return the class of a packed layer; it is made late, as torch is imported late."""
    from torch import nn

    class PackedLinear(nn.Module):
        """A linear layer whose weight lies as oneDNN wants it, [N, K]."""

        def __init__(self, layer: nn.Linear, *, activation: str = "none") -> None:
            super().__init__()
            self.activation = activation
            self.in_features, self.out_features = layer.in_features, layer.out_features
            self.bias = layer.bias
            self._weight = _pack(layer.weight)
            self._plain: Tensor | None = None

        @property
        def weight(self) -> "Tensor":
            """The plain weight, for models that look at it beside the layer."""
            if self._plain is None:
                self._plain = self._weight.to_dense()
            return self._plain

        def forward(self, rows: "Tensor") -> "Tensor":
            """Return [..., N] of rows [..., K]."""
            return _product(rows, self._weight, self.bias, self.activation)

    return PackedLinear


def _pack(weight: "Tensor") -> "Tensor":
    import torch

    packed: Tensor = torch.ops.mkldnn._reorder_linear_weight(weight.detach(), ROWS)
    return packed


def _product(
    rows: "Tensor", packed: "Tensor", bias: "Tensor | None", activation: str = "none"
) -> "Tensor":
    import torch

    kind = "none" if activation == "gelu" else ""  # of a GELU: not by tanh
    found: Tensor = torch.ops.mkldnn._linear_pointwise(rows, packed, bias, activation, [], kind)
    return found
