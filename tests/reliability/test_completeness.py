"""R1-R5, R22, R27, R28, R30: what is taken for a checkpoint, and when."""

import itertools
import json
import logging
import os
import shutil
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from asyncval.checkpoints.completeness import STALE_FACTOR, examine
from asyncval.checkpoints.folder import Folder, fingerprint
from asyncval.checkpoints.recognition import load_checkpoint
from asyncval.checkpoints.structure import check_file
from asyncval.clock import SystemClock
from asyncval.core.discovery import compile_pattern
from asyncval.core.errors import CheckpointIncomplete
from asyncval.core.types import EncoderOptions
from asyncval.watcher import LOOK_AGAIN_EVERY, Habits
from tests.checkpoints.test_completeness import (
    HUGGINGFACE,
    ORDERS,
    TOKENIZER,
    TRAINING,
    Writer,
    finals,
    is_final,
    replay,
)
from tests.models import HIDDEN
from tests.reliability.saving import order, save

LAST = "all of trainer_state.json"
NOBODY = 65534
has_strace = pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
TICK_SECONDS = 0.02
"""Longer than the steps in which a file system counts time."""


def tick():
    time.sleep(TICK_SECONDS)


def let_time_pass(here):
    """Work for as long as a folder must be quiet where something says that it is not whole."""
    for _ in range(STALE_FACTOR + 2):
        here.work()
        here.clock.time += here.watcher.habits.settle_seconds
    here.work()


# R1


def save_only_model(source):
    return [name for name in HUGGINGFACE if name not in TRAINING[1:]]


def of_two_ranks(source):
    """The other rank makes the folder and is the first to write."""
    (source / "rng_state_1.pth").write_bytes(b"x" * 100)
    return ["rng_state_1.pth", *HUGGINGFACE]


def of_peft(source):
    (source / "config.json").unlink()
    (source / "model.safetensors").unlink()
    place = "base_model.model.encoder.layer.0.attention.self.query"
    tensors = {
        f"{place}.lora_A.weight": torch.randn(2, HIDDEN),
        f"{place}.lora_B.weight": torch.randn(HIDDEN, 2),
    }
    save_file(tensors, source / "adapter_model.safetensors", metadata={"format": "pt"})
    adapter = {
        "peft_type": "LORA",
        "task_type": "FEATURE_EXTRACTION",
        "base_model_name_or_path": "base",
        "r": 2,
        "lora_alpha": 4,
        "target_modules": ["query"],
        "bias": "none",
    }
    (source / "adapter_config.json").write_text(json.dumps(adapter))
    files = ["README.md", "adapter_model.safetensors", "adapter_config.json"]
    return [*files, *TOKENIZER, *TRAINING, "trainer_state.json"]


@pytest.mark.parametrize("aside", [False, True], ids=["in place", "aside"])
@pytest.mark.parametrize("kind", ORDERS)
def test_r01_no_half_written_checkpoint_is_ever_loaded(sources, tmp_path, kind, aside):
    target = tmp_path / "checkpoint-4"
    states = replay(Writer(), sources[kind], ORDERS[kind], target, aside=aside)
    assert_only_the_last_is_final(states, target)


@pytest.mark.parametrize("aside", [False, True], ids=["in place", "aside"])
@pytest.mark.parametrize("variant", [save_only_model, of_two_ranks, of_peft])
def test_r01_nor_is_one_of_another_variant(sources, tmp_path, variant, aside):
    source = shutil.copytree(sources["plain"], tmp_path / "source")
    names, target = variant(source), tmp_path / "checkpoint-4"
    assert_only_the_last_is_final(replay(Writer(), source, names, target, aside=aside), target)


def assert_only_the_last_is_final(states, target):
    seen, final = finals(states, target)
    assert len(seen) > 15
    assert final == seen[-1:] == [LAST]


def test_r01_another_rank_that_comes_late_neither_hastens_nor_harms(sources, tmp_path):
    source = shutil.copytree(sources["plain"], tmp_path / "source")
    names, target = of_two_ranks(source), tmp_path / "checkpoint-4"
    late = [*names[1:], names[0]]
    states, final = finals(replay(Writer(), source, late, target), target)
    assert final
    assert set(final) <= set(states[states.index(LAST) :])


# R2


@pytest.mark.parametrize("kind", ["huggingface", "sharded", "sentence-transformers"])
def test_r02_truncation_is_detected_without_loading(pool, tmp_path, kind):
    target = tmp_path / "checkpoint-4"
    save(pool(1, kind), target, step=4)
    assert is_final(target)
    ends = (".safetensors", ".json")
    names = [name for name in dict.fromkeys(order(pool(1, kind))) if name.endswith(ends)]
    accepted = []
    for name in names:
        path = target / name
        content, stat = path.read_bytes(), path.stat()
        size = len(content.rstrip()) if name.endswith(".json") else len(content)
        for end in sorted({0, 1, 7, 8, 9, size - 1, *range(0, size, max(size // 40, 1))}):
            if end < size:
                path.write_bytes(content[:end])
                os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
                if is_final(target):
                    accepted.append((name, end))
        path.write_bytes(content)
        os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert is_final(target)
    assert accepted == []


def test_r02_truncation_of_a_distributed_checkpoint_is_detected(sources, tmp_path):
    """One shard a rank, then `.metadata`, renamed into place, which has every extent."""
    from torch.distributed.checkpoint.state_dict_saver import save as save_distributed

    target = tmp_path / "checkpoint-4"
    target.mkdir()
    for name in ("config.json", *TOKENIZER):
        shutil.copyfile(sources["plain"] / name, target / name)
    tensors = {f"layer.{i}.weight": torch.randn(8, 8) for i in range(4)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        save_distributed(tensors, checkpoint_id=target)
    metadata = target / ".metadata"
    assert is_final(target, sentinel_name=".metadata")
    accepted = []
    for path in (metadata, target / "__0_0.distcp"):
        content, stat = path.read_bytes(), path.stat()
        for end in sorted({0, 1, len(content) - 1, *range(0, len(content), len(content) // 50)}):
            path.write_bytes(content[:end])
            os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
            if is_final(target, sentinel_name=".metadata"):
                accepted.append((path.name, end))
        path.write_bytes(content)
        os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert accepted == []
    metadata.unlink()
    assert not is_final(target, sentinel_name=".metadata")


@has_strace
def test_r02_looking_at_a_checkpoint_maps_none_of_its_files_into_memory(put, tmp_path):
    path = put(4, "sharded")
    trace = tmp_path / "trace"
    done = subprocess.run(
        [
            *("strace", "-f", "-y", "-e", "trace=mmap,read", "-o", str(trace)),
            *(sys.executable, "-m", "asyncval", "explain", "--json", str(path)),
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(done.stdout)[0]["verdict"] == "complete"
    calls = [line for line in trace.read_text().splitlines() if str(path) in line]
    assert any("read(" in line and "safetensors" in line for line in calls)
    assert [line for line in calls if "mmap(" in line] == []


# R3


def test_r03_files_that_only_look_like_weights_are_rejected(pool, tmp_path):
    whole = (pool(1) / "model.safetensors").read_bytes()
    header = 8 + int.from_bytes(whole[:8], "little")
    crafted = {
        "zero tensors": b"\x02\x00\x00\x00\x00\x00\x00\x00{}",
        "all zero": bytes(len(whole)),
        "excess byte": whole + b"\0",
        "no end": whole[:-1],
    }
    reasons = {}
    for name, content in crafted.items():
        (tmp_path / "model.safetensors").write_bytes(content)
        with pytest.raises(CheckpointIncomplete) as caught:
            check_file(tmp_path / "model.safetensors")
        reasons[name] = str(caught.value)
    assert len(set(reasons.values())) == len(crafted), reasons
    sparse = tmp_path / "sparse" / "model.safetensors"
    sparse.parent.mkdir()
    size = header + (1 << 20)
    table = {"a": {"dtype": "U8", "shape": [1 << 20], "data_offsets": [0, 1 << 20]}}
    text = json.dumps(table).ljust(header - 8).encode()
    sparse.write_bytes(len(text).to_bytes(8, "little") + text)
    os.truncate(sparse, 8 + len(text) + (1 << 20))
    assert sparse.stat().st_size == size
    with sparse.open("rb") as file:
        if os.lseek(file.fileno(), 0, os.SEEK_HOLE) == size:
            pytest.skip("this file system does not know holes")
    with pytest.raises(CheckpointIncomplete, match="never written"):
        check_file(sparse)


# R4


def test_r04_a_mixture_of_two_saves_is_not_validated(put, pool, station):
    path = put(4, "sharded")
    shards = sorted(path.glob("model-*.safetensors"))
    assert len(shards) >= 4
    here = station()
    here.work()
    assert here.states() == [("checkpoint-4", "done")]
    tick()
    shutil.copyfile(pool(5, "sharded") / shards[0].name, shards[0])
    for _ in range(5):
        here.work()
        here.clock.time += here.watcher.habits.settle_seconds
    assert here.states() == [("checkpoint-4", "done")]
    assert "newer than trainer_state.json" in here.watcher.waiting["checkpoint-4"]
    for shard in shards[1:]:
        shutil.copyfile(pool(5, "sharded") / shard.name, shard)
    tick()
    (path / "trainer_state.json").write_text('{"global_step": 4, "again": true}')
    here.work()
    assert here.states() == [("checkpoint-4", "done")] * 2
    first, second = here.rows()
    assert first.checkpoint.fingerprint != second.checkpoint.fingerprint
    assert first.result.metrics != second.result.metrics


def half_resaved(put, pool):
    """A checkpoint one of whose shards is of another save, after the trainer's last file."""
    path = put(4, "sharded")
    tick()
    shard = min(path.glob("model-*.safetensors"))
    shutil.copyfile(pool(5, "sharded") / shard.name, shard)
    return path


def test_r04_a_mixture_that_is_there_at_the_end_is_broken(put, pool, station):
    half_resaved(put, pool)
    here = station(clock=SystemClock(), settle=0.2)
    assert here.run_until_done() == 4
    [row] = here.rows()
    assert row.state == "broken"
    assert "newer than trainer_state.json" in row.reason


def test_r04_what_stays_newer_than_its_sentinel_is_taken_with_that_reason(put, pool, station):
    half_resaved(put, pool)
    here = station()
    let_time_pass(here)
    [row] = here.rows()
    assert row.state == "done"
    assert "newer than trainer_state.json" in row.reason


def test_r04_less_than_the_checkpoint_before_it_has_may_be_what_is_left_of_one(put, station):
    kind = "sentence-transformers"
    put(1, kind)
    station().work()
    again = station()  # which knows the first one by its folder
    name = "config_sentence_transformers.json"
    path = put(2, kind)
    tick()
    (path / name).unlink()
    again.work()
    again.clock.time += 2 * again.watcher.habits.settle_seconds
    again.work()
    assert again.states() == [("checkpoint-1", "done")]
    assert f"lacks {name}" in again.watcher.waiting["checkpoint-2"]
    let_time_pass(again)
    assert again.states()[-1] == ("checkpoint-2", "done")
    assert f"lacks {name}" in again.rows()[-1].reason


def test_r04_after_a_restart_the_last_checkpoint_says_what_one_has(put, station):
    kind = "sentence-transformers"
    name = "config_sentence_transformers.json"
    put(1, kind)
    for step in (2, 3):
        if step == 3:
            before = station()
            before.work()
            let_time_pass(before)
        path = put(step, kind)
        tick()
        (path / name).unlink()
    again = station()
    again.daemon._take_up()
    again.work()
    again.clock.time += 2 * again.watcher.habits.settle_seconds
    again.work()
    assert again.states() == [(f"checkpoint-{step}", "done") for step in (1, 2, 3)]
    assert again.rows()[-1].reason == ""


def test_r04_what_lacks_a_file_at_the_end_is_failed_until_it_was_quiet_for_long(put, station):
    kind = "sentence-transformers"
    here = station(clock=SystemClock(), settle=0.2)
    put(1, kind)
    path = put(2, kind)
    tick()
    (path / "config_sentence_transformers.json").unlink()
    assert here.run_until_done() == 4
    assert here.states() == [("checkpoint-1", "done"), ("checkpoint-2", "failed")]
    assert "lacks" in here.rows()[-1].reason
    again = station()
    again.daemon._take_up()
    let_time_pass(again)
    assert again.states()[-1] == ("checkpoint-2", "done")
    assert "lacks" in again.rows()[-1].reason


def test_what_never_had_a_file_is_taken_at_once_though_the_one_before_had_it(put, pool, station):
    kind = "sentence-transformers"
    put(1, kind)
    here = station()
    here.work()
    put(2, kind)
    path = here.root / "checkpoint-3"
    for name in order(pool(3, kind)):
        if name != "config_sentence_transformers.json":
            (path / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(pool(3, kind) / name, path / name)
    tick()
    (path / "trainer_state.json").write_text('{"global_step": 3}')
    here.work()
    assert here.states() == [(f"checkpoint-{step}", "done") for step in (1, 2, 3)]
    assert here.rows()[-1].reason == ""


# R5


def test_r05_signs_of_a_save_that_goes_on_block_and_an_orphan_does_not(put, station):
    said = put(1)
    (said / "checkpoint-is-incomplete.txt").write_text("")
    fresh = put(2)
    tick()
    (fresh / ".tmpAbCdEf").write_bytes(b"half")
    orphaned = put(3)
    (orphaned / ".tmpAbCdEf").write_bytes(b"half")
    os.utime(orphaned / ".tmpAbCdEf", ns=(0, 0))
    os.utime(orphaned, ns=(0, 0))
    here = station()
    here.work()
    here.clock.time += 2 * here.watcher.habits.settle_seconds
    here.work()
    assert here.states() == [("checkpoint-3", "done")]
    assert "checkpoint-is-incomplete.txt" in here.watcher.waiting["checkpoint-1"]
    assert ".tmpAbCdEf" in here.watcher.waiting["checkpoint-2"]
    (said / "checkpoint-is-incomplete.txt").unlink()
    (fresh / ".tmpAbCdEf").unlink()
    for _ in range(2):
        here.work()
        here.clock.time += 2 * here.watcher.habits.settle_seconds
    assert here.states() == [(f"checkpoint-{step}", "done") for step in (1, 2, 3)]


# R22


def without_weights(path):
    (path / "model.safetensors").unlink()
    (path / "trainer_state.json").unlink()


def with_an_empty_sentinel(path):
    (path / "trainer_state.json").write_text("")


@pytest.mark.parametrize("harm", [without_weights, with_an_empty_sentinel])
def test_r22_what_never_completes_ends_as_broken_and_is_revived(put, station, harm, caplog):
    harm(put(1))
    here = station()
    here.work()
    assert here.states() == []
    let_time_pass(here)
    assert here.states() == [("checkpoint-1", "broken")]
    [row] = here.rows()
    assert ("weights" in row.reason) or ("trainer_state.json" in row.reason)
    here.clock.time += 1000
    here.work()
    assert len(here.rows()) == 1
    caplog.clear()
    again = station()  # a restart looks at it anew, and does not tell it once more
    let_time_pass(again)
    assert again.rows() == [row]
    assert "checkpoint-1" not in caplog.text
    tick()
    put(1)
    again.work()
    assert again.states()[-1] == ("checkpoint-1", "done")
    assert all(each.state in ("done", "superseded") for each in again.rows())


def test_r22_what_becomes_whole_by_losing_a_file_is_taken(put, station):
    path = put(1)
    (path / "checkpoint-is-incomplete.txt").touch()
    here = station()
    let_time_pass(here)
    assert here.states() == [("checkpoint-1", "broken")]
    (path / "checkpoint-is-incomplete.txt").unlink()
    let_time_pass(here)
    assert here.states()[-1] == ("checkpoint-1", "done")


# R27


def test_r27_odd_names_do_not_break_it(put, station, caplog):
    here = station()
    here.root.mkdir()
    odd = ("checkpoint-foo", "checkpoint-10.pin", "tmp-checkpoint-5", "checkpoint-", "checkpoint-٣")
    for name in odd:
        shutil.copytree(put(8), here.root / name)
    shutil.rmtree(here.root / "checkpoint-8")
    (here.root / "checkpoint-3").write_text("a file")
    (here.root / os.fsdecode(b"checkpoint-\xff\xfe")).mkdir()
    (here.root / "line\nbreak-5").mkdir()
    shutil.copytree(put(6), here.root / "checkpoint-007")
    (here.root / "checkpoint-007" / "trainer_state.json").write_text('{"global_step": 7}')
    (here.root / "checkpoint-6" / os.fsdecode(b"notes-\xff.txt")).write_text("")
    (here.root / "checkpoint-6" / "trainer_state.json").write_text('{"global_step": 6}')
    with caplog.at_level(logging.DEBUG):
        for _ in range(3):
            here.work()
            here.clock.time += 1000
    assert here.states() == [("checkpoint-6", "done"), ("checkpoint-007", "done")]
    assert [each.checkpoint.step for each in here.rows()] == [6, 7]
    for name in odd[:3]:
        assert caplog.text.count(name) <= 1, name


def test_r27_a_name_that_is_no_text_does_not_end_the_daemon(put, pool, station):
    """A pattern of the user's may match what a record cannot hold."""
    habits = Habits(pattern=compile_pattern(r"(?s).*-(\d+)"), settle_seconds=5.0)
    put(6)
    here = station(habits=habits)
    shutil.copytree(pool(5), here.root / os.fsdecode(b"caf\xe9-5"))
    for _ in range(3):
        here.work()
        here.clock.time += 1000
    assert ("checkpoint-6", "done") in here.states()


# R28


@contextmanager
def without_privileges() -> Iterator[None]:
    """Be nobody for a while where the tests run as root, who may read everything."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.fixture
def place_for_nobody(tmp_path_factory):
    """A folder that everybody may reach and write."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o777)
        yield Path(name)


def save_for_everybody(source: Path, path: Path) -> None:
    save(source, path, step=1)
    for each in (path.parent, path, *path.rglob("*")):
        each.chmod(0o755)


@pytest.mark.parametrize("what", ["model.safetensors", ""], ids=["a file", "the folder"])
def test_r28_what_may_not_be_read_is_diagnosed_and_revived(pool, place_for_nobody, station, what):
    path = place_for_nobody / "training" / "checkpoint-1"
    save_for_everybody(pool(1), path)
    (path / what).chmod(0)
    with without_privileges():
        here = station(place_for_nobody)
        for _ in range(3):
            here.work()
            here.clock.time += 100
        assert here.states() == [("checkpoint-1", "blocked")]
        [row] = here.rows()
        assert "permission denied" in row.reason
        assert "as the trainer's user" in row.reason
        here.ledger.close()
    (path / what).chmod(0o755)
    with without_privileges():
        again = station(place_for_nobody)  # a restart may lie in between
        again.run_until_done()
        assert [each for each in again.states() if each[1] != "superseded"] == [
            ("checkpoint-1", "done")
        ]
        assert [each.name for each in place_for_nobody.rglob("*.partial")] == []
        again.ledger.close()


def test_r28_another_users_folder_beside_the_checkpoints_hides_none_of_them(
    pool, place_for_nobody, station
):
    """As `lost+found` at the top of a file system."""
    path = place_for_nobody / "training" / "checkpoint-1"
    save_for_everybody(pool(1), path)
    (path.parent / "lost+found").mkdir(mode=0o700)
    with without_privileges():
        here = station(place_for_nobody)
        here.work()
        assert here.states() == [("checkpoint-1", "done")]
        here.ledger.close()


def test_r28_a_checkpoint_is_revived_by_the_daemon_that_was_refused(
    pool, place_for_nobody, station
):
    path = place_for_nobody / "training" / "checkpoint-1"
    save_for_everybody(pool(1), path)
    (path / "model.safetensors").chmod(0)
    with without_privileges():
        here = station(place_for_nobody)
        here.work()
        assert here.states() == [("checkpoint-1", "blocked")]
    (path / "model.safetensors").chmod(0o644)
    with without_privileges():
        here.work()
        states = [state for _, state in here.states()]
        assert states.count("done") == 1
        assert set(states) <= {"done", "superseded"}


def test_r28_a_result_stays_when_its_folder_could_not_be_read_for_a_while(
    pool, place_for_nobody, station
):
    path = place_for_nobody / "training" / "checkpoint-1"
    save_for_everybody(pool(1), path)
    with without_privileges():
        here = station(place_for_nobody)
        here.work()
    path.chmod(0)
    os.utime(path)
    with without_privileges():
        for _ in range(LOOK_AGAIN_EVERY):
            here.work()
        assert sorted(here.states()) == [("checkpoint-1", "blocked"), ("checkpoint-1", "done")]
    path.chmod(0o755)
    with without_privileges():
        here.work()
        assert here.states() == [("checkpoint-1", "done"), ("checkpoint-1", "superseded")]
        assert here.watcher.waiting == {}
        assert len(here.executor.served) == 1


# R30


@pytest.mark.parametrize("keeps_times", [True, False], ids=["rsync -a", "cp -r"])
def test_r30_a_tree_that_is_copied_is_validated_once_and_whole(
    pool, station, tmp_path, keeps_times
):
    """File by file, folders after files, the sentinel long before the dense layer."""
    source = pool(30, "sentence-transformers")
    os.utime(source / "trainer_state.json")  # written last, as its trainer did
    files = [path.relative_to(source).as_posix() for path in source.rglob("*") if path.is_file()]
    files.sort(key=lambda name: ("/" in name, name))
    assert files.index("trainer_state.json") < files.index("2_Dense/model.safetensors")
    here = station(settle=0.5)
    target = here.root / "checkpoint-30"
    for name in files:
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        (shutil.copy2 if keeps_times else shutil.copyfile)(source / name, target / name)
        here.work()
        here.clock.time += 0.2
        here.work()
        assert here.rows() == []
        tick()
    if keeps_times:  # rsync gives folders their times at the end
        for each in (*target.glob("*_*/"), target):
            shutil.copystat(source / each.relative_to(target), each)
    for _ in range(STALE_FACTOR + 2):
        here.work()
        here.clock.time += 0.5
    assert here.states() == [("checkpoint-30", "done")]
    [row] = here.rows()
    assert row.checkpoint.layout == "sentence-transformers"
    names = examine(Folder.listing(source), step=30).model_files
    assert row.checkpoint.fingerprint == fingerprint(source, names)
    assert bool(row.reason) is not keeps_times  # copies that are newer than the sentinel
    copy = replace(row.checkpoint, pin=None)
    loaded = load_checkpoint(copy, EncoderOptions(), device="cpu", precision="fp32")
    ids = torch.tensor([[2, 7, 3]])
    vectors = loaded.encoder.encode_passages(ids, torch.ones_like(ids))
    assert vectors.shape == (1, 8)  # the dense layer's
    assert torch.linalg.vector_norm(vectors).item() == pytest.approx(1.0)  # the normalisation's


# The tests' own tools


def test_the_order_of_saving_is_that_of_the_trainers(pool):
    for kind in ("huggingface", "sharded", "sentence-transformers"):
        names = order(pool(1, kind))
        assert names[-1] == "trainer_state.json"
        weights = [name for name in names if name.endswith(".safetensors")]
        assert weights
        assert names.index("training_args.bin") > max(map(names.index, weights))
    pairs = itertools.pairwise(order(pool(1, "sharded")))
    assert ("model-00004-of-00004.safetensors", "model.safetensors.index.json") in pairs


def test_a_station_is_the_daemon(put, station):
    """What the tests of this folder run in their own process ends as the real one does."""
    put(1)
    here = station(clock=SystemClock(), settle=0.1, idle_timeout=0.2)
    assert here.run() == 0
    assert here.states() == [("checkpoint-1", "done")]
    assert not here.pins.root.exists()
