import json
import os
import random
import shutil
import zipfile

import pytest
import torch
from safetensors.torch import save_file

from asyncval.checkpoints.structure import check_file, check_safetensors
from asyncval.core.errors import CheckpointIncomplete

SAMPLED = 150


@pytest.fixture
def weights(bert_folder, tmp_path):
    """A copy of a real model.safetensors."""
    return shutil.copy(bert_folder / "model.safetensors", tmp_path / "model.safetensors")


@pytest.fixture
def torch_file(tmp_path):
    """A real file of torch.save with several tensors."""
    path = tmp_path / "pytorch_model.bin"
    torch.save({f"layer.{i}": torch.full((50,), float(i)) for i in range(8)}, path)
    return path


def header_size(path):
    with path.open("rb") as file:
        return 8 + int.from_bytes(file.read(8), "little")


def truncations(size, *always):
    draw = random.Random(size)
    sampled = {*draw.sample(range(size), SAMPLED), *always, 0, 1, 2, 3, 4, size // 2, size - 1}
    return sorted(sampled, reverse=True)


def is_incomplete(path):
    try:
        check_file(path)
    except CheckpointIncomplete as error:
        return path.name in str(error)
    return False


def test_a_whole_safetensors_file_gives_its_tensors(weights):
    assert "embeddings.word_embeddings.weight" in check_safetensors(weights)


def test_a_safetensors_file_is_incomplete_wherever_it_was_cut(weights):
    header = header_size(weights)
    cuts = truncations(weights.stat().st_size, 7, 8, 9, header - 1, header, header + 1)
    misjudged = []
    for size in cuts:
        os.truncate(weights, size)
        if not is_incomplete(weights):
            misjudged.append(size)
    assert misjudged == []


def test_a_safetensors_file_with_a_byte_too_many_is_incomplete(weights):
    with weights.open("ab") as file:
        file.write(b"\0")
    with pytest.raises(CheckpointIncomplete, match="where its header announces"):
        check_file(weights)


def test_a_safetensors_file_without_a_tensor_is_incomplete(tmp_path):
    save_file({}, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointIncomplete, match="has no tensor"):
        check_file(tmp_path / "model.safetensors")


def test_a_file_of_nothing_but_zeros_is_incomplete(weights):
    weights.write_bytes(bytes(weights.stat().st_size))
    assert is_incomplete(weights)


@pytest.mark.parametrize(
    "header",
    [
        b"not json at all",
        b"[1, 2]",
        b'{"a": 3}',
        b'{"a": {"dtype": "F32", "shape": [1]}}',
        b'{"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 4]}}',
        b'{"a": {"dtype": "F32", "shape": [1], "data_offsets": [4, 8]}}',
        b'{"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4, 8]}}',
        b'{"a": {"dtype": "F32", "shape": ["x"], "data_offsets": [0, 4]}}',
        b'{"a": {"dtype": "F32", "shape": [1], "data_offsets": null}}',
        b'{"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, "4"]}}',
    ],
)
def test_a_header_that_makes_no_sense_is_incomplete(tmp_path, header):
    path = tmp_path / "model.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(4))
    assert is_incomplete(path)


def test_a_header_that_announces_more_than_anyone_writes_is_incomplete(tmp_path):
    path = tmp_path / "model.safetensors"
    path.write_bytes((2**63).to_bytes(8, "little") + b"{}" * 100)
    assert is_incomplete(path)


def test_an_empty_tensor_in_a_safetensors_file_is_no_reason_to_wait(tmp_path):
    path = tmp_path / "model.safetensors"
    save_file(
        {"empty": torch.zeros(0, 3), "full": torch.zeros(2), "half": torch.zeros(3).half()}, path
    )
    check_file(path)


def test_a_file_that_was_stretched_but_not_filled_is_incomplete(tmp_path):
    path = tmp_path / "model.safetensors"
    save_file({"a": torch.ones(1 << 18)}, path)
    check_file(path)
    size = path.stat().st_size
    os.truncate(path, header_size(path))
    os.truncate(path, size)
    with path.open("rb") as file:
        if os.lseek(file.fileno(), 0, os.SEEK_HOLE) == size:
            pytest.skip("this file system does not know holes")
    with pytest.raises(CheckpointIncomplete, match="never written"):
        check_file(path)


def test_a_whole_file_of_torch_is_complete(torch_file):
    check_file(torch_file)


def test_a_file_of_torch_is_incomplete_wherever_it_was_cut(torch_file):
    misjudged = []
    for size in truncations(torch_file.stat().st_size):
        os.truncate(torch_file, size)
        if not is_incomplete(torch_file):
            misjudged.append(size)
    assert misjudged == []


def test_a_file_of_torch_that_was_cut_behind_a_zip_within_it_is_incomplete(tmp_path):
    inner = tmp_path / "inner.pt"
    torch.save({"a": torch.ones(2)}, inner)
    path = tmp_path / "pytorch_model.bin"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", b"...")
        archive.write(inner, "archive/inner")
        archive.writestr("archive/more", bytes(100))
    content = path.read_bytes()
    path.write_bytes(content[: content.rindex(b"PK\x05\x06", 0, len(content) - 22) + 22])
    assert zipfile.is_zipfile(path)
    assert is_incomplete(path)


def test_a_zip_that_torch_did_not_write_is_incomplete(tmp_path):
    path = tmp_path / "pytorch_model.bin"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.txt", "text")
    assert is_incomplete(path)


def test_the_format_before_torch_1_6_passes_since_it_has_no_end_to_check(tmp_path):
    path = tmp_path / "pytorch_model.bin"
    torch.save({"a": torch.ones(2)}, path, _use_new_zipfile_serialization=False)
    check_file(path)


@pytest.fixture
def index(tmp_path):
    """An index of two shards."""
    save_file(
        {"a": torch.ones(2), "b": torch.ones(2)}, tmp_path / "model-00001-of-00002.safetensors"
    )
    save_file({"c": torch.ones(2)}, tmp_path / "model-00002-of-00002.safetensors")
    shards = {
        name: f"model-0000{number}-of-00002.safetensors"
        for name, number in (("a", 1), ("b", 1), ("c", 2))
    }
    path = tmp_path / "model.safetensors.index.json"
    path.write_text(json.dumps({"metadata": {"total_size": 24}, "weight_map": shards}))
    return path


def test_an_index_is_complete_with_all_its_shards(index):
    check_file(index)


def test_an_index_without_one_of_its_shards_is_incomplete(index):
    (index.parent / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(CheckpointIncomplete, match=r"model-00002-of-00002\.safetensors"):
        check_file(index)


def test_an_index_with_a_half_written_shard_is_incomplete(index):
    shard = index.parent / "model-00002-of-00002.safetensors"
    os.truncate(shard, shard.stat().st_size - 1)
    with pytest.raises(CheckpointIncomplete, match=r"model-00002-of-00002\.safetensors"):
        check_file(index)


def test_an_index_is_incomplete_when_a_shard_lacks_a_tensor_of_it(index):
    save_file({"a": torch.ones(2)}, index.parent / "model-00001-of-00002.safetensors")
    with pytest.raises(CheckpointIncomplete, match=r"lacks 1 tensors .* 'b'"):
        check_file(index)


def test_an_index_of_files_of_torch_checks_each(tmp_path, torch_file):
    index = tmp_path / "pytorch_model.bin.index.json"
    index.write_text(json.dumps({"weight_map": {"layer.0": torch_file.name}}))
    check_file(index)
    os.truncate(torch_file, 500)
    assert is_incomplete(torch_file)
    with pytest.raises(CheckpointIncomplete):
        check_file(index)


@pytest.mark.parametrize("content", ["", "{", '{"weight_map": {}}', '{"weight_map": 3}', "[]"])
def test_an_index_without_a_map_is_incomplete(tmp_path, content):
    path = tmp_path / "model.safetensors.index.json"
    path.write_text(content)
    assert is_incomplete(path)


@pytest.mark.parametrize("content", ["", '{"a": 1', "\0\0\0\0"])
def test_json_that_does_not_parse_is_incomplete(tmp_path, content):
    path = tmp_path / "config.json"
    path.write_text(content)
    assert is_incomplete(path)


def test_a_file_of_another_kind_passes(tmp_path):
    path = tmp_path / "vocab.txt"
    path.write_text("a\nb\n")
    check_file(path)


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin", "config.json"])
def test_a_file_that_vanished_is_incomplete(tmp_path, name):
    assert is_incomplete(tmp_path / name)
