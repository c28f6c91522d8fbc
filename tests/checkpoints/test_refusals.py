"""What is no dense bi-encoder is refused by name, and so is a file that would execute something."""

import json

import pytest
import torch
from transformers import BertForMaskedLM, BertForSequenceClassification

from asyncval.checkpoints.completeness import examine
from asyncval.checkpoints.explanation import explain_folder
from asyncval.checkpoints.folder import Folder
from asyncval.core.errors import CheckpointBroken, CheckpointIncomplete, CheckpointUnsupported
from asyncval.core.types import Checkpoint, EncoderOptions
from tests.checkpoints.recipes import disentangled, openmatch, tevatron, tevatron_v2
from tests.checkpoints.recipes.made import bert, write_json
from tests.checkpoints.test_toolkit_traps import adapter_folder, load
from tests.models import bert_config


def re_ranker(folder):
    BertForSequenceClassification(bert_config(num_labels=1)).save_pretrained(folder)


def openmatch_re_ranker(folder):
    bert(1).save_pretrained(folder)
    config = {"plm_backbone": {"type": "T5Model"}, "pos_token": "true", "neg_token": "false"}
    write_json(folder / "openmatch_config.json", config)


def colbert_lite(folder):
    tevatron.untied(folder.parent)
    torch.save({"codebook": torch.ones(2)}, folder / "pq.pt")


def colbert(folder):
    bert(1).save_pretrained(folder)
    config = json.loads((folder / "config.json").read_text())
    write_json(folder / "config.json", config | {"architectures": ["HF_ColBERT"]})


def unicoil(folder):
    tevatron.tied_pooler(folder.parent)
    write_json(folder / "pooler_config.json", {"input_dim": 16})


def jax_tied(folder):
    bert(1).save_pretrained(folder)
    (folder / "model.safetensors").rename(folder / "flax_model.msgpack")


def jax_untied(folder):
    for side in ("query_encoder", "passage_encoder"):
        jax_tied(folder / side)


def of_images(folder):
    bert(1).save_pretrained(folder)
    config = json.loads((folder / "config.json").read_text())
    own = {"architectures": ["Qwen2_5_VLForConditionalGeneration"], "vision_config": {"depth": 2}}
    write_json(folder / "config.json", config | own)


def encoder_decoder(folder):
    from transformers import T5Model

    T5Model(openmatch.t5_config()).save_pretrained(folder)


OTHERS = {
    encoder_decoder: "T5Model is an encoder-decoder",
    re_ranker: r"BertForSequenceClassification scores .*\(a re-ranker\)",
    openmatch_re_ranker: "OpenMatch's re-ranker",
    colbert_lite: r"pq.pt is of RetroMAE's ColBERT-lite",
    colbert: r"HF_ColBERT has a vector for every token",
    unicoil: "Tevatron's uniCOIL",
    jax_tied: r"^flax_model.msgpack holds weights of Flax",
    jax_untied: r"^query_encoder/flax_model.msgpack holds weights of Flax",
    of_images: "has a vision_config: Qwen2_5_VL",
}


@pytest.mark.parametrize("make", OTHERS, ids=lambda make: make.__name__)
def test_what_has_no_vector_for_a_text_is_refused_by_name(make, tmp_path):
    folder = tmp_path / "run" / "checkpoint-100"
    make(folder)
    with pytest.raises(CheckpointUnsupported, match=OTHERS[make]):
        examine(Folder.listing(folder), step=100)
    report = explain_folder(folder, sentinel="trainer_state.json", options=EncoderOptions())
    assert report["verdict"] == "refused"
    assert "layout" not in report


def test_a_half_written_file_that_would_tell_is_waited_for(tmp_path):
    folder = tevatron.tied_pooler(tmp_path / "run").folder
    (folder / "pooler_config.json").write_text('{"input_')
    with pytest.raises(CheckpointIncomplete, match=r"pooler_config.json"):
        examine(Folder.listing(folder), step=100)


def test_a_masked_language_model_is_read_with_a_remark(tmp_path):
    folder = tmp_path / "checkpoint-100"
    BertForMaskedLM(bert_config()).save_pretrained(folder)
    assert "BertForMaskedLM: a language model" in load(folder, pooling="cls").assumed[0]
    bert(1).save_pretrained(folder)
    assert load(folder, pooling="cls").assumed == ()


HOSTILE = {
    "pytorch_model.bin of one tower": (tevatron.untied, "query_model/pytorch_model.bin"),
    "pooler.pt": (tevatron.tied_pooler, "pooler.pt"),
    "linear.pt": (openmatch.mean_head, "linear.pt"),
    "layernorm.pt": (openmatch.untied_heads, "passage_layernorm/layernorm.pt"),
    "adapter_model.bin": (tevatron_v2.lora_bin, "adapter_model.bin"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_pickle_in_any_file_executes_nothing_and_is_refused(name, malicious, tmp_path):
    if name == "adapter_model.bin":
        pytest.importorskip("peft", reason="peft is not installed")
    make, file = HOSTILE[name]
    made = make(tmp_path / "run")
    canary = malicious(made.folder / file)
    with pytest.raises((CheckpointBroken, CheckpointUnsupported)) as caught:
        load(made.folder, layout=made.layout)
    assert str(caught.value)
    assert not canary.exists()


def test_a_pickle_for_an_adapter_executes_nothing_and_is_refused(malicious, tmp_path):
    folder, options = adapter_folder(tmp_path, disentangled.LORA)
    canary = malicious(folder / "dense" / "pytorch_adapter.bin")
    with pytest.raises(CheckpointBroken, match=r"pytorch_adapter.bin cannot be read: it is damag"):
        load(folder, **options)
    assert not canary.exists()


def test_a_list_of_tensors_is_no_head(tmp_path):
    folder = openmatch.mean_head(tmp_path / "run").folder
    torch.save([torch.ones(8, 16)], folder / "linear.pt")
    with pytest.raises(CheckpointBroken, match="no set of tensors by name"):
        load(folder)


def test_arguments_of_the_trainer_are_never_unpickled(malicious, tmp_path):
    made = openmatch.tied(tmp_path / "run")
    canary = malicious(made.folder / "training_args.bin")
    checkpoint = Checkpoint(path=made.folder, step=100, layout="")
    assert examine(Folder.listing(checkpoint.path), step=100).layout == "openmatch"
    load(made.folder)
    assert not canary.exists()
