import pytest
import torch
from transformers import BertConfig, BertModel

from trainer.model import Tower, pool

# [B=2, T=3, D=2]
HIDDEN = torch.tensor([[[1.0, 2], [3, 4], [5, 6]], [[7.0, 8], [9, 10], [11, 12]]])
PADDED_RIGHT = torch.tensor([[1, 1, 1], [1, 1, 0]])
PADDED_LEFT = torch.tensor([[1, 1, 1], [0, 1, 1]])


@pytest.mark.parametrize(
    ("pooling", "mask", "expected"),
    [
        ("cls", PADDED_RIGHT, [[1, 2], [7, 8]]),
        ("mean", PADDED_RIGHT, [[3, 4], [8, 9]]),
        ("mean", PADDED_LEFT, [[3, 4], [10, 11]]),
        ("last", PADDED_RIGHT, [[5, 6], [9, 10]]),
        ("last", PADDED_LEFT, [[5, 6], [11, 12]]),
    ],
)
def test_pooling_uses_tokens_and_never_padding(pooling, mask, expected):
    assert pool(HIDDEN, mask, pooling).tolist() == expected


def test_a_normalising_encoder_gives_vectors_of_length_one_whatever_the_padding():
    config = BertConfig(
        vocab_size=10,
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
    )
    encoder = Tower(BertModel(config), pooling="mean", normalize=True).eval()
    tokens = {"input_ids": torch.tensor([[2, 5, 3]]), "attention_mask": torch.ones(1, 3).long()}
    padded = {name: torch.nn.functional.pad(value, (0, 4)) for name, value in tokens.items()}
    with torch.no_grad():
        embedding, same = encoder.embed(tokens), encoder.embed(padded)
    assert embedding.norm().item() == pytest.approx(1, abs=1e-6)
    torch.testing.assert_close(embedding, same)
