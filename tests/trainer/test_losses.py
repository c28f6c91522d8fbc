import numpy as np
import pytest
import torch

from trainer.losses import contrastive_loss, kl_loss, margin_mse_loss


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


def test_an_excluded_passage_is_as_if_it_were_not_there_but_never_the_positive():
    draw = np.random.default_rng(3)
    queries, passages = draw.normal(size=(2, 8)), draw.normal(size=(4, 8))
    excluded = torch.tensor([[True, False, True, False], [False, True, False, False]])
    scores = queries @ passages.T
    expected = np.mean(
        [
            np.log(np.exp(scores[0, [0, 1, 3]]).sum()) - scores[0, 0],
            np.log(np.exp(scores[1, [0, 2, 3]]).sum()) - scores[1, 2],
        ]
    )
    loss = contrastive_loss(torch.tensor(queries), torch.tensor(passages), excluded=excluded)
    assert loss.item() == pytest.approx(expected, rel=1e-6)


def groups(num_passages, seed):
    """Return float64 queries [3, 8], passages [3 * n, 8], teacher [3, n] and own scores [3, n]."""
    draw = np.random.default_rng(seed)
    queries, passages = draw.normal(size=(3, 8)), draw.normal(size=(3 * num_passages, 8))
    own = np.array(
        [
            [queries[i] @ passages[i * num_passages + j] for j in range(num_passages)]
            for i in range(3)
        ]
    )
    return queries, passages, 3 * draw.normal(size=own.shape), own


@pytest.mark.parametrize("num_passages", [2, 4])
def test_margin_mse_is_the_mean_squared_difference_of_all_margins(num_passages):
    queries, passages, teacher, own = groups(num_passages, seed=1)
    expected = np.mean(
        [
            ((own[i, 0] - own[i, j]) / 0.7 - (teacher[i, 0] - teacher[i, j])) ** 2
            for i in range(3)
            for j in range(1, num_passages)
        ]
    )
    loss = margin_mse_loss(*map(torch.tensor, (queries, passages, teacher)), temperature=0.7)
    assert loss.item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("num_passages", [2, 4])
def test_kl_is_that_of_the_teachers_softmax_and_ours_over_each_group(num_passages):
    queries, passages, teacher, own = groups(num_passages, seed=2)

    def softmax(row):
        return np.exp(row) / np.exp(row).sum()

    expected = np.mean(
        [
            sum(p * np.log(p / q) for p, q in zip(softmax(t / 1.5), softmax(s / 0.7), strict=True))
            for t, s in zip(teacher, own, strict=True)
        ]
    )
    loss = kl_loss(
        *map(torch.tensor, (queries, passages, teacher)), temperature=0.7, teacher_temperature=1.5
    )
    assert loss.item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("objective", [margin_mse_loss, kl_loss])
def test_a_student_with_the_teachers_scores_has_nothing_to_learn(objective):
    queries, passages, _, own = map(torch.tensor, groups(3, seed=3))
    queries.requires_grad_()
    loss = objective(queries, passages, own + 5)
    loss.backward()
    assert loss.item() == pytest.approx(0, abs=1e-7)
    assert queries.grad is not None
    assert queries.grad.abs().max() < 1e-5


def test_half_precision_embeddings_are_compared_in_single_precision():
    queries, passages = torch.randn(2, 8).bfloat16(), torch.randn(2, 8).bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = contrastive_loss(queries, passages, temperature=0.01)
    assert loss.dtype == torch.float32
    assert loss.item() == contrastive_loss(queries.float(), passages, temperature=0.01).item()


def test_retromaes_sum_is_ours_divided_by_the_number_of_passages():
    """It takes the mean over all elements of the KL, and adds w times the contrastive loss."""
    weight, temperature, n = 0.01, 0.5, 3
    queries, passages, teacher, own = groups(n, seed=4)

    def log_softmax(rows):
        return rows - np.log(np.exp(rows).sum(axis=1, keepdims=True))

    student, wanted = log_softmax(own / temperature), log_softmax(teacher)
    kl = np.mean(np.exp(wanted) * (wanted - student))
    everything = log_softmax(queries @ passages.T / temperature)
    contrastive = -np.mean([everything[i, i * n] for i in range(3)])
    q, p, t = map(torch.tensor, (queries, passages, teacher))
    ours = kl_loss(q, p, t, temperature=temperature)
    ours = ours + n * weight * contrastive_loss(q, p, temperature=temperature)
    assert ours.item() / n == pytest.approx(kl + weight * contrastive, rel=1e-5)


def test_disentangled_retrievers_loss_is_ours_with_its_inverse_temperature_and_mask():
    """Its columns are all positives, then all negatives; what is relevant gets -10000."""
    inverse, n = 2.5, 3
    queries, passages, _, _ = groups(n, seed=5)
    positives = passages[::n]
    negatives = np.concatenate([passages[i * n + 1 : (i + 1) * n] for i in range(3)])
    scores = inverse * queries @ np.concatenate([positives, negatives]).T
    scores[0, 1] = -10000  # the positive of query 1 is relevant to query 0, too,
    scores[2, 3] = -10000  # and the first negative of query 0 to query 2
    expected = np.mean([np.log(np.exp(row).sum()) - row[i] for i, row in enumerate(scores)])
    excluded = torch.zeros(3, 3 * n, dtype=torch.bool)
    excluded[0, n] = excluded[2, 1] = True
    loss = contrastive_loss(
        torch.tensor(queries), torch.tensor(passages), temperature=1 / inverse, excluded=excluded
    )
    assert loss.item() == pytest.approx(expected, rel=1e-6)
