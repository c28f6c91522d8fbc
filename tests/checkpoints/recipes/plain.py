"""What the libraries themselves save: Hugging Face, Sentence Transformers, PEFT."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.checkpoints.recipes.made import NAME, Made, bert, first, mean, unit
from tests.models import (
    make_tokenizer,
    save_distributed,
    save_huggingface,
    save_peft,
    save_sentence_transformers,
)


def huggingface(run: Path) -> Made:
    folder = save_huggingface(run / NAME)
    vector = first(bert(1))
    return Made(
        folder=folder, layout="huggingface", queries=vector, passages=vector, tokenizer=folder
    )


def sentence_transformers(run: Path) -> Made:
    folder = save_sentence_transformers(run / NAME)
    vector = unit(mean(bert(1)))  # without a word on it, the similarity is the cosine
    return Made(
        folder=folder,
        layout="sentence-transformers",
        queries=vector,
        passages=vector,
        tokenizer=folder,
    )


def peft(run: Path) -> Made:
    pytest.importorskip("peft", reason="peft is not installed")
    folder = run / NAME
    model = save_peft(folder, base=str(save_huggingface(run.parent / "base")))
    make_tokenizer().save_pretrained(folder)

    def vector(ids: list[int]) -> Tensor:
        with torch.no_grad():
            states: Tensor = model(input_ids=torch.tensor([ids])).last_hidden_state
            return states[0, 0]

    return Made(folder=folder, layout="peft", queries=vector, passages=vector, tokenizer=folder)


def distributed(run: Path) -> Made:
    folder = save_distributed(run / NAME, place="pytorch_model_fsdp_0", wrapper="model.")
    vector = first(bert(1))
    return Made(
        folder=folder, layout="distributed", queries=vector, passages=vector, tokenizer=folder
    )


RECIPES = {
    "distributed": distributed,
    "huggingface": huggingface,
    "sentence transformers": sentence_transformers,
    "peft": peft,
}
