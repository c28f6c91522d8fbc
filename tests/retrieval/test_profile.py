import numpy as np
import pytest
import torch
from transformers import BertModel

from asyncval.retrieval.encode import Encoding, encode_portions
from asyncval.retrieval.profile import Speedometer, Work, cost_of, matmul_rate
from tests.models import bert_config
from tests.retrieval.stores import make_store


def forward(ids, mask):
    config = bert_config()
    torch.manual_seed(1)
    model = BertModel(config, add_pooling_layer=False).eval()
    return model(input_ids=ids, attention_mask=mask).last_hidden_state[:, 0]


def by_hand(lengths):
    config = bert_config()
    hidden, layers = config.hidden_size, config.num_hidden_layers
    linear = 2 * layers * (4 * hidden * hidden + 2 * hidden * config.intermediate_size)
    attention = 4 * layers * hidden
    return linear * sum(lengths), attention * sum(length**2 for length in lengths)


@pytest.mark.parametrize("lengths", [[7], [3, 11, 30]])
def test_operations_are_those_of_the_matrix_products_of_real_tokens(lengths):
    linear, attention = by_hand(lengths)
    cost = cost_of(forward, device="cpu")
    assert cost.linear * sum(lengths) == pytest.approx(linear, rel=1e-6)
    assert cost.quadratic * sum(n**2 for n in lengths) == pytest.approx(attention, rel=1e-6)


def test_a_portion_counts_its_tokens_and_what_padding_made_of_them():
    lengths = [3, 11, 30]
    work = Work()
    for portion in encode_portions(
        make_store(lengths),
        lambda ids, mask: torch.ones(len(ids), 2),
        encoding=Encoding(device="cpu"),
    ):
        work.add(portion)
    assert (work.tokens, work.squares, work.padded) == (44, 9 + 121 + 900, 90)


def test_speed_is_by_the_second_and_against_the_best_rate():
    meter = Speedometer("cpu", sum(by_hand([10, 10])))
    work = meter.work("passages", forward)
    work.tokens, work.squares, work.padded = 20, 200, 25
    speed = meter.speed(4.0)
    assert speed["tokens_per_second"] == 5.0
    assert speed["padding"] == pytest.approx(0.25)
    assert speed["of_floor"] == pytest.approx(0.25, rel=1e-3)
    assert Speedometer("cpu", 0.0).speed(0.0) == dict.fromkeys(speed, 0.0)


class TickingClock:
    """A clock on which every look takes a second."""

    def __init__(self):
        self._now = 0.0

    def now(self):
        return self._now

    def monotonic(self):
        self._now += 1.0
        return self._now


def test_the_best_rate_is_that_of_all_workers_together(monkeypatch):
    encoding = Encoding(device="cpu", precision="bf16")
    rate = matmul_rate(encoding, TickingClock())
    assert rate == encoding.num_workers * 2 * 2048 * 768 * 3072
    assert np.isfinite(rate)
