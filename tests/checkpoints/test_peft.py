import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModel, BertForMaskedLM

from asyncval.checkpoints.completeness import examine
from asyncval.checkpoints.explanation import explain_folder
from asyncval.checkpoints.folder import Folder
from asyncval.core.errors import CheckpointBroken, CheckpointIncomplete, CheckpointUnsupported
from asyncval.core.types import EncoderOptions
from tests.checkpoints.hostile import Touch
from tests.checkpoints.test_loading import load, make_batch
from tests.models import bert_config, save_huggingface, save_peft

peft = pytest.importorskip("peft", reason="peft is not installed")
# PEFT warns of our damaged adapters, and asks torch by older names.
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture
def adapter(tmp_path, monkeypatch):
    """A LoRA adapter whose base was named by a path relative to where its trainer ran."""
    save_huggingface(tmp_path / "base")
    monkeypatch.chdir(tmp_path)
    model = save_peft(tmp_path / "run" / "checkpoint-1", base="base")
    monkeypatch.chdir("/")
    return tmp_path / "run" / "checkpoint-1", model


def assert_equal(folder, model):
    """Compare with the model of PEFT itself, adapters beside the weights, not merged."""
    ids, mask = make_batch()
    with torch.inference_mode():
        wanted = model.eval()(input_ids=ids, attention_mask=mask).last_hidden_state[:, 0]
        found = load(folder).encoder.encode_passages(ids, mask)
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=0)


def test_an_adapter_gives_the_embeddings_of_peft_itself(adapter):
    folder, model = adapter
    assert_equal(folder, model)
    assert load(folder).passages.tokenizer_folder == folder.parents[1] / "base"


LINEAR = {"target_modules": ["query", "value"]}
KINDS = {
    "LoRA": lambda: peft.LoraConfig(r=4, lora_alpha=3, **LINEAR),
    "rank-stabilised LoRA": lambda: peft.LoraConfig(r=4, use_rslora=True, **LINEAR),
    "ranks of their own": lambda: peft.LoraConfig(
        r=4, rank_pattern={"value": 2}, alpha_pattern={"value": 9}, **LINEAR
    ),
    "trained biases": lambda: peft.LoraConfig(r=4, bias="lora_only", **LINEAR),
    "DoRA": lambda: peft.LoraConfig(r=4, use_dora=True, **LINEAR),
    "AdaLoRA": lambda: peft.AdaLoraConfig(init_r=4, total_step=10, **LINEAR),
    "IA3": lambda: peft.IA3Config(target_modules=["key", "intermediate.dense"],
                                  feedforward_modules=["intermediate.dense"]),
    "LoHa": lambda: peft.LoHaConfig(r=2, **LINEAR),
    "LoKr": lambda: peft.LoKrConfig(r=2, **LINEAR),
    "whole modules": lambda: peft.LoraConfig(r=4, modules_to_save=["intermediate"], **LINEAR),
    "whole embeddings": lambda: peft.LoraConfig(
        r=4, target_modules=["query", "word_embeddings"], modules_to_save=["LayerNorm"]
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_adapter_is_merged(tmp_path, bert_folder, kind):
    torch.manual_seed(3)
    model = peft.get_peft_model(AutoModel.from_pretrained(bert_folder), KINDS[kind]())
    plain = AutoModel.from_pretrained(bert_folder).eval()
    with torch.no_grad():  # as training would: none stays as it began
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter) * 0.3)
    model.save_pretrained(str(tmp_path / "checkpoint-1"))
    examine(Folder.listing(tmp_path / "checkpoint-1"), step=None)
    assert_equal(tmp_path / "checkpoint-1", model)
    ids, mask = make_batch()
    with torch.inference_mode():
        before = plain(input_ids=ids, attention_mask=mask).last_hidden_state
        after = model(input_ids=ids, attention_mask=mask).last_hidden_state
    assert (before - after).abs().max() > 0.01  # the adapter does something


def test_an_adapter_that_changes_the_input_is_refused(tmp_path, bert_folder):
    config = peft.PromptTuningConfig(task_type="FEATURE_EXTRACTION", num_virtual_tokens=3)
    model = peft.get_peft_model(AutoModel.from_pretrained(bert_folder), config)
    model.save_pretrained(str(tmp_path / "checkpoint-1"))
    with pytest.raises(CheckpointUnsupported, match="PROMPT_TUNING, which changes the input"):
        load(tmp_path / "checkpoint-1")


def test_weights_without_their_configuration_are_incomplete(adapter):
    folder, _ = adapter
    (folder / "adapter_config.json").unlink()
    with pytest.raises(CheckpointIncomplete, match=r"adapter_config.json is missing"):
        examine(Folder.listing(folder), step=1)


def test_a_base_that_is_nowhere_is_named(adapter):
    folder, _ = adapter
    (folder.parents[1] / "base" / "config.json").unlink()
    with pytest.raises(CheckpointUnsupported, match="names the base model 'base'"):
        load(folder)


def test_an_adapter_that_lacks_tensors_is_broken(adapter):
    """PEFT itself would only warn, and give the vectors of the base model for these."""
    folder, _ = adapter
    path = folder / "adapter_model.safetensors"
    tensors = {name: tensor.clone() for name, tensor in load_file(path).items()}
    kept = {name: tensor for name, tensor in tensors.items() if "layer.1." not in name}
    save_file(kept, path)
    with pytest.raises(CheckpointBroken, match=r"lacks 4 tensors .*layer\.1\."):
        load(folder)


def test_an_adapter_of_another_class_of_model_is_broken(adapter, tmp_path):
    folder, _ = adapter
    model = peft.get_peft_model(BertForMaskedLM(bert_config()), peft.LoraConfig(r=4, **LINEAR))
    model.save_pretrained(str(tmp_path / "other"))
    shutil.copy(tmp_path / "other" / "adapter_model.safetensors", folder)
    with pytest.raises(CheckpointBroken, match="made for another one"):
        load(folder)


def test_a_base_of_another_width_is_refused(adapter):
    folder, _ = adapter
    base = folder.parents[1] / "base"
    AutoModel.from_config(bert_config(hidden_size=24)).save_pretrained(base)
    with pytest.raises(CheckpointBroken, match="PEFT cannot load it"):
        load(folder)


def test_a_pickle_in_an_adapter_executes_nothing(adapter, tmp_path):
    folder, _ = adapter
    canary = tmp_path / "canary"
    names = load_file(folder / "adapter_model.safetensors")
    (folder / "adapter_model.safetensors").unlink()
    torch.save(dict.fromkeys(names, Touch(canary)), folder / "adapter_model.bin")
    torch.load(folder / "adapter_model.bin", weights_only=False)
    canary.unlink()  # it is armed
    examine(Folder.listing(folder), step=None)
    with pytest.raises(CheckpointBroken):
        load(folder)
    assert not canary.exists()


def test_an_adapter_in_a_file_of_torch_is_read(adapter):
    folder, model = adapter
    path = folder / "adapter_model.safetensors"
    torch.save(load_file(path), folder / "adapter_model.bin")
    path.unlink()
    assert_equal(folder, model)


def test_a_configuration_that_peft_does_not_know_is_broken(adapter):
    folder, _ = adapter
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"peft_type": "NOBODYS"}))
    with pytest.raises(CheckpointBroken, match="PEFT cannot load it"):
        load(folder)


def test_a_base_of_the_hub_is_found_in_its_cache_without_a_network(adapter, tmp_path, monkeypatch):
    folder, model = adapter
    cache = tmp_path / "cache"
    for revision in ("1" * 40, "2" * 40):
        snapshot = cache / "models--somebody--encoder" / "snapshots" / revision
        shutil.copytree(folder.parents[1] / "base", snapshot)
    AutoModel.from_config(bert_config()).save_pretrained(snapshot)  # other weights: the newest
    refs = cache / "models--somebody--encoder" / "refs"
    refs.mkdir()
    (refs / "main").write_text("2" * 40)
    shutil.rmtree(folder.parents[1] / "base")
    name_base(folder, "somebody/encoder", revision="1" * 40)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(cache))
    assert_equal(folder, model)
    assert load(folder).passages.tokenizer_folder == snapshot.parent / ("1" * 40)
    name_base(folder, "somebody/encoder", revision=None)
    with pytest.raises(AssertionError):
        assert_equal(folder, model)
    name_base(folder, "somebody/other", revision=None)
    with pytest.raises(CheckpointUnsupported, match="nor in the cache of the hub"):
        load(folder)


def name_base(folder, name, *, revision):
    path = folder / "adapter_config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps(config | {"base_model_name_or_path": name, "revision": revision}))


def test_an_explanation_shows_which_state_of_the_base_is_meant(adapter):
    folder, _ = adapter
    base = folder.parents[1] / "base"

    def shown():
        report = explain_folder(folder, sentinel="trainer_state.json", options=EncoderOptions())
        assert str(base) in report["towers"]
        return report["base"]

    before = shown()
    assert shown() == before
    AutoModel.from_config(bert_config(num_hidden_layers=3)).save_pretrained(base)
    assert shown() != before
