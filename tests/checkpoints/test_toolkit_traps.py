"""Where a toolkit's checkpoint is easily read wrongly, or is not whole."""

import json
import shutil

import numpy as np
import pytest
import torch

from asyncval.checkpoints import retromae as retromae_layout
from asyncval.checkpoints.completeness import examine
from asyncval.checkpoints.folder import Folder
from asyncval.checkpoints.recognition import layout_of, load_checkpoint
from asyncval.core.errors import (
    CheckpointBroken,
    CheckpointError,
    CheckpointIncomplete,
    CheckpointUnsupported,
    InvalidOption,
)
from asyncval.core.types import Checkpoint, EncoderOptions, State
from tests.checkpoints.evaluation import embeddings, evaluate, expected
from tests.checkpoints.recipes import (
    RECIPES,
    disentangled,
    openmatch,
    retromae,
    tevatron,
    tevatron_v2,
)
from tests.checkpoints.recipes.made import bert, finish, save_old, save_tokenizer, write_json

MAM = {
    "architecture": "union",
    "configs": [{"architecture": "prefix_tuning"}, disentangled.PARALLEL],
}
IDS = torch.tensor([[2, 10, 11, 3], [2, 12, 3, 0]])
MASK = torch.tensor([[1, 1, 1, 1], [1, 1, 1, 0]])


def load(folder, layout="", pin=None, **options):
    checkpoint = Checkpoint(path=folder, step=100, layout=layout, pin=pin)
    return load_checkpoint(checkpoint, EncoderOptions(**options), device="cpu", precision="fp32")


def vectors(folder, *, side="queries", **options):
    loaded = load(folder, **options)
    with torch.inference_mode():
        return getattr(loaded.encoder, f"encode_{side}")(IDS, MASK).numpy()


def change_json(path, **changes):
    write_json(path, json.loads(path.read_text()) | changes)


# Tevatron and RetroMAE


def test_swapped_towers_swap_the_vectors(tmp_path):
    folder = tevatron.untied(tmp_path / "run").folder
    queries, passages = vectors(folder), vectors(folder, side="passages")
    assert np.abs(queries - passages).max() > 0.1
    (folder / "query_model").rename(folder / "aside")
    (folder / "passage_model").rename(folder / "query_model")
    (folder / "aside").rename(folder / "passage_model")
    np.testing.assert_array_equal(vectors(folder), passages)
    np.testing.assert_array_equal(vectors(folder, side="passages"), queries)


@pytest.mark.parametrize("side", ["query_model", "passage_model"])
def test_one_tower_alone_is_incomplete(side, tmp_path):
    folder = tevatron.untied(tmp_path / "run").folder
    shutil.rmtree(folder / side)
    with pytest.raises(CheckpointIncomplete, match=f"{side}/config.json is missing"):
        examine(Folder.listing(folder), step=100)


@pytest.mark.parametrize("name", ["pooler.pt", "pooler_config.json"])
def test_half_a_pooler_is_incomplete_and_never_left_out(name, tmp_path):
    folder = tevatron.tied_pooler(tmp_path / "run").folder
    (folder / name).unlink()
    with pytest.raises(CheckpointIncomplete, match=f"{name} is missing"):
        examine(Folder.listing(folder), step=100)


def test_a_pooler_that_says_nothing_of_length_leaves_it_unless_a_flag_does(tmp_path):
    folder = tevatron.untied_pooler(tmp_path / "run").folder
    plain = vectors(folder)
    lengths = np.linalg.norm(plain, axis=1, keepdims=True)
    assert np.abs(lengths - 1).min() > 0.1
    np.testing.assert_allclose(vectors(folder, normalize=True), plain / lengths, atol=1e-6)


@pytest.mark.parametrize(
    ("make", "options", "words"),
    [
        (
            tevatron.one_model_two_poolers,
            {"normalize": True},
            ["--normalize says True", "pooler_config.json says False"],
        ),
        (
            tevatron.untied,
            {"pooling": "mean"},
            ["--pooling says 'mean'", "the layout tevatron says 'cls'"],
        ),
        (
            openmatch.tied,
            {"pooling": "mean"},
            ["--pooling says 'mean'", "openmatch_config.json says 'cls'"],
        ),
        (
            openmatch.t5_decoder,
            {"pooling": "mean"},
            ["--pooling says 'mean'", "the decoder of T5Model says 'cls'"],
        ),
        (openmatch.tied, {"normalize": True}, ["--normalize says True", "json says False"]),
        (
            disentangled.average,
            {"pooling": "cls"},
            ["--pooling says 'cls'", "config.json says 'mean'"],
        ),
        (disentangled.cosine, {"similarity": "ip"}, ["--similarity says 'ip'", "says 'cos'"]),
    ],
)
def test_a_flag_that_contradicts_the_checkpoint_is_refused_with_both(
    make, options, words, tmp_path
):
    folder = make(tmp_path / "run").folder
    with pytest.raises(CheckpointUnsupported) as caught:
        load(folder, **options)
    assert all(each in str(caught.value) for each in words), caught.value


def test_a_pooler_without_one_of_its_layers_is_broken(tmp_path):
    folder = tevatron.tied_pooler(tmp_path / "run").folder
    tensors = torch.load(folder / "pooler.pt", weights_only=True)
    tensors.pop("linear_p.weight")
    torch.save(tensors, folder / "pooler.pt")
    with pytest.raises(CheckpointBroken, match=r"pooler.pt has no tensor 'linear_p.weight'"):
        load(folder)


def test_a_pooler_of_another_shape_than_it_says_is_broken(tmp_path):
    folder = tevatron.tied_pooler(tmp_path / "run").folder
    change_json(folder / "pooler_config.json", output_dim=4)
    with pytest.raises(CheckpointBroken, match=r"\(8, 16\) where pooler_config.json says \(4, 16"):
        load(folder)


def test_what_tells_retromae_from_tevatron_need_not_be_kept_with_the_model(tmp_path):
    made = retromae.untied_mean(tmp_path / "run")
    whole = examine(Folder.listing(made.folder), step=100)
    assert whole.layout == "retromae"
    assert "training_args.bin" not in whole.model_files
    pin = tmp_path / "pins" / "checkpoint-100"
    for name in whole.model_files:
        (pin / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(made.folder / name, pin / name)
    shutil.rmtree(made.folder)
    loaded = load(made.folder, layout=whole.layout, pin=pin, pooling="mean")
    assert loaded.queries.tokenizer_folder == tmp_path / "run"
    with torch.inference_mode():
        found = loaded.encoder.encode_queries(IDS[:1], MASK[:1])[0]
    torch.testing.assert_close(found, made.queries(IDS[0].tolist()), atol=1e-5, rtol=0)


def test_a_colbert_that_looks_like_a_dense_model_is_remarked_on(tmp_path):
    folder = tevatron.tied_pooler(tmp_path / "run").folder
    weight, bias = torch.ones(32, 16), torch.ones(32)
    names = ("linear_q.weight", "linear_q.bias", "linear_p.weight", "linear_p.bias")
    torch.save(dict(zip(names, (weight, bias) * 2, strict=True)), folder / "pooler.pt")
    change_json(folder / "pooler_config.json", output_dim=32)
    assert any("ColBERT" in each for each in load(folder).assumed)


def test_a_configuration_beside_two_towers_is_remarked_on(tmp_path):
    folder = retromae.untied_mean(tmp_path / "run").folder
    assert load(folder, pooling="mean").assumed == ()
    shutil.copy(folder / "query_model" / "config.json", folder / "config.json")
    [remark] = load(folder, pooling="mean").assumed
    assert "config.json beside two transformers" in remark


# OpenMatch


def test_the_head_comes_before_its_configuration_and_makes_it_openmatchs(tmp_path):
    folder = openmatch.mean_head(tmp_path / "run").folder
    (folder / "openmatch_config.json").unlink()
    assert layout_of(Folder.listing(folder)).name == "openmatch"
    with pytest.raises(CheckpointIncomplete, match=r"openmatch_config.json is missing"):
        examine(Folder.listing(folder), step=100)


@pytest.mark.parametrize("name", ["query_head/linear.pt", "passage_layernorm/layernorm.pt"])
def test_a_layer_that_the_configuration_asks_for_must_be_there(name, tmp_path):
    folder = openmatch.untied_heads(tmp_path / "run").folder
    (folder / name).unlink()
    with pytest.raises(CheckpointIncomplete, match=f"{name} is missing"):
        examine(Folder.listing(folder), step=100)


def test_an_encoder_is_never_given_a_random_decoder(tmp_path):
    folder = openmatch.t5_encoder(tmp_path / "run").folder
    config = json.loads((folder / "openmatch_config.json").read_text())
    config["plm_backbone"]["type"] = "T5Model"
    write_json(folder / "openmatch_config.json", config)
    with pytest.raises(CheckpointBroken, match=r"tensors .*'decoder\."):
        load(folder)


def test_a_pooler_that_counts_is_never_random(tmp_path):
    model = bert(1)
    state = {key: value for key, value in model.state_dict().items() if "pooler" not in key}
    save_old(model, tmp_path / "checkpoint-100")
    torch.save(state, tmp_path / "checkpoint-100" / "pytorch_model.bin")
    backbone = {"type": "BertModel", "feature": "pooler_output"}
    openmatch.write_config(tmp_path / "checkpoint-100", backbone, pooling="no")
    with pytest.raises(CheckpointBroken, match=r"pooler.dense"):
        load(tmp_path / "checkpoint-100")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"pooling": "max"}, "pooling 'max'"),
        ({"pooling": "no"}, "not one vector"),
        ({"plm_backbone": {"type": "CLIPModel"}}, "images are not encoded"),
        ({"plm_backbone": {"type": "T5ForConditionalGeneration"}}, "head for another task"),
        ({"plm_backbone": {"type": "os"}}, "no model class 'os'"),
        ({"plm_backbone": {"type": "BertConfig"}}, "no model class 'BertConfig'"),
        ({"tied": False}, "query_model and passage_model are missing"),
    ],
)
def test_a_configuration_that_we_cannot_follow_is_refused(changes, words, tmp_path):
    folder = openmatch.tied(tmp_path / "run").folder
    change_json(folder / "openmatch_config.json", **changes)
    with pytest.raises(CheckpointError, match=words):
        load(folder)


def test_changes_by_opendelta_are_not_overlooked(tmp_path):
    folder = openmatch.tied(tmp_path / "run").folder
    (folder / "delta_model").mkdir()
    (folder / "delta_model" / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(CheckpointUnsupported, match="OpenDelta"):
        examine(Folder.listing(folder), step=100)


# LoRA


def test_an_adapter_changes_the_vectors_of_its_base(tmp_path):
    pytest.importorskip("peft", reason="peft is not installed")
    made = tevatron_v2.lora(tmp_path / "run")
    flags = {"pooling": "last", "normalize": True}
    adapted = vectors(made.folder, **flags)
    base = vectors(tmp_path / "models" / "base", **flags)
    assert np.abs(adapted - base).max() > 0.1


def test_a_base_that_is_not_here_is_named_with_what_to_give(tmp_path):
    made = tevatron_v2.lora_elsewhere(tmp_path / "run")
    with pytest.raises(CheckpointUnsupported, match=r"'meta-llama/Llama-2-7b-hf'.*--base_model"):
        load(made.folder)
    with pytest.raises(CheckpointUnsupported, match=r"--base_model .*nowhere' is no folder"):
        load(made.folder, base_model=str(tmp_path / "nowhere"))


# Disentangled-Retriever


def adapter_folder(tmp_path, config=disentangled.PARALLEL):
    made = disentangled.adapter(tmp_path / "run", config)
    return made.folder, {"base_model": str(tmp_path / "backbone"), "pooling": "mean"}


def test_an_adapter_without_its_base_asks_for_it(tmp_path):
    folder, options = adapter_folder(tmp_path)
    with pytest.raises(CheckpointUnsupported, match="names no base model: give one with --base"):
        load(folder, **(options | {"base_model": None}))


def test_an_adapter_whose_pooling_nobody_says_asks_for_it(tmp_path):
    folder, options = adapter_folder(tmp_path)
    with pytest.raises(CheckpointUnsupported, match="no default: give --pooling"):
        load(folder, **(options | {"pooling": None}))


def test_a_base_of_the_same_trainer_says_pooling_and_similarity(tmp_path):
    folder, options = adapter_folder(tmp_path)
    change_json(tmp_path / "backbone" / "config.json", pooling="average", similarity_metric="cos")
    found = vectors(folder, base_model=options["base_model"])
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)
    with pytest.raises(CheckpointUnsupported, match="--pooling says 'cls'"):
        load(folder, base_model=options["base_model"], pooling="cls")


def test_an_adapter_on_roberta_is_read_too(tmp_path):
    from transformers import RobertaConfig, RobertaModel

    folder, options = adapter_folder(tmp_path, disentangled.LORA)
    model = RobertaModel(RobertaConfig(**bert(1).config.to_dict() | {"model_type": "roberta"}))
    shutil.rmtree(tmp_path / "backbone")
    model.eval().save_pretrained(tmp_path / "backbone")
    path = folder / "dense" / "pytorch_adapter.bin"
    tensors = torch.load(path, weights_only=True)
    torch.save({key.replace("bert", "roberta", 1): value for key, value in tensors.items()}, path)
    found = vectors(folder, **options)
    for key, down in tensors.items():
        if key.endswith("lora_A"):
            place, _, _ = key.removeprefix("bert.").partition(".loras")
            weight = model.get_submodule(place).weight
            weight.data += 2 * tensors[key.replace("lora_A", "lora_B")] @ down
    with torch.no_grad():
        wanted = model(input_ids=IDS[:1]).last_hidden_state[0].mean(dim=0)
    np.testing.assert_allclose(found[0], wanted, atol=1e-5)


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"architecture": "prefix_tuning", "flat": False}, "has prefix tuning"),
        (MAM, "has prefix tuning"),
        (disentangled.PARALLEL | {"non_linearity": "swish"}, "non_linearity to 'swish'"),
        (disentangled.PARALLEL | {"original_ln_before": True}, "original_ln_before to True"),
        (disentangled.PARALLEL | {"scaling": "learned"}, "cannot be understood"),
        (disentangled.LORA | {"composition_mode": "scale"}, "composition_mode to 'scale'"),
        ({"architecture": "compacter"}, "adapter 'compacter'"),
    ],
)
def test_an_adapter_of_another_kind_is_refused_by_name(config, words, tmp_path):
    folder, _ = adapter_folder(tmp_path)
    change_json(folder / "dense" / "adapter_config.json", config=config)
    with pytest.raises(CheckpointUnsupported, match=words):
        examine(Folder.listing(folder), step=100)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda tensors: tensors.popitem(), "has no tensor"),
        (lambda tensors: tensors.update(more=torch.ones(1)), "1 tensors .*for example 'more'"),
        (
            lambda tensors: tensors.update({key: torch.ones(3, 3) for key in tensors}),
            "does not fit the base model",
        ),
    ],
)
@pytest.mark.parametrize("config", [disentangled.PARALLEL, disentangled.LORA])
def test_an_adapter_with_other_tensors_than_it_needs_is_broken(change, words, config, tmp_path):
    folder, options = adapter_folder(tmp_path, config)
    path = folder / "dense" / "pytorch_adapter.bin"
    tensors = torch.load(path, weights_only=True)
    change(tensors)
    torch.save(tensors, path)
    with pytest.raises(CheckpointBroken, match=words):
        load(folder, **options)


def test_of_several_adapters_none_is_guessed(tmp_path):
    folder, options = adapter_folder(tmp_path)
    shutil.copytree(folder / "dense", folder / "other")
    with pytest.raises(CheckpointUnsupported, match="the adapters dense/, other/"):
        load(folder, **options)


def test_an_adapter_unpacked_into_the_folder_itself_is_read_the_same(tmp_path):
    folder, options = adapter_folder(tmp_path)
    before = vectors(folder, **options)
    for path in list((folder / "dense").iterdir()):
        path.rename(folder / path.name)
    (folder / "dense").rmdir()
    np.testing.assert_array_equal(vectors(folder, **options), before)


# Choosing the layout


def test_a_layout_may_be_said_by_name(tmp_path):
    made = tevatron.tied(tmp_path / "run")
    assert load(made.folder).assumed[0].startswith("--pooling cls is assumed")
    said = EncoderOptions(layout="tevatron")
    checkpoint = Checkpoint(path=made.folder, step=100, layout="huggingface")
    loaded = load_checkpoint(checkpoint, said, device="cpu", precision="fp32")
    assert loaded.assumed == ()  # Tevatron v1 has no other pooling


def test_a_layout_of_ones_own_is_used_for_finding_and_for_loading(tmp_path):
    made = retromae.untied_mean(tmp_path / "run")
    row = evaluate(
        made.folder,
        "--layout",
        "tests.checkpoints.test_toolkit_traps:Mine",
        place=tmp_path / "evaluation",
    )
    assert row.state is State.FAILED
    assert row.reason == "It is mine."


class Mine(retromae_layout.RetroMAE):
    name = "mine"

    def model_files(self, folder):
        raise CheckpointUnsupported("It is mine.")


def test_a_layout_that_nobody_knows_is_refused_at_once(tmp_path):
    made = tevatron.tied(tmp_path / "run")
    with pytest.raises(InvalidOption, match=r"--layout: 'tevatrn' .*Did you mean 'tevatron'"):
        evaluate(made.folder, "--layout", "tevatrn", place=tmp_path / "evaluation")


# The tokenizer


def without_tokenizer(path):
    for each in path.glob("token*"):
        each.unlink()


def test_the_tokenizer_is_looked_for_from_the_checkpoint_outwards(tmp_path):
    made = tevatron.untied(tmp_path / "run")
    started_from = save_tokenizer(tmp_path / "pretrained")
    change_json(made.folder / "query_model" / "config.json", _name_or_path="pretrained")
    own = save_tokenizer(made.folder)
    for place in (own, tmp_path / "run", started_from):
        assert load(made.folder).queries.tokenizer_folder == place
        without_tokenizer(place)
    assert load(made.folder).queries.tokenizer_folder is None


def test_without_any_tokenizer_the_reason_says_what_to_give(tmp_path):
    made = tevatron.untied(tmp_path / "run")
    without_tokenizer(tmp_path / "run")
    row = evaluate(made.folder, place=tmp_path / "evaluation")
    assert row.state is State.FAILED
    assert "There is no tokenizer" in row.reason
    assert "--tokenizer_name_or_path" in row.reason


def test_a_tokenizer_that_a_flag_names_is_used(tmp_path):
    made = tevatron.untied(tmp_path / "run")
    without_tokenizer(tmp_path / "run")
    elsewhere = save_tokenizer(tmp_path / "elsewhere")
    given = ("--tokenizer_name_or_path", str(elsewhere))
    made = type(made)(**{**vars(made), "flags": given, "tokenizer": elsewhere})
    found = embeddings(made, place=tmp_path / "evaluation")
    np.testing.assert_allclose(found.queries, expected(made)[0], atol=1e-5)


# What is no checkpoint


@pytest.mark.parametrize(
    ("name", "files"),
    [
        ("runs", ["events.out.tfevents.1"]),
        ("checkpoint-9", []),
        ("checkpoint-9", ["optimizer.pt"]),
        ("checkpoint-9", ["training_args.bin", "README.md"]),
    ],
)
def test_a_folder_without_a_model_is_of_no_layout(name, files, tmp_path):
    folder = tmp_path / name
    folder.mkdir()
    for file in files:
        torch.save({}, folder / file)
    with pytest.raises(CheckpointUnsupported, match="no checkpoint of a known layout"):
        examine(Folder.listing(folder), step=None)


def test_a_damaged_tower_is_incomplete(tmp_path):
    folder = tevatron.untied(tmp_path / "run").folder
    path = folder / "passage_model" / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-10])
    finish(folder, arguments=False)
    with pytest.raises(CheckpointIncomplete, match=r"model.safetensors has"):
        examine(Folder.listing(folder), step=100)


@pytest.mark.parametrize(
    "name",
    ["tevatron untied", "retromae untied", "openmatch untied", "repllama", "disentangled adapter"],
)
def test_it_is_whole_at_once_by_its_trainers_last_file(name, tmp_path):
    made = RECIPES[name](tmp_path / "run")
    assert examine(Folder.listing(made.folder), step=100).quiet_factor == 0
