"""Training objectives: pure functions of tensors."""

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy


def contrastive_loss(queries: Tensor, passages: Tensor, *, temperature: float = 1.0) -> Tensor:
    """Tell each query's positive from all other passages of the batch, in float32.

    Args:
        queries: [B, D].
        passages: [B * n, D]: the n passages of a query stand together, its positive first. For
            every query, all passages but its positive are negatives.
        temperature: scores are divided by it.

    Returns:
        The mean cross-entropy over the queries, a scalar.
    """
    n = len(passages) // len(queries)
    # Half precision would round away the differences that the softmax is about.
    with torch.autocast(queries.device.type, enabled=False):
        scores = queries.float() @ passages.float().T / temperature  # [B, B * n]
        positives = torch.arange(len(queries), device=scores.device) * n  # [B]
        return cross_entropy(scores, positives)
