import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from asyncval.checkpoints.completeness import examine
from asyncval.checkpoints.folder import Folder
from asyncval.core.errors import CheckpointBroken, CheckpointIncomplete, CheckpointUnsupported
from tests.checkpoints.hostile import Touch
from tests.checkpoints.test_loading import encode, load, plain_vectors, unit
from tests.models import HIDDEN, NEW_MEAN, OLD_MEAN, make_tokenizer, save_sentence_transformers


@pytest.fixture
def save(tmp_path):
    """Return a function that writes a folder of Sentence Transformers."""

    def save(*kinds, **options):
        kinds = ("Transformer", "Pooling", *kinds)
        options.setdefault("model_config", {"similarity_fn_name": "dot"})
        return save_sentence_transformers(tmp_path / "checkpoint-1", kinds=kinds, **options)

    return save


OLD_CLS = OLD_MEAN | {"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}
OLD_NONE = OLD_MEAN | {"pooling_mode_mean_tokens": False}
OLD_LAST = OLD_NONE | {"pooling_mode_lasttoken": True}


@pytest.mark.parametrize(
    ("config", "pooling"),
    [
        (OLD_CLS, "cls"),
        (OLD_MEAN, "mean"),
        (OLD_MEAN | {"include_prompt": True}, "mean"),
        (OLD_LAST, "last"),
        (OLD_NONE | {"pooling_mode_max_tokens": True}, "max"),
        (OLD_NONE | {"pooling_mode_mean_sqrt_len_tokens": True}, "mean_sqrt_len"),
        (OLD_NONE | {"pooling_mode_weightedmean_tokens": True}, "weightedmean"),
        (NEW_MEAN | {"pooling_mode": "max"}, "max"),
        (NEW_MEAN | {"pooling_mode": "mean_sqrt_len_tokens"}, "mean_sqrt_len"),
        (NEW_MEAN | {"pooling_mode": "weightedmean"}, "weightedmean"),
        (NEW_MEAN, "mean"),
        (NEW_MEAN | {"pooling_mode": "cls"}, "cls"),
        (NEW_MEAN | {"pooling_mode": "lasttoken"}, "last"),
        (NEW_MEAN | {"pooling_mode": ["mean"]}, "mean"),
    ],
)
def test_the_pooling_of_old_and_new_versions_is_read(save, config, pooling):
    folder = save(pooling=config)
    loaded = load(folder)
    np.testing.assert_allclose(encode(loaded), plain_vectors(folder, pooling), atol=1e-5)
    assert loaded.assumed == ()


@pytest.mark.parametrize(
    ("config", "poolings"),
    [
        (OLD_CLS | {"pooling_mode_max_tokens": True}, ["cls", "max"]),
        (
            {"pooling_mode_mean_tokens": True, "pooling_mode_max_tokens": True},
            ["max", "mean"],  # the order of the library, not of the file
        ),
        (NEW_MEAN | {"pooling_mode": ["lasttoken", "mean", "cls"]}, ["last", "mean", "cls"]),
    ],
)
def test_the_vectors_of_several_poolings_are_put_side_by_side(save, config, poolings):
    folder = save(pooling=config)
    expected = np.hstack([plain_vectors(folder, pooling) for pooling in poolings])
    np.testing.assert_allclose(encode(load(folder)), expected, atol=1e-5)
    with pytest.raises(CheckpointUnsupported, match=r"--pooling says 'cls'"):
        load(folder, pooling="cls")


@pytest.mark.parametrize(
    "config",
    [
        OLD_MEAN | {"pooling_mode_mean_tokens": False},
        NEW_MEAN | {"pooling_mode": "median"},
        NEW_MEAN | {"pooling_mode": ["cls", "median"]},
    ],
)
def test_a_pooling_that_is_not_known_is_refused_and_never_replaced(save, config):
    with pytest.raises(CheckpointUnsupported, match=r"1_Pooling/config\.json"):
        load(save(pooling=config))


def dense(vectors, folder, activation):
    tensors = load_file(folder / "model.safetensors")
    weight, bias = (tensors[f"linear.{name}"].double().numpy() for name in ("weight", "bias"))
    return activation(vectors @ weight.T + bias)


def test_dense_and_normalisation_follow_the_pooling(save):
    folder = save("Dense", "Normalize")
    expected = unit(dense(plain_vectors(folder, "mean"), folder / "2_Dense", np.tanh))
    np.testing.assert_allclose(encode(load(folder)), expected, atol=1e-5)
    np.testing.assert_allclose(encode(load(folder), side="queries"), expected, atol=1e-5)


def test_modules_are_applied_in_their_order(save):
    folder = save("Normalize", "Dense")
    expected = dense(unit(plain_vectors(folder, "mean")), folder / "3_Dense", np.tanh)
    np.testing.assert_allclose(encode(load(folder)), expected, atol=1e-5)


def change_json(path, **values):
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def test_a_dense_layer_may_have_another_activation_of_torch_and_lie_in_a_file_of_torch(save):
    folder = save("Dense")
    change_json(
        folder / "2_Dense/config.json", activation_function="torch.nn.modules.linear.Identity"
    )
    expected = dense(plain_vectors(folder, "mean"), folder / "2_Dense", lambda x: x)
    weights = folder / "2_Dense" / "model.safetensors"
    torch.save(load_file(weights), weights.with_name("pytorch_model.bin"))
    weights.unlink()
    examine(Folder.listing(folder), step=None)
    np.testing.assert_allclose(encode(load(folder)), expected, atol=1e-5)


def test_a_dense_layer_may_have_no_bias(save):
    folder = save("Dense")
    path = folder / "2_Dense" / "model.safetensors"
    save_file({"linear.weight": load_file(path)["linear.weight"].clone()}, path)
    change_json(folder / "2_Dense/config.json", bias=False)
    assert encode(load(folder)).shape == (4, 8)


@pytest.mark.parametrize("name", ["os.system", "torch.nn.no_such", "mine.Activation"])
def test_an_activation_that_is_not_torchs_is_refused(save, name):
    folder = save("Dense")
    change_json(folder / "2_Dense/config.json", activation_function=name)
    with pytest.raises(CheckpointUnsupported, match=name):
        load(folder)


def test_a_dense_layer_that_reads_what_nobody_makes_is_refused(save):
    folder = save("Dense")
    change_json(folder / "2_Dense/config.json", module_input_name="image_embeddings")
    with pytest.raises(CheckpointUnsupported, match="2_Dense/ reads 'image_embeddings'"):
        encode(load(folder))


@pytest.mark.parametrize("damage", ["tensor missing", "other shape"])
def test_a_dense_layer_without_its_weights_is_broken(save, damage):
    folder = save("Dense")
    tensors = {"linear.weight": torch.zeros(8, HIDDEN), "linear.bias": torch.zeros(8)}
    if damage == "tensor missing":
        del tensors["linear.bias"]
    else:
        tensors["linear.weight"] = torch.zeros(3, HIDDEN)
    save_file(tensors, folder / "2_Dense" / "model.safetensors")
    with pytest.raises(CheckpointBroken, match="2_Dense/model"):
        load(folder)


def test_a_pickle_in_a_dense_layer_executes_nothing(save, tmp_path):
    folder = save("Dense")
    (folder / "2_Dense" / "model.safetensors").unlink()
    canary = tmp_path / "canary"
    torch.save({"linear.weight": Touch(canary)}, folder / "2_Dense" / "pytorch_model.bin")
    with pytest.raises(CheckpointBroken):
        load(folder)
    assert not canary.exists()


def test_the_weights_of_a_dense_layer_do_not_change_with_their_file(save):
    folder = save("Dense")
    loaded = load(folder)
    before = encode(loaded)
    path = folder / "2_Dense" / "model.safetensors"
    with path.open("r+b") as file:
        header = 8 + int.from_bytes(file.read(8), "little")
        file.seek(header)
        file.write(bytes(path.stat().st_size - header))
    np.testing.assert_array_equal(encode(loaded), before)


@pytest.mark.parametrize(("name", "is_unit"), [("cosine", True), ("dot", False), (None, True)])
def test_the_cosine_is_the_inner_product_of_unit_vectors(save, name, is_unit):
    folder = save(model_config={"similarity_fn_name": name})
    expected = plain_vectors(folder, "mean")
    np.testing.assert_allclose(
        encode(load(folder)), unit(expected) if is_unit else expected, atol=1e-5
    )


@pytest.mark.parametrize("config", [None, {"similarity_fn_name": None}])
def test_where_no_similarity_is_recorded_it_is_the_librarys_and_that_is_told(tmp_path, config):
    folder = save_sentence_transformers(tmp_path / "checkpoint-1", model_config=config)
    [assumed] = load(folder).assumed
    assert assumed.startswith("--similarity cos")
    said = load(folder, similarity="ip")
    assert said.assumed == ()
    np.testing.assert_allclose(encode(said), plain_vectors(folder, "mean"), atol=1e-5)


def test_of_unit_vectors_any_similarity_is_the_same_and_nothing_is_told(save):
    assert load(save("Normalize", model_config={"similarity_fn_name": None})).assumed == ()


def test_a_similarity_that_cannot_be_searched_is_refused(save):
    with pytest.raises(CheckpointUnsupported, match="'euclidean'"):
        load(save(model_config={"similarity_fn_name": "euclidean"}))


PROMPTS = {"query": "query: ", "document": "passage: "}


@pytest.mark.parametrize("name", ["document", "passage", "corpus"])
def test_the_prompts_for_queries_and_passages_are_taken(save, name):
    loaded = load(save(model_config={"prompts": {"query": "query: ", name: "text: "}}))
    assert (loaded.queries.prefix, loaded.passages.prefix) == ("query: ", "text: ")


@pytest.mark.parametrize(
    "prompts", [{}, {"query": "", "document": ""}, {"query": None, "document": None}, None]
)
def test_without_prompts_nothing_is_put_before_a_text(save, prompts):
    loaded = load(save(model_config={"prompts": prompts, "default_prompt_name": None}))
    assert (loaded.queries.prefix, loaded.passages.prefix) == ("", "")


def test_flags_may_repeat_what_the_checkpoint_says(save):
    folder = save("Normalize", model_config={"similarity_fn_name": "cosine", "prompts": PROMPTS})
    said = {"pooling": "mean", "normalize": True, "similarity": "cos", "query_prefix": "query: "}
    np.testing.assert_array_equal(encode(load(folder, **said)), encode(load(folder)))


@pytest.mark.parametrize(
    ("flag", "said", "recorded"),
    [
        ("pooling", "cls", "mean"),
        ("similarity", "ip", "cos"),
        ("query_prefix", "q: ", "query: "),
        ("query_prefix", "", "query: "),
        ("passage_prefix", "p: ", "passage: "),
    ],
)
def test_a_flag_that_contradicts_the_checkpoint_is_refused_with_both(save, flag, said, recorded):
    folder = save(model_config={"similarity_fn_name": "cosine", "prompts": PROMPTS})
    with pytest.raises(CheckpointUnsupported) as caught:
        load(folder, **{flag: said})
    assert f"--{flag} says {said!r}" in str(caught.value)
    assert f".json says {recorded!r}" in str(caught.value)


def test_flags_say_what_the_checkpoint_leaves_open(save):
    folder = save()
    loaded = load(folder, normalize=True, query_prefix="q: ")
    np.testing.assert_allclose(encode(loaded), unit(plain_vectors(folder, "mean")), atol=1e-5)
    assert loaded.queries.prefix == "q: "


@pytest.mark.parametrize(
    ("values", "length"),
    [(None, 40), ({"max_seq_length": 24}, 24), ({"max_seq_length": 512}, 40), ({}, 40)],
)
def test_the_length_is_limited_by_the_folder_and_by_the_model(save, values, length):
    assert load(save(bert_values=values)).passages.max_length == length


def test_the_length_of_version_6_is_that_of_its_tokenizer(save):
    """It writes no `max_seq_length`: setting it sets the tokenizer's `model_max_length`."""
    folder = save(pooling=NEW_MEAN, bert_values={"transformer_task": "feature-extraction"})
    tokenizer = make_tokenizer()
    tokenizer.model_max_length = 24
    tokenizer.save_pretrained(folder)
    assert load(folder).queries.max_length == 24


def test_lower_case_is_read(save):
    assert load(save(bert_values={"do_lower_case": True})).queries.lower_case


def test_the_transformer_may_have_a_folder_of_its_own(save):
    folder = save(transformer="0_Transformer", bert_values={"max_seq_length": 24})
    files = examine(Folder.listing(folder), step=None).model_files
    assert "0_Transformer/model.safetensors" in files
    loaded = load(folder)
    expected = plain_vectors(folder / "0_Transformer", "mean")
    np.testing.assert_allclose(encode(loaded), expected, atol=1e-5)
    assert loaded.passages.max_length == 24
    assert loaded.passages.tokenizer_folder == folder / "0_Transformer"


def test_modules_in_an_order_that_is_not_known_are_refused(save):
    folder = save()
    modules = json.loads((folder / "modules.json").read_text())
    (folder / "modules.json").write_text(json.dumps(modules[::-1]))
    with pytest.raises(CheckpointUnsupported, match="Pooling, Transformer"):
        load(folder)


@pytest.mark.parametrize("content", ["{}", "[3]", '[{"path": ""}]', "[[]]"])
def test_a_list_of_modules_that_is_none_is_broken_or_refused(save, content):
    folder = save()
    (folder / "modules.json").write_text(content)
    with pytest.raises((CheckpointBroken, CheckpointUnsupported)):
        load(folder)


def test_without_the_list_of_modules_a_folder_is_incomplete_and_not_taken_for_a_plain_one(save):
    folder = save("Dense", model_config={"prompts": {}})
    (folder / "modules.json").unlink()
    with pytest.raises(CheckpointIncomplete, match=r"modules\.json"):
        examine(Folder.listing(folder), step=None)
