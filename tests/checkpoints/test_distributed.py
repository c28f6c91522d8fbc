"""Distributed checkpoints of torch: put together, whole or not, and never executed."""

import os
import pickle
import subprocess
import sys
from enum import Enum
from pathlib import Path

import pytest
import torch

from asyncval.checkpoints.completeness import STALE_FACTOR, examine, inventory_of
from asyncval.checkpoints.folder import Folder
from asyncval.checkpoints.metadata import read_metadata
from asyncval.checkpoints.recognition import layout_of, load_checkpoint
from asyncval.core.errors import CheckpointBroken, CheckpointIncomplete, CheckpointUnsupported
from asyncval.core.types import Checkpoint, EncoderOptions
from tests.models import save_distributed, save_huggingface

IDS = torch.tensor([[2, 10, 11, 12, 3], [2, 20, 3, 0, 0]])
MASK = (IDS != 0).long()
TWO_RANKS = """
import sys, torch, torch.distributed as dist
from safetensors.torch import load_file
from torch.distributed.checkpoint.state_dict_saver import save
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import Shard, distribute_tensor

rank, store, source, target = sys.argv[1:]
dist.init_process_group(
    "gloo", init_method=f"file://{store}", rank=int(rank), world_size=2
)
mesh = init_device_mesh("cpu", (2,))
tensors = load_file(source)
sharded = {f"model.{k}": distribute_tensor(v, mesh, [Shard(0)]) for k, v in tensors.items()}
save(sharded, checkpoint_id=target)
dist.destroy_process_group()
"""


def vectors(folder: Path, base: Path | None = None) -> torch.Tensor:
    loaded = load_checkpoint(
        Checkpoint(path=folder, step=1, layout=""),
        EncoderOptions(pooling="mean", base_model=str(base) if base else None),
        device="cpu",
        precision="fp32",
    )
    with torch.inference_mode():
        return loaded.encoder.encode_passages(IDS, MASK)


@pytest.mark.parametrize("place", ["", "pytorch_model_fsdp_0"])
@pytest.mark.parametrize("wrapper", ["", "model.", "model.bert."])
def test_it_gives_the_vectors_of_the_same_weights_in_one_file(tmp_path, place, wrapper):
    plain = save_huggingface(tmp_path / "plain")
    folder = save_distributed(tmp_path / "checkpoint-1", place=place, wrapper=wrapper)
    assert layout_of(Folder.listing(folder)).name == "distributed"
    assert torch.equal(vectors(folder), vectors(plain))


def test_tensors_that_two_ranks_share_are_put_together(tmp_path):
    plain = save_huggingface(tmp_path / "plain")
    folder = save_distributed(tmp_path / "checkpoint-1")
    for path in folder.glob("*.distcp"):
        path.unlink()
    (folder / ".metadata").unlink()
    words = (
        str(tmp_path / "store"),
        str(plain / "model.safetensors"),
        str(folder / "pytorch_model_fsdp_0"),
    )
    ranks = [
        subprocess.Popen([sys.executable, "-c", TWO_RANKS, str(rank), *words]) for rank in (0, 1)
    ]
    assert [rank.wait(timeout=60) for rank in ranks] == [0, 0]
    stored = read_metadata(folder / "pytorch_model_fsdp_0" / ".metadata")
    assert all(len(each.pieces) == 2 for each in stored.values())
    assert torch.equal(vectors(folder), vectors(plain))


def test_configuration_and_tokenizer_may_lie_elsewhere(tmp_path):
    plain = save_huggingface(tmp_path)
    folder = save_distributed(tmp_path / "checkpoint-1")
    for path in folder.glob("*.json"):
        path.unlink()
    assert torch.equal(vectors(folder), vectors(plain))
    (tmp_path / "config.json").unlink()
    with pytest.raises(CheckpointUnsupported, match="--base_model"):
        vectors(folder)
    base = save_huggingface(tmp_path / "elsewhere", seed=9)
    assert torch.equal(vectors(folder, base), vectors(save_huggingface(tmp_path / "plain")))


def test_shards_without_their_metadata_or_shorter_than_it_says_are_not_whole(tmp_path):
    folder = save_distributed(tmp_path / "checkpoint-1")
    [shard] = folder.glob("*.distcp")
    os.truncate(shard, shard.stat().st_size - 1)
    with pytest.raises(CheckpointIncomplete, match="announces"):
        examine(Folder.listing(folder), step=1)
    (folder / ".metadata").unlink()
    with pytest.raises(CheckpointIncomplete, match="written last"):
        examine(Folder.listing(folder), step=1)


def test_shards_newer_than_their_metadata_must_be_quiet_for_longer(tmp_path):
    folder = save_distributed(tmp_path / "checkpoint-1")
    whole = examine(Folder.listing(folder), step=1)
    assert whole.quiet_factor <= 1
    known = inventory_of(whole.model_files)  # which it would not have if it were being deleted
    assert examine(Folder.listing(folder), step=1, inventory=known).quiet_factor == 0
    [shard] = folder.glob("*.distcp")
    later = (folder / ".metadata").stat().st_mtime_ns + 1
    os.utime(shard, ns=(later, later))
    assert examine(Folder.listing(folder), step=1).quiet_factor == STALE_FACTOR


def test_tensors_that_nobody_wrote_are_not_made_up(tmp_path):
    plain = save_huggingface(tmp_path / "plain")
    folder = save_distributed(tmp_path / "checkpoint-1", wrapper="other.")
    vectors(plain)
    with pytest.raises(CheckpointBroken, match="would be random"):
        vectors(folder)


class _Touch:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_a_metadata_that_would_run_something_runs_nothing(tmp_path):
    folder = save_distributed(tmp_path / "checkpoint-1")
    trace = tmp_path / "trace"
    (folder / ".metadata").write_bytes(pickle.dumps(_Touch(trace)))
    with pytest.raises(CheckpointUnsupported, match="no checkpoint needs"):
        examine(Folder.listing(folder), step=1)
    assert not trace.exists()


def _named(text: str) -> bytes:
    return b"\x8c" + bytes([len(text)]) + text.encode()


HOSTILE = {
    "a state for a class": b"\x80\x04cpathlib\nPosixPath\nN}"
    + _named("_str")
    + _named("/x")
    + b"s\x86b.",
    "memory for a reference that is not there": b"\x80\x02Nr\xff\xff\xff\xff.",
    "a key that takes for ever": b"\x80\x04}N\x85" + b"2\x86" * 60 + b"Ns.",
    "bytes that are not there": b"\x80\x05\x96" + b"\xff" * 7 + b"\x00.",
    "an object that is called": b"\x80\x04" + _named("x") + b")R.",
}


@pytest.mark.parametrize("content", HOSTILE.values(), ids=HOSTILE)
def test_a_metadata_that_was_made_to_harm_is_refused_at_once(tmp_path, content):
    folder = save_distributed(tmp_path / "checkpoint-1")
    (folder / ".metadata").write_bytes(content)
    before = str(folder)
    with pytest.raises((CheckpointUnsupported, CheckpointIncomplete)):
        examine(Folder.listing(folder), step=1)
    assert str(folder) == before
    assert str(Path("/a")) == "/a"


def test_it_may_name_members_of_enumerations_as_early_versions_of_python_3_11_do(tmp_path):
    path = save_distributed(tmp_path / "checkpoint-1") / ".metadata"
    before = read_metadata(path)
    content = pickle.loads(path.read_bytes())  # written right here

    class EarlyPickler(pickle.Pickler):
        def reducer_override(self, value):
            if isinstance(value, Enum):
                return getattr, (type(value), value.name)
            return NotImplemented

    with path.open("wb") as file:
        EarlyPickler(file).dump(content)
    assert b"getattr" in path.read_bytes()
    assert read_metadata(path) == before
