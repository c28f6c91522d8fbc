"""What every checkpoint layout promises; a new one needs an entry in EXAMPLES of the recipes."""

import numpy as np
import pytest
import torch

from asyncval.checkpoints import LAYOUTS
from asyncval.checkpoints.completeness import examine
from asyncval.checkpoints.description import Fact, folder_of
from asyncval.checkpoints.explanation import explain_encoder
from asyncval.checkpoints.folder import Folder, fingerprint
from asyncval.checkpoints.recognition import layout_of, layouts, load_checkpoint
from asyncval.config import EvalConfig
from asyncval.core.errors import CheckpointError
from asyncval.core.types import Checkpoint
from asyncval.lookup import look_up
from asyncval.options import parse
from tests.checkpoints.recipes import EXAMPLES, RECIPES


@pytest.fixture(params=LAYOUTS)
def name(request):
    assert request.param in EXAMPLES, f"say in EXAMPLES which recipe makes one of {request.param}"
    return request.param


@pytest.fixture
def made(name, tmp_path):
    return RECIPES[EXAMPLES[name]](tmp_path / "run")


@pytest.fixture
def folder(made):
    return made.folder


def options_of(made):
    data = ("--query_file", "q", "--candidate_dir", "c", "--qrel_file", "r")
    return parse(
        EvalConfig, [str(made.folder), *data, *made.flags], command="eval"
    ).encoder_options()


def load(made, name, precision="fp32"):
    checkpoint = Checkpoint(path=made.folder, step=1, layout=name)
    return load_checkpoint(checkpoint, options_of(made), device="cpu", precision=precision)


def test_its_name_is_that_in_the_table(name):
    assert look_up(name, LAYOUTS, option="layout").name == name


def test_a_checkpoint_of_it_is_recognised_as_it_and_no_other_comes_first(name, folder):
    assert layout_of(Folder.listing(folder)).name == name
    assert [layout.name for layout in layouts()] == list(LAYOUTS)


def test_it_is_taken_for_the_same_by_name(name, folder):
    assert layout_of(Folder.listing(folder), name).name == name


def test_its_model_files_are_there_and_make_its_fingerprint(name, folder):
    whole = examine(Folder.listing(folder), step=1)
    assert whole.layout == name
    assert all((folder / file).is_file() for file in whole.model_files)
    assert len(fingerprint(folder, whole.model_files)) == 64


def test_without_weights_it_is_not_whole(folder):
    for path in folder.rglob("*"):
        if path.suffix in (".safetensors", ".bin", ".distcp"):
            path.unlink()
    with pytest.raises(CheckpointError):
        examine(Folder.listing(folder), step=1)


def test_it_loads_to_an_encoder_of_finite_float_vectors_one_for_each_text(name, made):
    loaded = load(made, name)
    ids = torch.tensor([[2, 10, 11, 3], [2, 12, 3, 0]])
    mask = torch.tensor([[1, 1, 1, 1], [1, 1, 1, 0]])
    for encode in (loaded.encoder.encode_queries, loaded.encoder.encode_passages):
        with torch.inference_mode():
            vectors = encode(ids, mask).numpy()
            alone = encode(ids[1:, :3], mask[1:, :3]).numpy()
        assert vectors.dtype == np.float32
        assert vectors.shape == (2, made.dimension)
        assert np.isfinite(vectors).all()
        np.testing.assert_allclose(vectors[1:], alone, atol=1e-5)  # padding does not count


def test_it_says_where_its_tokenizer_is_and_how_long_texts_may_be(name, made):
    loaded = load(made, name)
    for reading in (loaded.queries, loaded.passages):
        assert reading.tokenizer_folder == made.tokenizer
        assert reading.max_length == made.max_length


def test_it_is_described_as_it_is_loaded_and_each_thing_with_who_says_it(name, made):
    description = look_up(name, LAYOUTS, option="--layout")().describe(
        Folder.listing(made.folder), options_of(made)
    )
    loaded = load(made, name)
    assert folder_of(description.tokenizer) == loaded.queries.tokenizer_folder
    assert description.query_prefix.value == loaded.queries.prefix
    assert description.passage_prefix.value == loaded.passages.prefix
    assert description.assumed == loaded.assumed
    for said in explain_encoder(description).values():
        assert isinstance(said, list) or said.endswith(")")
    assert isinstance(description.pooling, Fact)


def test_it_keeps_no_file_mapped_and_none_open(name, made):
    loaded = load(made, name)
    with open("/proc/self/maps") as maps:  # noqa: PTH123
        assert str(made.folder) not in maps.read()
    assert loaded is not None
