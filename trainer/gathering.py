"""Negatives across processes: every process sees the embeddings of all.

Each process computes the same loss over the joint batch and sends its gradient back into its own
rows only. Data-parallel training then averages over the W processes where the joint gradient is
the sum, so each gradient is multiplied by W here; the loss itself needs no correction.
"""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, local: Tensor) -> Tensor:  # noqa: ANN401
        parts = [torch.empty_like(local) for _ in range(dist.get_world_size())]
        dist.all_gather(parts, local)
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:  # noqa: ANN401
        (gradient,) = gradients  # [W * N, ...]
        return gradient.chunk(dist.get_world_size())[dist.get_rank()] * dist.get_world_size()


def gather(local: Tensor) -> Tensor:
    """Return the rows of all processes in the order of their ranks.

    Args:
        local: [N, ...], of the same shape in every process; may need a gradient.

    Returns:
        [W * N, ...]; `local` itself if there is one process.
    """
    if not dist.is_initialized() or dist.get_world_size() == 1:
        return local
    gathered: Tensor = _Gather.apply(local.contiguous())  # type: ignore[no-untyped-call]
    return gathered
