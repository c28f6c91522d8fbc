"""Tevatron v1: no tokenizer and no arguments in the checkpoint's own folder."""

from pathlib import Path
from typing import Any

import torch

from tests.checkpoints.recipes.made import (
    NAME,
    Made,
    bert,
    finish,
    first,
    plain_tied,
    projected,
    random_linear,
    save_old,
    save_tokenizer,
    unit,
    write_json,
)


def tied(run: Path) -> Made:
    return plain_tied(run, seed=1, arguments=False)


def untied(run: Path) -> Made:
    queries, passages = bert(1), bert(2)
    save_old(queries, run / NAME / "query_model")
    passages.save_pretrained(run / NAME / "passage_model")
    finish(run / NAME, arguments=False)
    return Made(
        folder=run / NAME,
        layout="tevatron",
        queries=first(queries),
        passages=first(passages),
        tokenizer=save_tokenizer(run),
    )


def save_pooler(folder: Path, *, seeds: tuple[int, int], **config: Any) -> list[torch.Tensor]:
    """Write both layers, which are one where both seeds are the same; return all tensors."""
    names = ("linear_q.weight", "linear_q.bias", "linear_p.weight", "linear_p.bias")
    tensors = [tensor for seed in seeds for tensor in random_linear(seed)]
    torch.save(dict(zip(names, tensors, strict=True)), folder / "pooler.pt")
    write_json(folder / "pooler_config.json", {"input_dim": 16, "output_dim": 8, **config})
    return tensors


def tied_pooler(run: Path) -> Made:
    model = bert(1)
    model.save_pretrained(run / NAME)
    weight, bias, *_ = save_pooler(run / NAME, seeds=(5, 5), tied=True, normalize=True)
    finish(run / NAME, arguments=False)
    vector = unit(projected(first(model), weight, bias))
    return Made(
        folder=run / NAME,
        layout="tevatron",
        queries=vector,
        passages=vector,
        tokenizer=save_tokenizer(run),
        dimension=8,
    )


def untied_pooler(run: Path) -> Made:
    """As of the index's 0.1.0, whose configuration has no `normalize`."""
    queries, passages = bert(1), bert(2)
    queries.save_pretrained(run / NAME / "query_model")
    save_old(passages, run / NAME / "passage_model")
    weight_q, bias_q, weight_p, bias_p = save_pooler(run / NAME, seeds=(5, 6), tied=False)
    finish(run / NAME, arguments=False)
    return Made(
        folder=run / NAME,
        layout="tevatron",
        queries=projected(first(queries), weight_q, bias_q),
        passages=projected(first(passages), weight_p, bias_p),
        tokenizer=save_tokenizer(run),
        dimension=8,
    )


def one_model_two_poolers(run: Path) -> Made:
    model = bert(1)
    model.save_pretrained(run / NAME)
    weight_q, bias_q, weight_p, bias_p = save_pooler(
        run / NAME, seeds=(5, 6), tied=False, normalize=False
    )
    finish(run / NAME, arguments=False)
    return Made(
        folder=run / NAME,
        layout="tevatron",
        queries=projected(first(model), weight_q, bias_q),
        passages=projected(first(model), weight_p, bias_p),
        tokenizer=save_tokenizer(run),
        dimension=8,
    )


RECIPES = {
    "tevatron untied": untied,
    "tevatron tied": tied,
    "tevatron tied, pooler": tied_pooler,
    "tevatron untied, pooler": untied_pooler,
    "tevatron one model, two poolers": one_model_two_poolers,
}
