"""The example of a layout of one's own, installed as its README says, and used."""

import json
import shutil
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModel

from asyncval.checkpoints.completeness import examine
from asyncval.checkpoints.explanation import explain_folder
from asyncval.checkpoints.folder import Folder
from asyncval.checkpoints.recognition import layout_of
from asyncval.core.errors import CheckpointBroken, CheckpointIncomplete
from asyncval.core.types import EncoderOptions
from asyncval.lookup import additions
from tests.checkpoints.hostile import Touch
from tests.checkpoints.test_loading import encode, load, plain_vectors, unit
from tests.models import HIDDEN, save_huggingface

EXAMPLE = Path(__file__).parents[2] / "examples" / "custom_checkpoint_format"


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A folder that the example is installed into by pip."""
    place = tmp_path_factory.mktemp("site")
    source = shutil.copytree(EXAMPLE, place / "source")
    command = [
        sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index",
        "--no-build-isolation", "--disable-pip-version-check", "--target", place / "installed",
        source,
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return place / "installed"


@pytest.fixture
def installed(site, monkeypatch):
    additions.cache_clear()
    monkeypatch.syspath_prepend(str(site))
    yield site
    additions.cache_clear()


@pytest.fixture
def checkpoint(tmp_path):
    """What the Acme trainer writes, and the vectors that its model gives."""
    folder = save_huggingface(tmp_path / "step_500")
    model = AutoModel.from_pretrained(folder)
    projection = torch.randn(8, HIDDEN, generator=torch.Generator().manual_seed(1))
    vectors = unit(plain_vectors(folder, "mean") @ projection.double().numpy().T)
    tensors = {f"encoder.{name}": value for name, value in model.state_dict().items()}
    optimizer = torch.optim.AdamW(model.parameters()).state_dict()
    saved = {"model": tensors | {"projection.weight": projection}, "optimizer": optimizer}
    torch.save(saved | {"step": 500}, folder / "checkpoint.pt")
    (folder / "model.safetensors").unlink()
    settings = {"pooling": "mean", "cosine": True, "query_prompt": "query: "}
    (folder / "retriever.json").write_text(json.dumps(settings))
    return folder, vectors


def test_an_installed_layout_is_recognised_explained_and_gives_its_trainers_vectors(
    installed, checkpoint
):
    folder, vectors = checkpoint
    whole = examine(Folder.listing(folder), step=500)
    assert whole.layout == "acme"
    assert {"checkpoint.pt", "retriever.json", "tokenizer.json"} <= set(whole.model_files)
    loaded = load(folder)
    np.testing.assert_allclose(encode(loaded), vectors, atol=1e-5)
    assert (loaded.queries.prefix, loaded.passages.prefix) == ("query: ", "")
    report = explain_folder(folder, sentinel="retriever.json", options=EncoderOptions())
    assert report["pooling"] == "mean (retriever.json)"
    assert report["verdict"] == "complete"


def test_it_may_be_named_without_being_an_entry_point(checkpoint, monkeypatch):
    folder, vectors = checkpoint
    monkeypatch.syspath_prepend(str(EXAMPLE))
    loaded = load(folder, layout="acme_asyncval:Acme")
    np.testing.assert_allclose(encode(loaded), vectors, atol=1e-5)


def test_without_it_the_folder_is_none_that_can_be_read(checkpoint):
    folder, _ = checkpoint
    with pytest.raises(CheckpointIncomplete, match="no weights yet"):
        examine(Folder.listing(folder), step=500)


def test_other_checkpoints_are_read_as_before(installed, bert_folder):
    assert layout_of(Folder.listing(bert_folder)).name == "huggingface"


@pytest.mark.parametrize("name", ["retriever.json", "config.json"])
def test_it_waits_for_its_last_files(installed, checkpoint, name):
    folder, _ = checkpoint
    (folder / name).unlink()
    with pytest.raises(CheckpointIncomplete, match=name):
        examine(Folder.listing(folder), step=500)


def test_a_pickle_in_its_file_executes_nothing(installed, checkpoint, tmp_path):
    folder, _ = checkpoint
    torch.save({"model": Touch(tmp_path / "canary")}, folder / "checkpoint.pt")
    with pytest.raises(CheckpointBroken, match=r"checkpoint\.pt"):
        load(folder)
    assert not (tmp_path / "canary").exists()


def test_an_error_in_somebody_elses_layout_concerns_one_checkpoint(
    installed, checkpoint, monkeypatch
):
    acme = import_module("acme_asyncval")
    folder, _ = checkpoint

    def fail(self, folder):
        raise KeyError("oops")

    monkeypatch.setattr(acme.Acme, "model_files", fail)
    with pytest.raises(CheckpointBroken, match=r"The layout 'acme' failed in .*: KeyError"):
        examine(Folder.listing(folder), step=500)
    monkeypatch.setattr(acme.Acme, "recognises", fail)
    assert layout_of(Folder.listing(folder)).name == "huggingface"
