"""R8-R12, R26: checkpoints are kept readable, and nothing but what was kept is evaluated."""

import errno
import fcntl
import json
import os
import random
import shutil
import signal
import struct
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from asyncval.checkpoints.completeness import examine
from asyncval.checkpoints.folder import Folder, fingerprint
from asyncval.checkpoints.pins import MARK, PinStore
from asyncval.clock import SystemClock
from asyncval.core.errors import CheckpointIncomplete, InvalidOption
from asyncval.core.types import MAIN, Result
from asyncval.watcher import Habits, Watcher, known_states
from tests.e2e.conftest import PATIENCE_SECONDS
from tests.e2e.test_watch import events
from tests.reliability.light_worker import metrics_of
from tests.reliability.saving import SENTINEL, save
from tests.reliability.station import ANCHOR, PLAN
from tests.reliability.test_watching import wait_until_it_scans

NOT_NEEDED = ("optimizer*", "scheduler*", "scaler*", "rng_state*", "training_args*", "global_step*")


def model_files(path):
    """The files that the evaluation of a plain checkpoint needs."""
    names = [each.name for each in path.iterdir()]
    return sorted(name for name in names if "token" in name or name in NEEDED)


NEEDED = ("config.json", "model.safetensors")


# R8


def hunt(source: Path, place: Path, *, seed: int) -> list[tuple[list[str], bool]]:
    """Let a watcher meet a checkpoint that is being deleted, and knows another one of the run.

    Return what each pin has, and whether the deletion had begun when it was finished.
    """
    draw = random.Random(seed)
    root = place / "training"
    watcher = Watcher(
        root=root,
        habits=Habits(settle_seconds=0.3),
        pins=PinStore(place / "pins", method="hardlink"),
        clock=SystemClock(),
    )
    save(source, root / "checkpoint-1", step=1)
    assert len(list(watcher.scan())) == 1
    save(source, root / "checkpoint-2", step=2)
    paths = [root / "checkpoint-2" / name for name in all_files(root / "checkpoint-2")]
    draw.shuffle(paths)
    gaps = [draw.uniform(0, 0.01) for _ in paths]
    lead = draw.uniform(-0.03, 0.03)
    begun = threading.Event()

    def unlink_all() -> None:
        time.sleep(0.02 + max(lead, 0))  # in the tick of the last write it cannot be told from it
        begun.set()
        for path, gap in zip(paths, gaps, strict=True):
            path.unlink()
            time.sleep(gap)
        shutil.rmtree(root / "checkpoint-2")

    deleter = threading.Thread(target=unlink_all)
    deleter.start()
    time.sleep(0.02 + max(-lead, 0))
    pins = []
    is_alive = True
    while is_alive:
        is_alive = deleter.is_alive()
        pins += [(found.checkpoint.pin, begun.is_set()) for found in watcher.scan()]
    deleter.join()
    return [(all_files(pin), amid) for pin, amid in pins if pin is not None]


def all_files(path):
    return sorted(str(each.relative_to(path)) for each in path.rglob("*") if each.is_file())


def test_r08_a_pin_is_complete_or_absent(pool, tmp_path):
    whole = {
        kind: sorted(examine(Folder.listing(pool(1, kind)), step=1).model_files)
        for kind in ("huggingface", "sentence-transformers")
    }
    assert whole["huggingface"] == model_files(pool(1))
    dense = {"modules.json", "1_Pooling/config.json", "2_Dense/model.safetensors"}
    assert set(whole["sentence-transformers"]) > dense | set(whole["huggingface"])
    with ThreadPoolExecutor(4) as threads:
        hunts = [
            (kind, threads.submit(hunt, pool(1, kind), tmp_path / f"{kind}-{seed}", seed=seed))
            for seed in range(100)
            for kind in whole
        ]
    pins = [(kind, *pin) for kind, each in hunts for pin in each.result()]
    assert len(pins) >= 25  # else nothing was tried: mostly they are 54 to 83, and 9 to 22
    assert sum(amid for _, _, amid in pins) >= 3
    assert [(kind, names) for kind, names, _ in pins if names != whole[kind]] == []
    assert not list(tmp_path.glob("*/pins/*.partial"))


def test_r08_a_deletion_that_begins_while_the_folder_is_listed_is_noticed(
    put, station, monkeypatch
):
    """A file that is not always there, as the tokenizer, goes between two looks at the folder."""
    path = put(1)
    time.sleep(0.02)
    real = os.scandir

    def scandir(place):
        if place == path:
            (path / "tokenizer.json").unlink(missing_ok=True)
        return real(place)

    monkeypatch.setattr(os, "scandir", scandir)
    here = station()
    here.work()
    assert here.states() == []


# R9


def test_r09_the_watched_tree_is_not_touched_and_rotation_keeps_its_order(put, station, tmp_path):
    for step in (100, 200, 300):
        put(step)
        time.sleep(0.02)
    root = tmp_path / "training"
    for place, step in enumerate((100, 200, 300)):  # rotation goes by these times
        os.utime(root / f"checkpoint-{step}", (place * 10.0, place * 10.0))

    def state() -> list[tuple[str, int, int, int]]:
        paths = [root, *sorted(root.rglob("*"))]
        stats = [(path, path.stat()) for path in paths]
        return [(str(p), s.st_mtime_ns, s.st_size, s.st_ino) for p, s in stats]

    before = state()
    here = station(pin="hardlink")
    here.run_until_done()
    assert [each for _, each in here.states()] == ["done"] * 3
    assert state() == before
    from transformers.trainer_utils import rotate_checkpoints

    rotate_checkpoints(str(root), save_total_limit=2, use_mtime=True)
    assert sorted(path.name for path in root.iterdir()) == ["checkpoint-200", "checkpoint-300"]


# R10


def refusing(number):
    def link(*arguments, **options):
        raise OSError(number, os.strerror(number))

    return link


@pytest.mark.parametrize("number", [errno.EXDEV, errno.EPERM, errno.EOPNOTSUPP, errno.EMLINK])
def test_r10_where_linking_does_not_work_files_are_copied(put, station, monkeypatch, number):
    path = put(1)
    monkeypatch.setattr(os, "link", refusing(number))
    read = []

    def evaluate(job):
        read.append((job.checkpoint.location, inodes(job.checkpoint.location)))
        return {"RR@10": 0.5}

    here = station(evaluate=evaluate)
    here.work()
    [(location, pinned)] = read
    assert location != path
    assert location.is_relative_to(here.pins.root)
    assert not pinned & inodes(path)
    assert here.states() == [("checkpoint-1", "done")]


def inodes(path):
    return {each.stat().st_ino for each in path.iterdir()}


def test_r10_pins_on_another_file_system_are_copies(put, station):
    shared_memory = Path("/dev/shm")
    path = put(1)
    if not shared_memory.is_dir() or shared_memory.stat().st_dev == path.stat().st_dev:
        pytest.skip("there is no second file system")
    pins = shared_memory / f"asyncval-test-{os.getpid()}"
    try:
        here = station(pins=pins)
        here.look()
        [row] = here.rows()
        pin = row.checkpoint.pin
        assert pin is not None
        assert pin.is_relative_to(pins)
        assert fingerprint(pin, model_files(pin)) == row.checkpoint.fingerprint
        shutil.rmtree(path)
        here.work()
        assert here.states() == [("checkpoint-1", "done")]
        assert not any(pins.iterdir())
        again = station(pins=pins, pin="hardlink")
        put(2)
        with pytest.raises(InvalidOption, match="--pin hardlink does not work between"):
            again.look()
        assert again.executor.served == []
    finally:
        shutil.rmtree(pins, ignore_errors=True)


FIEMAP, FLAGS_AT, IS_SHARED = 0xC020660B, 72, 0x2000  # of linux/fiemap.h


def shares_its_blocks(path):
    request = bytearray(struct.pack("=QQ4L56x", 0, 2**64 - 1, 1, 0, 1, 0))  # the first extent
    with path.open("rb") as file:
        fcntl.ioctl(file, FIEMAP, request)
    return bool(struct.unpack_from("=L", request, FLAGS_AT)[0] & IS_SHARED)


@pytest.fixture(scope="module")
def cloning(tmp_path_factory):
    """A file system of its own that can clone files."""
    make = shutil.which("mkfs.xfs") or shutil.which("mkfs.btrfs")
    if os.geteuid() != 0 or make is None or shutil.which("mount") is None:
        pytest.skip("mounting a file system with reflinks needs root, and mkfs.xfs or mkfs.btrfs")
    folder = tmp_path_factory.mktemp("cloning")
    image, place = folder / "image", folder / "mounted"
    with image.open("wb") as file:
        file.truncate(320 << 20)
    place.mkdir()
    subprocess.run([make, "-q", image], check=True)
    mounted = subprocess.run(
        ["mount", "-o", "loop", image, place], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"no loop mounts here: {mounted.stderr.decode().strip()}")
    try:
        yield place
    finally:
        subprocess.run(["umount", "--lazy", place], check=True)
        image.unlink()


@pytest.mark.parametrize("method", ["auto", "reflink"])
def test_r10_where_files_can_be_cloned_a_pin_shares_their_blocks_and_no_later_write(
    cloning, pool, method
):
    path = cloning / method / "checkpoint-1"
    save(pool(1), path, step=1)
    names = model_files(path)
    store = PinStore(cloning / method / "pins", method=method)
    pin = store.pin(Folder.listing(path), names, key="key")
    assert sorted(Folder.listing(pin.path).files) == names
    assert not inodes(pin.path) & inodes(path)
    assert shares_its_blocks(pin.path / "model.safetensors")
    with (path / "model.safetensors").open("r+b") as file:
        file.write((pool(2) / "model.safetensors").read_bytes())
    assert fingerprint(path, names) != fingerprint(pool(1), names)
    assert fingerprint(pin.path, names) == fingerprint(pool(1), names)
    shutil.rmtree(path)
    assert fingerprint(pin.path, names) == fingerprint(pool(1), names)
    assert store.is_unchanged(pin)


# R11: also with real processes, in test_evaluation.py


@pytest.mark.parametrize("pin", ["hardlink", "none"])
def test_r11_what_was_rewritten_in_place_while_it_was_evaluated_is_void(put, pool, station, pin):
    path = put(1)
    other = (pool(2) / "model.safetensors").read_bytes()
    here = station(pin=pin, settle=0.0)
    evaluate = here.executor.evaluate

    def rewrite_meanwhile(job):
        metrics = evaluate(job)
        if len(here.executor.served) == 1:
            time.sleep(0.02)
            (path / "model.safetensors").write_bytes(other)
            (path / SENTINEL).write_text('{"global_step": 1}')
        return metrics

    here.executor.evaluate = rewrite_meanwhile
    here.work()
    assert [state for _, state in here.states()] == ["superseded", "done"]
    first, second = here.rows()
    assert first.result is None
    assert "rewritten" in first.reason
    if pin == "hardlink":  # without a pin the folder holds more than the model
        assert second.result.metrics == metrics_of(second.checkpoint.fingerprint)


def test_r11_what_is_rewritten_in_place_while_later_files_are_linked_is_not_pinned(
    put, pool, tmp_path, monkeypatch
):
    path = put(1)
    first = path / "model.safetensors"
    names = [first.name, "config.json", "tokenizer.json"]
    other = (pool(2) / first.name).read_bytes()
    assert len(other) == first.stat().st_size
    listing = Folder.listing(path)
    link = os.link

    def link_and_rewrite(source, target):
        link(source, target)
        if target.name == names[-1]:
            time.sleep(0.02)
            with first.open("r+b") as file:
                file.write(other)

    monkeypatch.setattr(os, "link", link_and_rewrite)
    store = PinStore(tmp_path / "pins", method="hardlink")
    with pytest.raises(CheckpointIncomplete):
        store.pin(listing, names, key="key")
    assert first.read_bytes() == other
    assert first.stat().st_ino == listing.files[first.name].inode
    assert not any(store.root.iterdir())


@pytest.mark.parametrize("pin", ["auto", "hardlink", "copy"])
def test_r11_what_was_rewritten_in_place_while_it_waited_is_void_or_was_kept(
    put, pool, station, pin
):
    path = put(1)
    here = station(pin=pin, settle=0.0)
    here.look()
    [queued] = here.rows()
    time.sleep(0.02)
    with (path / "model.safetensors").open("r+b") as file:
        file.write((pool(2) / "model.safetensors").read_bytes())
    here.work()  # a half-way state: its sentinel is older
    (path / SENTINEL).write_text('{"global_step": 1}')
    here.work()
    for each in here.rows():
        if each.result is not None:
            assert each.result.metrics == metrics_of(each.checkpoint.fingerprint)
    assert here.states()[-1] == ("checkpoint-1", "done")
    if pin == "copy":
        assert here.rows()[0].checkpoint.fingerprint == queued.checkpoint.fingerprint


@pytest.mark.parametrize("pin", ["hardlink", "copy"])
def test_r11_what_was_saved_again_while_it_was_evaluated_is_not_lost_with_its_folder(
    pool, station, pin
):
    """The same content, over the files that the first pin shares, and gone before the end."""
    here = station(pin=pin, settle=0.0)
    target = here.root / "checkpoint-1"
    save(pool(1), target, step=1)
    evaluate = here.executor.evaluate

    def save_again_meanwhile(job):
        metrics = evaluate(job)
        if len(here.executor.served) == 1:
            time.sleep(0.02)
            save(pool(1), target, step=1)
            here.look()
            here.daemon._clean_pins()
            assert job.checkpoint.location.is_dir()
            shutil.rmtree(target)
        return metrics

    here.executor.evaluate = save_again_meanwhile
    here.work()
    here.work()
    [row] = here.rows()
    assert (row.state, row.reason) == ("done", "")
    assert row.result.metrics == metrics_of(row.checkpoint.fingerprint)
    assert len(here.executor.served) == {"hardlink": 2, "copy": 1}[pin]
    assert not (here.output / "pins").exists() or not any((here.output / "pins").iterdir())


@pytest.mark.parametrize("pin", ["hardlink", "copy"])
def test_r11_what_was_saved_again_while_it_waited_is_evaluated_as_it_was_kept_last(
    pool, station, pin
):
    here = station(pin=pin, settle=0.0)
    target = here.root / "checkpoint-1"
    save(pool(1), target, step=1)
    here.look()
    time.sleep(0.02)
    save(pool(1), target, step=1)
    here.look()
    shutil.rmtree(target)
    here.work()
    assert here.states() == [("checkpoint-1", "done")]
    assert len(here.executor.served) == 1


def test_r11_what_was_saved_again_while_its_anchor_was_evaluated_is_anchored(pool, station):
    """The main validation is done by then; the folder, and what the pin shared, is gone."""
    here = station(pin="hardlink", settle=0.0, with_anchor=True)
    target = here.root / "checkpoint-1"
    save(pool(1), target, step=1)
    evaluate = here.executor.evaluate

    def save_again_meanwhile(job):
        metrics = evaluate(job)
        if len(here.executor.served) == 2:
            assert job.lane == ANCHOR
            time.sleep(0.02)
            save(pool(1), target, step=1)
            here.look()
            shutil.rmtree(target)
        return metrics

    here.executor.evaluate = save_again_meanwhile
    here.work()
    here.work()
    assert here.states() == [("checkpoint-1", "done")]
    [anchored] = here.anchor.validations(plan=PLAN)
    assert (anchored.state, anchored.reason) == ("done", "")
    assert [job.lane for job in here.executor.served] == [MAIN, ANCHOR, ANCHOR]


def test_r11_a_pin_that_is_made_again_is_not_taken_from_who_reads_it(put, station):
    """A hard link to the same file is the same pin."""
    put(1)
    here = station(pin="hardlink")
    here.look()
    [row] = here.rows()
    descriptor = os.open(row.checkpoint.pin, os.O_RDONLY)
    try:
        here.daemon._lookout.forget("checkpoint-1")
        here.look()
        assert os.listdir(descriptor)  # noqa: PTH208  # of a folder that was removed it is empty
    finally:
        os.close(descriptor)
    assert here.rows()[0].checkpoint.pin == row.checkpoint.pin


# R12


def test_r12_content_that_comes_back_has_its_result_again(pool, station):
    here = station()
    target = here.root / "checkpoint-1"
    for seed in (1, 2, 1):
        save(pool(seed), target, step=1)
        here.work()
    assert len(here.executor.served) == 2
    [shown] = (here.output / "results.jsonl").read_text().splitlines()
    first = here.executor.served[0].checkpoint
    assert json.loads(shown)["fingerprint"] == first.fingerprint
    [(step, value)] = events(here.output.parent / "tb" / "asyncval")["eval/RR@10"]
    assert step == 1
    assert value == np.float32(metrics_of(first.fingerprint)["RR@10"])


def test_r12_the_same_bytes_are_validated_once_and_new_bytes_again(pool, station):
    """The last step is saved twice, some milliseconds apart, without a `trainer_state.json`."""
    here = station()
    target = here.root / "500"
    for _ in range(2):
        save(pool(1, "sentence-transformers"), target, step=500)
        (target / SENTINEL).unlink()
        here.work()
        time.sleep(0.005)
    for _ in range(3):
        here.clock.time += 5
        here.work()
    assert here.states() == [("500", "done")]
    for _ in range(2):  # identical bytes, much later
        save(pool(1, "sentence-transformers"), target, step=500)
        (target / SENTINEL).unlink()
        for _ in range(3):
            here.work()
            here.clock.time += 5
    assert here.states() == [("500", "done")]
    assert len(here.executor.served) == 1
    save(pool(2, "sentence-transformers"), target, step=500)
    (target / SENTINEL).unlink()
    for _ in range(3):
        here.work()
        here.clock.time += 5
    assert here.states() == [("500", "done")] * 2
    assert len({each.checkpoint.fingerprint for each in here.rows()}) == 2
    assert len(here.executor.served) == 2
    assert not any(here.pins.root.iterdir())


# R6 and R7, where the moment matters; with real processes in test_watching.py


@pytest.mark.parametrize("restarted", [False, True])
def test_r06_a_deletion_that_is_seen_half_way_takes_nothing_from_the_queue(put, station, restarted):
    path = put(1)
    here = station()
    here.look()
    assert here.states() == [("checkpoint-1", "queued")]
    if restarted:
        here = station()
        states = here.ledger.folder_states(plan="plan")
        here.watcher.reported.update(known_states(states, here.root))
    files = sorted(path.iterdir())
    for each in files[: len(files) // 2]:
        each.unlink()
    here.look()
    for each in files[len(files) // 2 :]:
        each.unlink()
    here.look()
    path.rmdir()
    here.look()
    here.work()
    assert here.states() == [("checkpoint-1", "done")]


def test_r06_remains_of_a_deleted_checkpoint_are_not_called_broken(put, station):
    """As a file system of the network leaves, where somebody reads what is deleted."""
    path = put(1)
    here = station()
    here.work()
    for each in path.iterdir():
        if each.name != "optimizer.pt":
            each.unlink()
    for _ in range(20):
        here.work()
        here.clock.time += 100
    assert here.states() == [("checkpoint-1", "done")]


# R26


def test_r26_pins_hold_the_model_alone_and_are_bounded(put, station):
    for step in (1, 2, 3, 4):
        path = put(step)
        for name in ("scaler.pt", "rng_state_0.pth", "optimizer.bin"):
            (path / name).write_bytes(b"x" * 100_000)
        (path / "global_step7").mkdir()
        (path / "global_step7" / "bf16_zero_pp_rank_0_optim_states.pt").write_bytes(b"x" * 100_000)
        (path / SENTINEL).write_text(f'{{"global_step": {step}}}')
    size = sum((path / name).stat().st_size for name in model_files(path))
    here = station(max_pinned_bytes=int(2.5 * size))
    here.executor.evaluate = lambda job: check_pin(job, here) or {"RR@10": job.checkpoint.step / 10}
    most = 0

    def check_pin(job, here):
        nonlocal most
        pins = list(here.pins.root.iterdir())
        most = max(most, sum(f.stat().st_size for f in here.pins.root.rglob("*") if f.is_file()))
        assert job.checkpoint.pin in pins
        for pin in pins:
            assert model_files(pin) == sorted(Folder.listing(pin).files)
            assert not [each for pattern in NOT_NEEDED for each in pin.rglob(pattern)]

    here.work()
    states = here.states()
    assert states == [
        ("checkpoint-1", "skipped"),
        ("checkpoint-2", "skipped"),
        ("checkpoint-3", "done"),
        ("checkpoint-4", "done"),
    ]
    assert 0 < most <= 2.5 * size
    assert all("--max_pinned_bytes" in each.reason for each in here.rows()[:2])
    assert not any(here.pins.root.iterdir())


def test_r26_a_daemon_gives_up_what_waits_longest_and_soon_has_no_pins(
    watch_lightly, pool, rows, tmp_path
):
    sources = {step: pool(step) for step in range(1, 7)}
    size = sum((sources[1] / name).stat().st_size for name in model_files(sources[1]))
    limit = int(2.5 * size)
    daemon = watch_lightly("--max_pinned_bytes", str(limit), LIGHT_SECONDS="1.5")
    wait_until_it_scans(daemon)
    for step, source in sources.items():
        save(source, tmp_path / "training" / f"checkpoint-{step}", step=step)
    pins = tmp_path / "validation" / "pins"
    held = []
    deadline = time.monotonic() + PATIENCE_SECONDS
    while len(ended := [each for each in rows() if each["state"] in ENDS]) < len(sources):
        assert time.monotonic() < deadline, daemon.log
        held.append(bytes_below(pins))
        time.sleep(0.002)
    assert size <= max(held) <= limit + size
    deadline = time.monotonic() + PINS_GONE_SECONDS
    while pins.is_dir() and any(pins.iterdir()):
        assert time.monotonic() < deadline, daemon.log
        time.sleep(0.02)
    assert daemon.end() == 128 + signal.SIGTERM
    skipped = [each for each in ended if each["state"] == "skipped"]
    assert 3 <= len(skipped) <= 4
    assert {each["reason"] for each in skipped} == {
        f"Pins would hold more than --max_pinned_bytes {limit}."
    }
    done = [each for each in ended if each["state"] == "done"]
    assert len(done) == len(sources) - len(skipped)
    assert done[-1]["step"] == max(sources)
    for each in done:
        saved = sources[each["step"]]
        assert json.loads(each["metrics"]) == metrics_of(fingerprint(saved, model_files(saved)))


ENDS = ("done", "skipped")
PINS_GONE_SECONDS = 3.0


def bytes_below(folder):
    size = 0
    for place, _, names in os.walk(folder):  # which goes on where a folder vanishes
        for name in names:
            with suppress(FileNotFoundError):
                size += Path(place, name).stat().st_size
    return size


def test_r26_what_is_evaluated_is_not_given_up_where_it_was_saved_again(pool, station):
    here = station(pin="hardlink", settle=0.0)
    target = here.root / "checkpoint-1"
    save(pool(1), target, step=1)
    size = sum((target / name).stat().st_size for name in model_files(target))
    again = station(pin="hardlink", settle=0.0, max_pinned_bytes=int(1.5 * size))
    evaluate = again.executor.evaluate

    def save_again_meanwhile(job):
        metrics = evaluate(job)
        if len(again.executor.served) == 1:
            time.sleep(0.02)
            save(pool(1), target, step=1)
            again.look()
            save(pool(2), target.with_name("checkpoint-2"), step=2)
            again.look()
        return metrics

    again.executor.evaluate = save_again_meanwhile
    again.work()
    again.work()
    assert again.states()[0] == ("checkpoint-1", "done")


def test_r10_what_lies_on_another_file_system_is_copied_and_the_rest_is_linked(
    put, tmp_path, monkeypatch
):
    """A file that is a link to elsewhere spoils nothing for the others."""
    path, shared_memory = put(1), Path("/dev/shm")
    if not shared_memory.is_dir() or shared_memory.stat().st_dev == path.stat().st_dev:
        pytest.skip("there is no second file system")
    monkeypatch.setattr(fcntl, "ioctl", refusing(errno.EOPNOTSUPP))  # no clones
    elsewhere = shared_memory / f"asyncval-test-{os.getpid()}.json"
    try:
        shutil.move(path / "config.json", elsewhere)
        (path / "config.json").symlink_to(elsewhere)
        names = model_files(path)
        assert names.index("config.json") < names.index("model.safetensors")
        pin = PinStore(tmp_path / "pins", method="auto").pin(Folder.listing(path), names, key="key")
        kept, there = Folder.listing(pin.path).files, Folder.listing(path).files
        assert sorted(kept) == names
        assert fingerprint(pin.path, names) == fingerprint(path, names)
        copied = {name for name in names if kept[name].inode != there[name].inode}
        assert copied == {"config.json"}
        assert not (pin.path / "config.json").is_symlink()
    finally:
        elsewhere.unlink()


@pytest.mark.parametrize("pin", ["hardlink", "copy"])
def test_r26_without_pins_those_of_an_earlier_run_go_once_nobody_needs_them(put, station, pin):
    for step in (1, 2):
        put(step)
    killed = station(pin=pin)
    killed.look()
    killed.ledger.finish(killed.ledger.claim(plan=PLAN).id, Result(metrics={"RR@10": 0.5}))
    assert len(list(killed.pins.root.iterdir())) == 2
    held = []

    def evaluate(job):
        held.append([each.name.partition(MARK)[0] for each in killed.pins.root.iterdir()])
        return {"RR@10": 0.5}

    here = station(pin="none", evaluate=evaluate)
    assert here.run_until_done() == 0
    assert held == [["checkpoint-2"]]
    assert here.states() == [("checkpoint-1", "done"), ("checkpoint-2", "done")]
    assert not here.pins.root.exists()
