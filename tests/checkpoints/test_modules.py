"""Each module against its formula, in plain arithmetic on hidden states made without padding."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModel

from asyncval.checkpoints.completeness import examine
from asyncval.checkpoints.folder import Folder
from asyncval.checkpoints.modules import FILES, LOADERS
from asyncval.core.errors import CheckpointBroken, CheckpointIncomplete, CheckpointUnsupported
from tests.checkpoints.hostile import Touch
from tests.checkpoints.st_folders import (
    write_dense,
    write_module,
    write_modules,
    write_pooling,
    write_router,
    write_static,
    write_transformer,
)
from tests.checkpoints.test_loading import (
    LENGTHS,
    encode,
    hidden_states,
    load,
    make_batch,
    plain_vectors,
    unit,
)
from tests.models import HIDDEN

SIDES = ("queries", "passages")
FIRST = (("Transformer", ""), ("Pooling", "1_Pooling"))


@pytest.fixture
def folder(tmp_path):
    """A transformer and its mean; what follows it is the test's."""
    folder = write_transformer(tmp_path / "checkpoint-1")
    write_pooling(folder / "1_Pooling")
    return folder


def assert_vectors(folder, queries, passages=None):
    """Compare both sides; the files must be those that the folder is whole with."""
    examine(Folder.listing(folder), step=None)
    loaded = load(folder)
    expectations = (queries, queries if passages is None else passages)
    for side, expected in zip(SIDES, expectations, strict=True):
        np.testing.assert_allclose(encode(loaded, side=side), expected, atol=1e-5)


def affine(vectors, tensors, name="linear"):
    bias = tensors.get(f"{name}.bias", torch.zeros(()))
    return vectors @ tensors[f"{name}.weight"].double().numpy().T + bias.double().numpy()


def test_every_kind_of_module_is_told_its_files_and_its_loading():
    assert FILES.keys() == LOADERS.keys() | {"Transformer"}


@pytest.mark.parametrize("num_out", [HIDDEN, 8])
def test_a_dense_layer_may_add_what_it_was_given(folder, num_out):
    write_modules(folder, *FIRST, ("Dense", "2_Dense"))
    tensors = write_dense(folder / "2_Dense", num_out=num_out, use_residual=True)
    given = plain_vectors(folder, "mean")
    kept = given if num_out == HIDDEN else affine(given, tensors, "residual")
    assert_vectors(folder, np.tanh(affine(given, tensors)) + kept)


def test_a_dense_layer_may_stand_before_the_pooling(folder):
    write_modules(folder, FIRST[0], ("Dense", "1_Dense"), ("Pooling", "2_Pooling"))
    tensors = write_dense(folder / "1_Dense", num_out=8, module_input_name="token_embeddings")
    write_pooling(folder / "2_Pooling", "max")
    expected = [np.tanh(affine(each, tensors)).max(axis=0) for each in hidden_states(folder)]
    assert_vectors(folder, np.stack(expected))


def test_a_dense_layer_may_write_to_another_place(folder):
    """Its output is not the vector then, which stays what it was."""
    write_modules(folder, *FIRST, ("Dense", "2_Dense"))
    write_dense(folder / "2_Dense", module_output_name="elsewhere")
    assert_vectors(folder, plain_vectors(folder, "mean"))


def test_layer_norm_follows_its_formula(folder):
    write_modules(folder, *FIRST, ("LayerNorm", "2_LayerNorm"))
    weight, bias = torch.randn(2, HIDDEN, generator=torch.Generator().manual_seed(3))
    tensors = {"norm.weight": weight.clone(), "norm.bias": bias.clone()}
    write_module(folder / "2_LayerNorm", {"dimension": HIDDEN}, tensors)
    given = plain_vectors(folder, "mean")
    centred = given - given.mean(axis=1, keepdims=True)
    scaled = centred / np.sqrt(given.var(axis=1, keepdims=True) + 1e-5)
    assert_vectors(folder, scaled * weight.double().numpy() + bias.double().numpy())


def test_tokens_may_be_brought_to_unit_length_before_the_pooling(folder):
    write_modules(folder, FIRST[0], ("Normalize", "1_Normalize"), ("Pooling", "2_Pooling"))
    write_module(folder / "1_Normalize", {"module_input_name": "token_embeddings"})
    write_pooling(folder / "2_Pooling")
    assert_vectors(folder, np.stack([unit(each).mean(axis=0) for each in hidden_states(folder)]))


def test_dropout_does_nothing_in_an_evaluation(folder):
    write_modules(folder, *FIRST, ("Dropout", "2_Dropout"))
    write_module(folder / "2_Dropout", {"dropout": 0.9})
    assert_vectors(folder, plain_vectors(folder, "mean"))


def test_layers_are_mixed_by_their_weights(folder):
    modules = (
        FIRST[0],
        ("WeightedLayerPooling", "1_WeightedLayerPooling"),
        ("Pooling", "2_Pooling"),
    )
    write_modules(folder, *modules)
    write_pooling(folder / "2_Pooling")
    config = {"embedding_dimension": HIDDEN, "layer_start": 1, "num_hidden_layers": 2}
    tensors = {"layer_weights": torch.tensor([0.5, 2.0])}
    write_module(folder / "1_WeightedLayerPooling", config, tensors)
    with pytest.raises(CheckpointUnsupported, match="output_hidden_states"):
        encode(load(folder))
    content = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(content | {"output_hidden_states": True}))
    model = AutoModel.from_pretrained(folder).eval()
    expected = []
    for ids, mask in zip(*make_batch(), strict=True):
        with torch.no_grad():
            layers = model(input_ids=ids[None, : mask.sum()]).hidden_states
        _, one, two = (layer[0].double().numpy() for layer in layers)
        expected.append((0.5 * one + 2.0 * two).mean(axis=0) / 2.5)
    assert_vectors(folder, np.stack(expected))


def means(table):
    ids, mask = make_batch()
    return np.stack(
        [
            table[row[:n]].double().mean(dim=0).numpy()
            for row, n in zip(ids, mask.sum(1), strict=True)
        ]
    )


def test_a_static_embedding_is_the_mean_of_its_tokens_vectors(tmp_path):
    folder = write_modules(tmp_path / "checkpoint-1", ("StaticEmbedding", ""))
    assert_vectors(folder, means(write_static(folder)))
    loaded = load(folder)
    assert loaded.queries.tokenizer_folder == folder
    assert (loaded.queries.max_length, loaded.queries.special_tokens) == (None, False)


def test_a_text_without_tokens_gets_a_vector_of_zeros_from_a_static_embedding(tmp_path):
    folder = write_modules(tmp_path / "checkpoint-1", ("StaticEmbedding", ""))
    write_static(folder)
    ids = torch.zeros(1, 1, dtype=torch.int64)
    vectors = load(folder).encoder.encode_queries(ids, torch.zeros_like(ids))
    np.testing.assert_array_equal(vectors.numpy(), np.zeros((1, HIDDEN)))


def test_a_static_embedding_of_model2vec_shares_and_weighs_its_rows(tmp_path):
    folder = write_modules(tmp_path / "checkpoint-1", ("StaticEmbedding", ""))
    number = len(write_static(folder))
    table = torch.randn(9, HIDDEN, generator=torch.Generator().manual_seed(1))
    mapping, weights = torch.arange(number) % 9, torch.linspace(0.1, 3, number)
    tensors = {"embeddings": table, "mapping": mapping, "weights": weights}
    save_file(tensors, folder / "model.safetensors")
    assert_vectors(folder, means(table[mapping] * weights[:, None]))


def test_a_router_sends_queries_and_passages_to_towers_of_their_own(tmp_path):
    folder = write_modules(tmp_path / "checkpoint-1", ("Router", ""), prompts={"query": "q: "})
    routes = {
        "query": ["query_0_StaticEmbedding"],
        "document": ["document_0_Transformer", "document_1_Pooling"],
    }
    write_router(folder, routes)
    table = write_static(folder / "query_0_StaticEmbedding")
    write_transformer(folder / "document_0_Transformer")
    write_pooling(folder / "document_1_Pooling", "cls")
    assert_vectors(folder, means(table), plain_vectors(folder / "document_0_Transformer", "cls"))
    queries, passages = (getattr(load(folder), side) for side in SIDES)
    assert queries.tokenizer_folder == folder / "query_0_StaticEmbedding"
    assert (queries.max_length, queries.special_tokens, queries.prefix) == (None, False, "q: ")
    assert passages.tokenizer_folder == folder / "document_0_Transformer"
    assert (passages.max_length, passages.special_tokens, passages.prefix) == (40, True, "")


@pytest.mark.parametrize(
    ("routes", "more", "old"),
    [
        ({"query": "a", "document": "b"}, {}, False),
        ({"query": "a", "doc": "b"}, {}, True),
        ({"query": "a", "passage": "b"}, {}, True),
        (
            {"x": "a", "y": "b"},
            {"route_mappings": {"('query', 'text')": "x", "(None, None)": "y"}},
            False,
        ),
        (
            {"text": "b", "small": "a"},
            {"route_mappings": {"('query', None)": "small", "broken": "text"}},
            False,
        ),
    ],
)
def test_a_router_behind_the_pooling_finds_each_sides_layer(folder, routes, more, old):
    place = "2_Asym" if old else "2_Router"
    write_modules(folder, *FIRST, (place[2:], place))
    write_router(
        folder / place, {n: [f"{each}_Dense"] for n, each in routes.items()}, old=old, **more
    )
    layers = [
        write_dense(folder / place / f"{each}_Dense", seed=seed) for seed, each in enumerate("ab")
    ]
    given = plain_vectors(folder, "mean")
    assert_vectors(folder, *(np.tanh(affine(given, each)) for each in layers))


def test_a_router_may_send_one_side_straight_on(folder):
    write_modules(folder, *FIRST, ("Router", "2_Router"))
    write_router(folder / "2_Router", {"query": ["query_0_Dense"], "document": []})
    tensors = write_dense(folder / "2_Router" / "query_0_Dense")
    given = plain_vectors(folder, "mean")
    assert_vectors(folder, np.tanh(affine(given, tensors)), given)


def test_both_routes_may_share_modules_which_are_loaded_once(tmp_path):
    folder = write_modules(tmp_path / "checkpoint-1", ("Router", ""))
    shared = ["query_0_Transformer", "query_1_Pooling"]
    write_router(folder, {"query": shared, "document": [*shared, "document_2_Dense"]})
    write_transformer(folder / shared[0])
    write_pooling(folder / shared[1])
    tensors = write_dense(folder / "document_2_Dense")
    given = plain_vectors(folder / shared[0], "mean")
    assert_vectors(folder, given, np.tanh(affine(given, tensors)))
    towers = load(folder).encoder
    assert towers.queries.modules[0] is towers.passages.modules[0]


def test_a_router_without_a_route_for_passages_is_refused(folder):
    write_modules(folder, *FIRST, ("Router", "2_Router"))
    write_router(folder / "2_Router", {"query": [], "image": []})
    with pytest.raises(CheckpointUnsupported, match="routes query, image, but none for a document"):
        examine(Folder.listing(folder), step=None)


def test_routes_that_wait_for_their_files_are_incomplete(tmp_path):
    folder = write_modules(tmp_path / "checkpoint-1", ("Router", ""))
    with pytest.raises(CheckpointIncomplete, match=r"router_config\.json is missing"):
        examine(Folder.listing(folder), step=None)
    write_router(folder, {"query": ["query_0_StaticEmbedding"], "document": ["b_StaticEmbedding"]})
    write_static(folder / "query_0_StaticEmbedding")
    with pytest.raises(CheckpointIncomplete, match="b_StaticEmbedding/"):
        examine(Folder.listing(folder), step=None)


@pytest.mark.parametrize(
    "parameters", [{"structure": 3}, {"structure": {"query": ["nobody"]}}, None]
)
def test_a_router_that_describes_no_routes_is_broken(folder, parameters):
    write_modules(folder, *FIRST, ("Router", "2_Router"))
    write_router(folder / "2_Router", {"query": [], "document": []})
    path = folder / "2_Router" / "router_config.json"
    path.write_text(json.dumps(parameters and json.loads(path.read_text()) | parameters))
    with pytest.raises(CheckpointBroken, match=r"2_Router/router_config\.json"):
        examine(Folder.listing(folder), step=None)


@pytest.mark.parametrize("path", ["../1_Pooling", "a/../../b"])
def test_a_module_outside_of_the_checkpoint_is_not_followed(folder, path):
    write_modules(folder, FIRST[0], ("Pooling", path))
    with pytest.raises(CheckpointBroken, match="leads out of the checkpoint"):
        examine(Folder.listing(folder), step=None)


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("BoW", "works on words"),
        ("CNN", "works on words"),
        ("LSTM", "works on words"),
        ("WordWeights", "works on words"),
        ("WordEmbeddings", "works on words"),
        ("SpladePooling", "no dense retrieval"),
        ("MultiVectorMask", "ColBERT"),
        ("CLIPModel", "images"),
        ("Surprise", "'Surprise', which is not known"),
    ],
)
def test_a_module_that_is_not_read_is_refused_by_name_with_the_reason(folder, kind, reason):
    write_modules(folder, *FIRST, (kind, f"2_{kind}"))
    write_module(folder / f"2_{kind}", {})
    with pytest.raises(CheckpointUnsupported, match=kind) as caught:
        examine(Folder.listing(folder), step=None)
    assert reason in str(caught.value)


def test_a_module_of_somebody_elses_is_not_taken_for_one_of_the_librarys(folder):
    write_modules(folder, *FIRST)
    text = (folder / "modules.json").read_text()
    start = "sentence_transformers.base.modules.transformer"
    (folder / "modules.json").write_text(text.replace(start, "custom_st"))
    with pytest.raises(CheckpointUnsupported, match=r"'custom_st\.Transformer'.*is not run"):
        examine(Folder.listing(folder), step=None)


@pytest.mark.parametrize("kind", ["SparseEncoder", "CrossEncoder", "MultiVectorEncoder"])
def test_a_model_of_another_kind_is_refused_by_name(folder, kind):
    write_modules(folder, *FIRST, model_type=kind)
    with pytest.raises(CheckpointUnsupported, match=f"says {kind}: "):
        examine(Folder.listing(folder), step=None)


@pytest.mark.parametrize(
    "settings",
    [
        {"transformer_task": "fill-mask"},
        {"module_output_name": "sentence_embedding"},
        {"modality_config": {"image": {"method": "forward"}}},
        {"modality_config": {"text": {}, "message": {"format": "flat"}}},
        {"modality_config": {"text": {"method": "get_text_features"}}},
        {"modality_config": {"text": {"method_output_name": "pooler_output"}}},
        {"processing_kwargs": {"text": {"add_special_tokens": False}}},
        {"query_expansion": {"length": 32}},
    ],
)
def test_a_transformer_that_does_more_than_the_plain_thing_is_refused(folder, settings):
    write_modules(folder, *FIRST)
    (folder / "sentence_bert_config.json").write_text(json.dumps(settings))
    with pytest.raises(CheckpointUnsupported, match=next(iter(settings))):
        load(folder)


def test_settings_may_be_named_after_the_kind_of_transformer_as_once(folder):
    write_modules(folder, *FIRST)
    settings = {"max_seq_length": 9, "do_lower_case": True}
    (folder / "sentence_distilbert_config.json").write_text(json.dumps(settings))
    files = examine(Folder.listing(folder), step=None).model_files
    assert "sentence_distilbert_config.json" in files
    queries = load(folder).queries
    assert (queries.max_length, queries.lower_case) == (9, True)


def test_queries_and_passages_may_have_lengths_of_their_own(folder):
    write_modules(folder, *FIRST)
    lengths = {"query_length": 8, "document_length": 24}
    (folder / "sentence_bert_config.json").write_text(json.dumps(lengths))
    loaded = load(folder)
    assert (loaded.queries.max_length, loaded.passages.max_length) == (8, 24)


def test_a_prompt_may_be_left_out_of_the_pooling(folder):
    write_modules(folder, *FIRST, prompts={"query": "ocean river: ", "document": ""})
    write_pooling(folder / "1_Pooling", include_prompt=False)
    loaded = load(folder)
    assert loaded.encoder.queries.prompt_length == 4  # [CLS] ocean river :
    long = [number for number, length in enumerate(LENGTHS) if length > 4]
    expected = np.stack([hidden_states(folder)[number][4:].mean(axis=0) for number in long])
    np.testing.assert_allclose(encode(loaded, side="queries")[long], expected, atol=1e-5)
    np.testing.assert_allclose(encode(loaded), plain_vectors(folder, "mean"), atol=1e-5)


def test_a_prompt_that_cannot_be_counted_for_want_of_a_tokenizer_is_an_error(folder):
    write_modules(folder, *FIRST, prompts={"query": "ocean: "})
    write_pooling(folder / "1_Pooling", include_prompt=False)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).unlink()
    with pytest.raises(CheckpointUnsupported, match="--tokenizer_name_or_path"):
        load(folder)


PROMPTED = [
    ({"query": "q: ", "document": "", "passage": "p: "}, None, ("q: ", ""), 1),
    ({"query": "q: ", "document": "d: ", "passage": "p: "}, None, ("q: ", "d: "), 0),
    ({"query": "q: ", "document": ""}, "query", ("q: ", ""), 0),
    ({"query": "", "document": "", "x": "x: "}, "x", ("", ""), 0),
    ({"query": "q: ", "passage": "p: "}, None, ("q: ", "p: "), 0),  # before version 5
    ({"x": "x: "}, "x", ("x: ", "x: "), 0),
]


@pytest.mark.parametrize(("prompts", "default", "prefixes", "num_remarks"), PROMPTED)
def test_an_empty_prompt_is_one_and_keeps_the_default_away(
    folder, prompts, default, prefixes, num_remarks
):
    write_modules(folder, *FIRST, prompts=prompts, default_prompt_name=default)
    loaded = load(folder)
    assert (loaded.queries.prefix, loaded.passages.prefix) == prefixes
    assert len(loaded.assumed) == num_remarks


LAYERS = {
    "Dense": ({"in_features": HIDDEN, "out_features": 8}, ["linear.weight", "linear.bias"]),
    "LayerNorm": ({"dimension": HIDDEN}, ["norm.weight", "norm.bias"]),
    "WeightedLayerPooling": ({"layer_start": 1, "num_hidden_layers": 2}, ["layer_weights"]),
}
SHAPES = {
    "linear.weight": (8, HIDDEN),
    "linear.bias": (8,),
    "norm.weight": (HIDDEN,),
    "norm.bias": (HIDDEN,),
    "layer_weights": (2,),
}


@pytest.fixture(params=LAYERS)
def layer(request, folder):
    """A folder with one module more, the module's name, and the tensors that it needs."""
    config, names = LAYERS[request.param]
    write_modules(folder, *FIRST, (request.param, "2_More"))
    write_module(folder / "2_More", config, {name: torch.ones(SHAPES[name]) for name in names})
    load(folder)
    return folder, names


def test_a_missing_tensor_of_any_module_is_an_error(layer):
    folder, names = layer
    path = folder / "2_More" / "model.safetensors"
    whole = load_file(path)
    for lacking in names:
        kept = {name: tensor.clone() for name, tensor in whole.items() if name != lacking}
        save_file(kept or {"other": torch.ones(1)}, path)
        with pytest.raises(CheckpointBroken, match=r"2_More/model\.safetensors"):
            load(folder)


def test_a_pickle_in_any_module_executes_nothing(layer, tmp_path):
    folder, names = layer
    canary = tmp_path / "canary"
    path = folder / "2_More" / "pytorch_model.bin"
    torch.save({names[0]: Touch(canary)}, path)
    torch.load(path, weights_only=False)
    canary.unlink()  # it is armed
    (folder / "2_More" / "model.safetensors").unlink()
    examine(Folder.listing(folder), step=None)
    with pytest.raises(CheckpointBroken, match="holds more than tensors"):
        load(folder)
    assert not canary.exists()


@pytest.mark.parametrize("content", [[torch.ones(2)], {"linear.weight": 3}, torch.ones(2)])
def test_a_file_of_torch_without_named_tensors_is_broken(layer, content):
    folder, _ = layer
    torch.save(content, folder / "2_More" / "pytorch_model.bin")
    (folder / "2_More" / "model.safetensors").unlink()
    with pytest.raises(CheckpointBroken, match="2_More"):
        load(folder)


def test_a_static_embedding_without_its_table_is_broken(tmp_path):
    folder = write_modules(tmp_path / "checkpoint-1", ("StaticEmbedding", ""))
    write_static(folder)
    save_file({"other": torch.ones(2)}, folder / "model.safetensors")
    with pytest.raises(CheckpointBroken, match=r"embedding\.weight"):
        load(folder)
