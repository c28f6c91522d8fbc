"""Folders that the library itself saved, against the library itself, from text to vector."""

import json

import numpy as np
import pytest

from asyncval.api import TextEncoder
from asyncval.config import EncodingConfig
from tests.models import make_sentences, make_tokenizer, save_huggingface

library = pytest.importorskip(
    "sentence_transformers", reason="sentence-transformers is not installed"
)
modules = pytest.importorskip("sentence_transformers.sentence_transformer.modules")
pytestmark = pytest.mark.filterwarnings("ignore")  # of a foreign library
TEXTS = [*make_sentences(6), "Ocean RIVER", "a"]


@pytest.fixture
def transformer(tmp_path):
    return modules.Transformer(str(save_huggingface(tmp_path / "bert")))


def assert_equal(folder, tmp_path, **options):
    """Encode queries and passages with both; ours reads them from a file, as in a validation."""
    theirs = library.SentenceTransformer(str(folder), device="cpu")
    texts = tmp_path / "texts.jsonl"
    texts.write_text(
        "".join(json.dumps({"_id": str(n), "text": t}) + "\n" for n, t in enumerate(TEXTS))
    )
    config = EncodingConfig(cache_dir=tmp_path / "cache", q_max_len=99, p_max_len=99, **options)
    ours = TextEncoder(folder, config, device="cpu")
    unit = theirs.similarity_fn_name == "cosine"
    for is_query, encode in ((True, theirs.encode_query), (False, theirs.encode_document)):
        found = ours.encode(ours.tokenize([texts], is_query=is_query), is_query=is_query)
        expected = encode(TEXTS, normalize_embeddings=unit)
        np.testing.assert_allclose(found, expected, atol=1e-5)


def save(tmp_path, *parts, similarity="dot", **settings):
    model = library.SentenceTransformer(
        modules=list(parts), device="cpu", similarity_fn_name=similarity, **settings
    )
    model.save(str(tmp_path / "checkpoint-1"))
    return tmp_path / "checkpoint-1"


PROMPTS = {"query": "query: ", "document": "music "}
MODES = ("cls", "max", "mean", "mean_sqrt_len_tokens", "weightedmean", "lasttoken")


@pytest.mark.parametrize("mode", [*MODES, ("lasttoken", "max", "mean")])
@pytest.mark.parametrize("include_prompt", [True, False])
def test_every_pooling(transformer, tmp_path, mode, include_prompt):
    pooling = modules.Pooling(16, mode, include_prompt=include_prompt)
    assert_equal(save(tmp_path, transformer, pooling, prompts=PROMPTS), tmp_path)


@pytest.mark.parametrize("similarity", ["dot", "cosine"])
def test_the_modules_that_follow(transformer, tmp_path, similarity):
    dense = modules.Dense(16, 16, module_input_name="token_embeddings", use_residual=True)
    parts = [
        transformer, dense, modules.Pooling(16), modules.Dense(16, 8, use_residual=True),
        modules.LayerNorm(8), modules.Dropout(0.5), modules.Normalize(),
    ]  # fmt: skip
    assert_equal(save(tmp_path, *parts, similarity=similarity), tmp_path)


@pytest.mark.parametrize(
    "prompts", [{}, PROMPTS, {"query": "q: ", "passage": "p: "}, {"x": "music "}]
)
@pytest.mark.parametrize("default", [None, "x"])
def test_prompts(transformer, tmp_path, prompts, default):
    prompts = prompts | ({"x": "stone "} if default else {})
    settings = {"prompts": prompts, "default_prompt_name": default}
    assert_equal(save(tmp_path, transformer, modules.Pooling(16), **settings), tmp_path)


def test_the_length_and_the_case(tmp_path):
    folder = save_huggingface(tmp_path / "bert")
    short = modules.Transformer(str(folder), max_seq_length=5)
    path = save(tmp_path, short, modules.Pooling(16))
    assert_equal(path, tmp_path)
    settings = path / "sentence_bert_config.json"
    settings.write_text(json.dumps({"max_seq_length": 7, "do_lower_case": True}))
    assert_equal(path, tmp_path)


def test_lengths_of_queries_and_documents(tmp_path):
    folder = save_huggingface(tmp_path / "bert")
    transformer = modules.Transformer(str(folder), query_length=4, document_length=6)
    assert_equal(save(tmp_path, transformer, modules.Pooling(16)), tmp_path)


def test_a_static_embedding(tmp_path):
    static = modules.StaticEmbedding(make_tokenizer(), embedding_dim=12)
    assert_equal(save(tmp_path, static, prompts=PROMPTS), tmp_path)
    assert_equal(save(tmp_path, static, modules.Normalize()), tmp_path)


def test_two_different_towers(transformer, tmp_path):
    router = modules.Router.for_query_document(
        [modules.StaticEmbedding(make_tokenizer(), embedding_dim=8)],
        [transformer, modules.Pooling(16), modules.Dense(16, 8)],
    )
    assert_equal(save(tmp_path, router, prompts=PROMPTS), tmp_path)


def test_routes_behind_a_common_transformer(transformer, tmp_path):
    routes = {"query": [modules.Dense(16, 8)], "text": [modules.Dense(16, 8)]}
    router = modules.Router(routes, route_mappings={("document", None): "text"})
    assert_equal(save(tmp_path, transformer, modules.Pooling(16), router), tmp_path)


def test_layers_that_are_mixed(tmp_path):
    folder = save_huggingface(tmp_path / "bert")
    transformer = modules.Transformer(str(folder), config_kwargs={"output_hidden_states": True})
    mixture = modules.WeightedLayerPooling(16, num_hidden_layers=2, layer_start=1)
    assert_equal(save(tmp_path, transformer, mixture, modules.Pooling(16)), tmp_path)


def test_an_adapter(tmp_path):
    peft = pytest.importorskip("peft", reason="peft is not installed")
    folder = save_huggingface(tmp_path / "base")
    model = library.SentenceTransformer(
        modules=[modules.Transformer(str(folder)), modules.Pooling(16)], device="cpu"
    )
    config = peft.LoraConfig(r=2, target_modules=["query", "value"], init_lora_weights=False)
    model.add_adapter(config)
    model.save(str(tmp_path / "checkpoint-1"))
    assert (tmp_path / "checkpoint-1" / "adapter_config.json").is_file()
    assert_equal(tmp_path / "checkpoint-1", tmp_path)


def test_checkpoints_of_its_own_trainer(tmp_path):
    pytest.importorskip("datasets", reason="datasets is not installed")
    from tests.reliability.sentence_transformers_training import train

    train(str(tmp_path / "training"), steps=3, seconds=0, kept=3)
    folders = sorted((tmp_path / "training").glob("checkpoint-*"))
    assert [folder.name for folder in folders] == [f"checkpoint-{step}" for step in (1, 2, 3)]
    for folder in folders:
        assert_equal(folder, tmp_path)
