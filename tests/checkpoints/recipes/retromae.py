"""RetroMAE: Tevatron's files and the arguments; pooling and length are said by flags."""

from pathlib import Path

from tests.checkpoints.recipes.made import (
    NAME,
    Made,
    bert,
    finish,
    mean,
    plain_tied,
    projected,
    save_old,
    save_tokenizer,
    unit,
)
from tests.checkpoints.recipes.tevatron import save_pooler


def tied(run: Path) -> Made:
    return plain_tied(run, seed=3, arguments=True)


def mean_pooler(run: Path) -> Made:
    model = bert(3)
    save_old(model, run / NAME)
    weight, bias, *_ = save_pooler(run / NAME, seeds=(7, 7), tied=True)
    finish(run / NAME, arguments=True)
    vector = unit(projected(mean(model), weight, bias))
    return Made(
        folder=run / NAME,
        layout="retromae",
        queries=vector,
        passages=vector,
        tokenizer=save_tokenizer(run),
        flags=("--pooling", "mean", "--normalize"),
        dimension=8,
    )


def untied_mean(run: Path) -> Made:
    queries, passages = bert(3), bert(4)
    save_old(queries, run / NAME / "query_model")
    save_old(passages, run / NAME / "passage_model")
    finish(run / NAME, arguments=True)
    return Made(
        folder=run / NAME,
        layout="retromae",
        queries=mean(queries),
        passages=mean(passages),
        tokenizer=save_tokenizer(run),
        flags=("--pooling", "mean"),
    )


RECIPES = {
    "retromae untied": untied_mean,
    "retromae tied": tied,
    "retromae tied, pooler": mean_pooler,
}
