"""Every toolkit's checkpoints give that toolkit's embeddings, through the real command."""

from typing import Any

import numpy as np
import pytest
import torch

from asyncval.checkpoints.adapters import adapt, read_members
from asyncval.checkpoints.folder import Folder
from asyncval.checkpoints.recognition import layout_of
from tests.checkpoints.evaluation import embeddings, expected
from tests.checkpoints.recipes import RECIPES
from tests.checkpoints.recipes.disentangled import PARALLEL, adapter_tensors
from tests.checkpoints.recipes.made import bert
from tests.contracts.test_checkpoint_layout import load


@pytest.mark.parametrize("name", RECIPES)
def test_embeddings_are_those_of_the_toolkits_formula(name, tmp_path):
    if "lora" in name or name == "repllama":
        pytest.importorskip("peft", reason="peft is not installed")
    made = RECIPES[name](tmp_path / "run")
    assert layout_of(Folder.listing(made.folder)).name == made.layout
    found = embeddings(made, place=tmp_path / "evaluation")
    queries, passages = expected(made)
    assert queries.shape == (5, made.dimension)
    np.testing.assert_allclose(found.queries, queries, atol=1e-5)
    np.testing.assert_allclose(found.passages, passages, atol=1e-5)


@pytest.mark.parametrize(
    "name",
    [
        "tevatron untied, pooler",
        "openmatch t5 decoder",
        "openmatch untied, heads",
        "disentangled adapter",
        "disentangled bottleneck",
    ],
)
def test_half_precision_gives_nearly_the_same_vectors(name, tmp_path):
    made = RECIPES[name](tmp_path / "run")
    loaded = load(made, made.layout, precision="bf16")
    ids = [2, 10, 11, 12, 3]
    with torch.inference_mode():
        found = loaded.encoder.encode_passages(torch.tensor([ids]), torch.ones(1, 5).long())[0]
    assert found.dtype == torch.float32
    wanted = made.passages(ids)
    assert torch.cosine_similarity(found, wanted, dim=0) > 0.999
    assert not torch.equal(found, wanted)


def test_an_adapter_goes_with_its_model_to_another_device():
    """The device without memory refuses what was left behind as any other does."""
    model: Any = bert(1)
    tensors = adapter_tensors(PARALLEL)
    adapt(model, read_members({"config": PARALLEL}, where=""), tensors, name="dense", file="")
    moved = model.to("meta")
    ids = torch.ones(1, 5, dtype=torch.long, device="meta")
    assert moved(input_ids=ids).last_hidden_state.shape == (1, 5, 16)
