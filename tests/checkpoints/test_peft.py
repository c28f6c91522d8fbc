import pytest
import torch

from asyncval.checkpoints.completeness import examine
from asyncval.checkpoints.folder import Folder
from asyncval.checkpoints.recognition import load_checkpoint
from asyncval.core.errors import CheckpointIncomplete, CheckpointUnsupported
from asyncval.core.types import Checkpoint, EncoderOptions
from tests.models import save_huggingface, save_peft

pytest.importorskip("peft", reason="peft is not installed")


@pytest.fixture
def adapter(tmp_path, monkeypatch):
    """A LoRA adapter whose base was named by a path relative to where its trainer ran."""
    save_huggingface(tmp_path / "base")
    monkeypatch.chdir(tmp_path)
    model = save_peft(tmp_path / "run" / "checkpoint-1", base="base")
    monkeypatch.chdir("/")
    return tmp_path / "run" / "checkpoint-1", model


def load(path):
    checkpoint = Checkpoint(path=path, step=1, layout="")
    return load_checkpoint(checkpoint, EncoderOptions(), device="cpu", precision="fp32")


def test_an_adapter_gives_the_embeddings_of_peft_itself(adapter):
    path, model = adapter
    loaded = load(path)
    ids = torch.tensor([[2, 5, 6, 7, 3], [2, 9, 3, 0, 0]])
    mask = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]])
    with torch.inference_mode():
        wanted = model(input_ids=ids, attention_mask=mask).last_hidden_state[:, 0]
        found = loaded.encoder.encode_passages(ids, mask)
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=0)
    assert loaded.passages.tokenizer_folder == path.parents[1] / "base"


def test_weights_without_their_configuration_are_incomplete(adapter):
    path, _ = adapter
    (path / "adapter_config.json").unlink()
    with pytest.raises(CheckpointIncomplete, match=r"adapter_config.json is missing"):
        examine(Folder.listing(path), step=1)


def test_a_base_that_is_nowhere_is_named(adapter):
    path, _ = adapter
    (path.parents[1] / "base" / "config.json").unlink()
    with pytest.raises(CheckpointUnsupported, match="names the base model 'base'"):
        load(path)
