"""How every toolkit's checkpoints are made, by name; the first of a layout stands for it.

A new layout needs a recipe here, and is covered by the contract suite and by the comparison of
embeddings.
"""

from collections.abc import Callable
from pathlib import Path

from tests.checkpoints.recipes import (
    disentangled,
    openmatch,
    plain,
    retromae,
    tevatron,
    tevatron_v2,
)
from tests.checkpoints.recipes.made import Made

RECIPES: dict[str, Callable[[Path], Made]] = {
    **plain.RECIPES,
    **tevatron.RECIPES,
    **tevatron_v2.RECIPES,
    **retromae.RECIPES,
    **openmatch.RECIPES,
    **disentangled.RECIPES,
}
"""Each writes a checkpoint into the folder of a run, which it is given."""
EXAMPLES = {
    "sentence-transformers": "sentence transformers",
    "openmatch": "openmatch untied",
    "disentangled-adapter": "disentangled adapter",
    "peft": "peft",
    "distributed": "distributed",
    "tevatron": "tevatron untied",
    "retromae": "retromae untied",
    "disentangled-retriever": "disentangled average",
    "huggingface": "huggingface",
}
"""The recipe that stands for each layout."""
