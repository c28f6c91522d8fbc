from typing import Any

import pytest
import torch
from torch import nn
from transformers import BertModel

from asyncval import linears
from asyncval.linears import can_pack, pack_linears
from tests.models import bert_config

needs_packing = pytest.mark.skipif(
    not can_pack(torch.float32), reason="this build of PyTorch cannot pack linear layers"
)


@pytest.fixture
def fresh_answers():
    """Asks anew whether layers can be packed, before and after a test."""
    can_pack.cache_clear()
    yield
    can_pack.cache_clear()


def kinds(model):
    return {type(each).__name__ for each in model.modules()}


@needs_packing
def test_a_packed_model_gives_what_a_plain_one_gives():
    torch.manual_seed(3)
    model = BertModel(bert_config()).eval()
    ids = torch.randint(5, 20, (7, 11))
    with torch.inference_mode():
        plain = model(input_ids=ids).last_hidden_state
        pack_linears(model)
        packed = model(input_ids=ids).last_hidden_state
    assert "PackedLinear" in kinds(model)
    assert "GELUActivation" not in kinds(model)  # it is built in
    torch.testing.assert_close(packed, plain, atol=2e-6, rtol=1e-5)


@needs_packing
@pytest.mark.parametrize("bias", [True, False])
def test_the_plain_weight_can_still_be_looked_at(bias):
    layer = nn.Linear(48, 33, bias=bias)
    model = nn.Sequential(layer)
    pack_linears(model)
    packed: Any = model[0]
    assert packed is not layer
    assert torch.equal(packed.weight, layer.weight)
    assert (packed.in_features, packed.out_features) == (48, 33)
    rows = torch.randn(2, 5, 48)
    expected = layer(rows)
    torch.testing.assert_close(model(rows), expected, atol=1e-6, rtol=1e-5)


@needs_packing
def test_only_the_gelu_of_the_error_function_is_built_in():
    class Intermediate(nn.Module):
        def __init__(self, activation):
            super().__init__()
            self.dense = nn.Linear(16, 16)
            self.intermediate_act_fn = activation

    model = Intermediate(nn.GELU(approximate="tanh"))
    pack_linears(model)
    assert isinstance(model.intermediate_act_fn, nn.GELU)


def test_layers_of_other_kinds_and_types_are_left_alone():
    class Own(nn.Linear):
        pass

    model = nn.Sequential(Own(4, 4), nn.Linear(4, 4, dtype=torch.float64))
    pack_linears(model)
    assert kinds(model) == {"Sequential", "Own", "Linear"}


@pytest.mark.parametrize("trouble", ["wrong", "missing", "refused"])
def test_where_it_does_not_work_layers_stay_as_they_are(monkeypatch, fresh_answers, trouble):
    def product(rows, *_):
        if trouble == "missing":
            raise AttributeError("no such operator")
        if trouble == "refused":
            raise RuntimeError("no such instructions")
        return torch.zeros(*rows.shape[:-1], 48)

    monkeypatch.setattr(linears, "_product", product)
    model = nn.Sequential(nn.Linear(4, 4))
    pack_linears(model)
    assert kinds(model) == {"Sequential", "Linear"}
    weight = torch.randn(3, 4)
    rows = torch.randn(2, 4)
    torch.testing.assert_close(linears.linear(weight)(rows), rows @ weight.T)
