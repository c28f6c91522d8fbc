"""Training objectives: pure functions of tensors, computed in float32.

Everywhere, `queries` is [B, D] and `passages` [B * n, D]: the n passages of a query stand
together, its positive first; `teacher` is [B, n], a teacher's scores in the same order.
"""

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, kl_div, mse_loss


def contrastive_loss(
    queries: Tensor,
    passages: Tensor,
    *,
    temperature: float = 1.0,
    excluded: Tensor | None = None,
) -> Tensor:
    """Tell each query's positive from all other passages of the batch.

    Softmax over in-batch and hard negatives, as in DPR (Karpukhin et al., 2020) and Tevatron.

    Args:
        queries: [B, D].
        passages: [B * n, D]. For every query, all passages but its positive are negatives.
        temperature: scores are divided by it.
        excluded: [B, B * n], true where a passage is no negative of a query, for instance as it
            is known to be relevant. A query's own positive always counts.

    Returns:
        The mean cross-entropy over the queries, a scalar.
    """
    n = len(passages) // len(queries)
    # Half precision would round away the differences that the softmax is about.
    with torch.autocast(queries.device.type, enabled=False):
        scores = queries.float() @ passages.float().T / temperature  # [B, B * n]
        positives = torch.arange(len(queries), device=scores.device) * n  # [B]
        if excluded is not None:
            excluded = excluded.scatter(1, positives.unsqueeze(1), False)
            scores = scores.masked_fill(excluded, float("-inf"))
        return cross_entropy(scores, positives)


def margin_mse_loss(
    queries: Tensor, passages: Tensor, teacher: Tensor, *, temperature: float = 1.0
) -> Tensor:
    """Make the margins between a query's positive and its negatives those of the teacher.

    Margin-MSE (Hofstätter et al., 2020), as in Disentangled-Retriever and OpenMatch.

    Args:
        queries: [B, D].
        passages: [B * n, D], n at least 2.
        teacher: [B, n].
        temperature: the student's scores are divided by it.

    Returns:
        The mean squared difference over all B * (n - 1) margins, a scalar.
    """
    student = group_scores(queries, passages) / temperature  # [B, n]
    teacher = teacher.float()
    return mse_loss(student[:, :1] - student[:, 1:], teacher[:, :1] - teacher[:, 1:])


def kl_loss(
    queries: Tensor,
    passages: Tensor,
    teacher: Tensor,
    *,
    temperature: float = 1.0,
    teacher_temperature: float = 1.0,
) -> Tensor:
    """Make the distribution over a query's own passages that of the teacher.

    As in RetroMAE's fine-tuning (Xiao et al., 2022), which divides by n too, and in Tevatron,
    where both temperatures are one.

    Args:
        queries: [B, D].
        passages: [B * n, D], n at least 2.
        teacher: [B, n].
        temperature: the student's scores are divided by it.
        teacher_temperature: the teacher's scores are divided by it.

    Returns:
        The mean over the queries of KL(teacher || student), a scalar.
    """
    student = (group_scores(queries, passages) / temperature).log_softmax(dim=1)  # [B, n]
    wanted = (teacher.float() / teacher_temperature).log_softmax(dim=1)  # [B, n]
    return kl_div(student, wanted, reduction="batchmean", log_target=True)


def group_scores(queries: Tensor, passages: Tensor) -> Tensor:
    """Return [B, n] float32 inner products of each query with its own passages."""
    with torch.autocast(queries.device.type, enabled=False):
        groups = passages.float().view(len(queries), -1, passages.shape[1])  # [B, n, D]
        return torch.einsum("bd,bnd->bn", queries.float(), groups)
