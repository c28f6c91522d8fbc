"""OpenMatch: `openmatch_config.json` beside one model or two, and the tokenizer."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import DPRConfig, DPRQuestionEncoder, T5Config, T5EncoderModel, T5Model

from tests.checkpoints.recipes.made import (
    NAME,
    Made,
    Vector,
    bert,
    finish,
    first,
    mean,
    projected,
    random_linear,
    save_old,
    save_tokenizer,
    unit,
    write_json,
)
from tests.models import make_tokenizer


def write_config(folder: Path, backbone: Mapping[str, str], **changes: Any) -> None:
    config = {
        "tied": True,
        "plm_backbone": {"feature": "last_hidden_state", **backbone},
        "pooling": "first",
        "linear_head": False,
        "normalize": False,
    }
    write_json(folder / "openmatch_config.json", config | changes)


def save_head(folder: Path, *, seed: int, bias: bool = False) -> tuple[Tensor, Tensor | None]:
    """Write a linear head; return weight and bias."""
    weight, offset = random_linear(seed)
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {"linear.weight": weight, **({"linear.bias": offset} if bias else {})}
    torch.save(tensors, folder / "linear.pt")
    said = {"input_dim": 16, "output_dim": 8, **({"bias": True} if bias else {})}
    write_json(folder / "head_config.json", said)
    return weight, offset if bias else None


def done(folder: Path, *, queries: Vector, passages: Vector | None = None, **more: Any) -> Made:
    save_tokenizer(folder)
    finish(folder, arguments=True)
    return Made(
        folder=folder,
        layout="openmatch",
        queries=queries,
        passages=passages or queries,
        tokenizer=folder,
        **more,
    )


def tied(run: Path) -> Made:
    model = bert(1)
    save_old(model, run / NAME)
    write_config(run / NAME, {"type": "BertModel"})
    return done(run / NAME, queries=first(model))


def mean_head(run: Path) -> Made:
    model = bert(1)
    model.save_pretrained(run / NAME)
    weight, _ = save_head(run / NAME, seed=4)
    write_config(
        run / NAME, {"type": "BertModel"}, pooling="mean", linear_head=True, normalize=True
    )
    return done(run / NAME, queries=unit(projected(mean(model), weight)), dimension=8)


def head_with_bias(run: Path) -> Made:
    model = bert(1)
    model.save_pretrained(run / NAME)
    weight, bias = save_head(run / NAME, seed=4, bias=True)
    write_config(run / NAME, {"type": "BertModel"}, linear_head=True)
    return done(run / NAME, queries=projected(first(model), weight, bias), dimension=8)


def t5_config() -> T5Config:
    torch.manual_seed(8)
    return T5Config(
        vocab_size=len(make_tokenizer()),
        d_model=16,
        d_kv=8,
        d_ff=32,
        num_layers=2,
        num_heads=2,
        pad_token_id=0,
        eos_token_id=1,
    )


def t5_decoder(run: Path) -> Made:
    """The configuration's pooling does not count here."""
    model = T5Model(t5_config()).eval()
    model.save_pretrained(run / NAME)
    write_config(run / NAME, {"type": "T5Model"}, pooling="mean")

    def vector(ids: list[int]) -> Tensor:
        with torch.no_grad():
            memory = model.encoder(input_ids=torch.tensor([ids])).last_hidden_state
            start = torch.zeros(1, 1, dtype=torch.long)
            states: Tensor = model.decoder(input_ids=start, encoder_hidden_states=memory)[0]
            return states[0, 0]

    return done(run / NAME, queries=vector, max_length=None)


def t5_encoder(run: Path) -> Made:
    model = T5EncoderModel(t5_config()).eval()
    save_old(model, run / NAME)
    weight, _ = save_head(run / NAME, seed=4)
    write_config(
        run / NAME, {"type": "T5EncoderModel"}, pooling="mean", linear_head=True, normalize=True
    )
    vector = unit(projected(mean(model), weight))
    return done(run / NAME, queries=vector, dimension=8, max_length=None)


def dpr(run: Path) -> Made:
    torch.manual_seed(9)
    config = DPRConfig(
        vocab_size=len(make_tokenizer()),
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=40,
        projection_dim=8,
        initializer_range=0.5,
    )
    model = DPRQuestionEncoder(config).eval()
    model.save_pretrained(run / NAME)
    write_config(
        run / NAME,
        {"type": "DPRQuestionEncoder", "feature": "pooler_output"},
        pooling="no",
    )

    def vector(ids: list[int]) -> Tensor:
        encoder = model.question_encoder
        with torch.no_grad():
            found = encoder.bert_model(input_ids=torch.tensor([ids]))
            states: Tensor = found.last_hidden_state
            projection = encoder.encode_proj
            projected: Tensor = projection.weight @ states[0, 0] + projection.bias
            return projected

    return done(run / NAME, queries=vector, dimension=8)


def untied(run: Path) -> Made:
    """As it is written: with the query encoder's `type` alone."""
    queries, passages = bert(1), bert(2)
    save_old(queries, run / NAME / "query_model")
    save_old(passages, run / NAME / "passage_model")
    write_config(run / NAME, {"type": "BertModel"}, tied=False, pooling="mean")
    return done(run / NAME, queries=mean(queries), passages=mean(passages))


def untied_heads(run: Path) -> Made:
    """As it is read: with a class for each side, heads, and a layer norm after unit length."""
    queries, passages = bert(1), bert(2)
    queries.save_pretrained(run / NAME / "query_model")
    passages.save_pretrained(run / NAME / "passage_model")
    weight_q, _ = save_head(run / NAME / "query_head", seed=4)
    weight_p, _ = save_head(run / NAME / "passage_head", seed=5)
    norms = [save_norm(run / NAME / f"{side}_layernorm") for side in ("query", "passage")]
    write_config(
        run / NAME,
        {"lm_q_type": "BertModel", "lm_p_type": "BertModel"},
        tied=False,
        linear_head=True,
        normalize=True,
        layernorm=True,
    )
    return done(
        run / NAME,
        queries=normed(unit(projected(first(queries), weight_q)), *norms[0]),
        passages=normed(unit(projected(first(passages), weight_p)), *norms[1]),
        dimension=8,
    )


def save_norm(folder: Path) -> tuple[Tensor, Tensor]:
    weight, bias = random_linear(len(folder.name), 8, 8)
    folder.mkdir(parents=True)
    torch.save({"layernorm.weight": weight[0], "layernorm.bias": bias}, folder / "layernorm.pt")
    config = {"normalized_shape": [8], "eps": 1e-3, "elementwise_affine": True}
    write_json(folder / "layernorm_config.json", config)
    return weight[0], bias


def normed(vector: Vector, weight: Tensor, bias: Tensor) -> Vector:
    def apply(ids: list[int]) -> Tensor:
        found = vector(ids)
        centred = found - found.mean()
        return centred / ((centred**2).mean() + 1e-3).sqrt() * weight + bias

    return apply


RECIPES = {
    "openmatch untied": untied,
    "openmatch tied": tied,
    "openmatch mean, head": mean_head,
    "openmatch head with bias": head_with_bias,
    "openmatch t5 decoder": t5_decoder,
    "openmatch t5 encoder": t5_encoder,
    "openmatch dpr": dpr,
    "openmatch untied, heads": untied_heads,
}
