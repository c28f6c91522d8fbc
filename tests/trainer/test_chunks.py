import pytest
import torch
from transformers import BertConfig, BertModel

from trainer.losses import contrastive_loss
from trainer.model import BiEncoder, Tower


def encoder(*, chunk_size=0, dropout=0.0):
    torch.manual_seed(3)
    config = BertConfig(
        vocab_size=30,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        hidden_dropout_prob=dropout,
        attention_probs_dropout_prob=dropout,
        initializer_range=0.3,
    )
    tower = Tower(BertModel(config), pooling="mean", projection_dim=8, chunk_size=chunk_size)
    return BiEncoder(tower)


def tokens(num_texts, length):
    draw = torch.Generator().manual_seed(num_texts)
    lengths = torch.randint(2, length + 1, (num_texts, 1), generator=draw)
    return {
        "input_ids": torch.randint(30, (num_texts, length), generator=draw),
        "attention_mask": (torch.arange(length) < lengths).long(),
    }


def gradients(model, *, seed=0, scale=1):
    torch.manual_seed(seed)
    loss = contrastive_loss(
        *model(tokens(5 * scale, 6 * scale), tokens(15 * scale, 9 * scale)), temperature=3
    )
    loss.backward()
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


def assert_equal_gradients(left, right):
    assert left.keys() == right.keys()
    assert max(gradient.abs().max() for gradient in left.values()) > 1e-2
    for name, gradient in left.items():
        torch.testing.assert_close(gradient, right[name], atol=1e-6, rtol=1e-6, msg=name)


@pytest.mark.parametrize("chunk_size", [1, 2, 5, 100])
def test_chunks_have_the_gradient_of_the_whole_batch(chunk_size):
    plain = gradients(encoder().train())
    assert_equal_gradients(plain, gradients(encoder(chunk_size=chunk_size).train()))


def test_a_chunk_is_embedded_again_with_the_same_dropout(monkeypatch):
    # One encoder keeps the activations of its chunks, the other draws and computes them again.
    again = gradients(encoder(chunk_size=4, dropout=0.4).train())
    other_draw = gradients(encoder(chunk_size=4, dropout=0.4).train(), seed=1)
    monkeypatch.setattr(
        "trainer.model.checkpoint", lambda function, chunk, use_reentrant: function(chunk)
    )
    kept = gradients(encoder(chunk_size=4, dropout=0.4).train())
    assert_equal_gradients(kept, again)
    name = "towers.both.projection.weight"
    assert not torch.allclose(again[name], other_draw[name], atol=1e-3)


def test_the_activations_of_one_chunk_at_a_time_are_kept():
    def peak(model):
        """Return the most bytes that were allocated at a time for the gradient."""
        with torch.profiler.profile(
            activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True
        ) as profile:
            gradients(model, scale=4)
        now = most = 0
        for event in profile.profiler.kineto_results.events():
            if event.name() == "[memory]":
                now += event.nbytes()
                most = max(most, now)
        return most

    assert peak(encoder(chunk_size=4).train()) < peak(encoder().train()) / 5


@pytest.mark.parametrize("chunk_size", [0, 4])
def test_texts_of_like_length_are_embedded_together_and_come_back_in_order(monkeypatch, chunk_size):
    monkeypatch.setattr("trainer.model.CPU_CHUNK_SIZE", 100)
    texts = tokens(40, 9)
    whole = encoder().train()
    expected = whole(texts, texts)[0]
    monkeypatch.setattr("trainer.model.CPU_CHUNK_SIZE", 7)
    model = encoder(chunk_size=chunk_size).train()
    shapes = []
    model.query_tower.transformer.register_forward_pre_hook(
        lambda _, args, inputs: shapes.append(tuple(inputs["input_ids"].shape)), with_kwargs=True
    )
    torch.testing.assert_close(model.query_tower(texts), expected, atol=1e-5, rtol=1e-5)
    assert max(rows for rows, _ in shapes) == (chunk_size or 7)
    assert sum(rows * width for rows, width in shapes) < 0.8 * 40 * 9
