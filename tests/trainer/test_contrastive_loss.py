import numpy as np
import pytest
import torch

from trainer.losses import contrastive_loss


@pytest.mark.parametrize("num_passages", [1, 3])
def test_the_loss_is_the_cross_entropy_over_all_passages_of_the_batch(num_passages):
    draw = np.random.default_rng(0)
    queries = draw.normal(size=(4, 8))
    passages = draw.normal(size=(4 * num_passages, 8))
    scores = queries @ passages.T / 0.7
    positives = scores[np.arange(4), np.arange(4) * num_passages]
    expected = np.mean(np.log(np.exp(scores).sum(axis=1)) - positives)

    loss = contrastive_loss(torch.tensor(queries), torch.tensor(passages), temperature=0.7)

    assert loss.item() == pytest.approx(expected, rel=1e-6)


def test_every_passage_that_is_not_the_positive_pushes_the_query_away():
    queries = torch.ones(2, 4, requires_grad=True)
    passages = torch.eye(4, requires_grad=True)
    contrastive_loss(queries, passages).backward()
    assert passages.grad is not None
    # [4, 4] gradients along the queries: positives are pulled, negatives pushed.
    pulls = passages.grad.sum(dim=1)
    assert (pulls[[0, 2]] < 0).all()
    assert (pulls[[1, 3]] > 0).all()


def test_half_precision_embeddings_are_compared_in_single_precision():
    queries, passages = torch.randn(2, 8).bfloat16(), torch.randn(2, 8).bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = contrastive_loss(queries, passages, temperature=0.01)
    assert loss.dtype == torch.float32
    assert loss.item() == contrastive_loss(queries.float(), passages, temperature=0.01).item()
