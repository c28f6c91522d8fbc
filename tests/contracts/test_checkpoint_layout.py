"""What every checkpoint layout promises; a new one needs a maker in MAKERS here."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from asyncval.checkpoints import LAYOUTS
from asyncval.checkpoints.completeness import examine
from asyncval.checkpoints.folder import Folder, fingerprint
from asyncval.checkpoints.recognition import layout_of, layouts, load_checkpoint
from asyncval.core.errors import CheckpointError
from asyncval.core.types import Checkpoint, EncoderOptions
from asyncval.lookup import look_up
from tests.models import (
    make_tokenizer,
    save_distributed,
    save_huggingface,
    save_peft,
    save_sentence_transformers,
)


def save_adapter(folder: Path) -> Path:
    pytest.importorskip("peft", reason="peft is not installed")
    make_tokenizer().save_pretrained(folder)
    save_peft(folder, base=str(save_huggingface(folder.parent / "base")))
    return folder


MAKERS: dict[str, Callable[[Path], Path]] = {
    "distributed": save_distributed,
    "huggingface": save_huggingface,
    "peft": save_adapter,
    "sentence-transformers": save_sentence_transformers,
}


@pytest.fixture(params=LAYOUTS)
def name(request):
    assert request.param in MAKERS, f"say in MAKERS how a checkpoint of {request.param} is made"
    return request.param


@pytest.fixture
def folder(name, tmp_path):
    return MAKERS[name](tmp_path / "checkpoint-1")


def load(folder, name):
    checkpoint = Checkpoint(path=folder, step=1, layout=name)
    return load_checkpoint(checkpoint, EncoderOptions(), device="cpu", precision="fp32")


def test_its_name_is_that_in_the_table(name):
    assert look_up(name, LAYOUTS, option="layout").name == name


def test_a_checkpoint_of_it_is_recognised_as_it_and_no_other_comes_first(name, folder):
    assert layout_of(Folder.listing(folder)).name == name
    assert [layout.name for layout in layouts()] == list(LAYOUTS)


def test_its_model_files_are_there_and_make_its_fingerprint(name, folder):
    whole = examine(Folder.listing(folder), step=1)
    assert whole.layout == name
    assert whole.quiet_factor == 1
    assert all((folder / file).is_file() for file in whole.model_files)
    assert len(fingerprint(folder, whole.model_files)) == 64


def test_without_weights_it_is_not_whole(folder):
    for path in (*folder.glob("*model.safetensors"), *folder.glob("*.distcp")):
        path.unlink()
    with pytest.raises(CheckpointError):
        examine(Folder.listing(folder), step=1)


def test_it_loads_to_an_encoder_of_finite_float_vectors_one_for_each_text(name, folder):
    loaded = load(folder, name)
    ids = torch.tensor([[2, 10, 11, 3], [2, 12, 3, 0]])
    mask = torch.tensor([[1, 1, 1, 1], [1, 1, 1, 0]])
    for encode in (loaded.encoder.encode_queries, loaded.encoder.encode_passages):
        with torch.inference_mode():
            vectors = encode(ids, mask).numpy()
            alone = encode(ids[1:, :3], mask[1:, :3]).numpy()
        assert vectors.dtype == np.float32
        assert vectors.shape == (2, 16)
        assert np.isfinite(vectors).all()
        np.testing.assert_allclose(vectors[1:], alone, atol=1e-5)  # padding does not count


def test_it_says_where_its_tokenizer_is_and_how_long_texts_may_be(name, folder):
    loaded = load(folder, name)
    for reading in (loaded.queries, loaded.passages):
        assert reading.tokenizer_folder == folder
        assert reading.max_length == 40


def test_it_keeps_no_file_mapped_and_none_open(name, folder):
    loaded = load(folder, name)
    with open("/proc/self/maps") as maps:  # noqa: PTH123
        assert str(folder) not in maps.read()
    assert loaded is not None
