"""Every toolkit's checkpoints give that toolkit's embeddings, through the real command."""

import numpy as np
import pytest

from asyncval.checkpoints.folder import Folder
from asyncval.checkpoints.recognition import layout_of
from tests.checkpoints.evaluation import embeddings, expected
from tests.checkpoints.recipes import RECIPES


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
