"""R6, R7, R16-R19, R29: every checkpoint is seen, whatever becomes of events and folders."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

import pytest

from asyncval.alarm import file_system_of
from asyncval.checkpoints.completeness import examine
from asyncval.checkpoints.folder import Folder, fingerprint
from asyncval.core.types import State
from asyncval.daemon import EXIT_SOME_FAILED
from tests.e2e.conftest import PATIENCE_SECONDS
from tests.reliability.conftest import ROOT
from tests.reliability.light_worker import metrics_of
from tests.reliability.saving import rotate, save
from tests.reliability.test_completeness import has_strace

SCAN_SECONDS = 2.0
IDLE_CHECKPOINTS = 1000


def statuses(rows):
    return [(row["step"], row["state"]) for row in rows]


def all_done(steps):
    return [(step, "done") for step in steps]


def write_and_rotate(pool, root, steps, *, limit, gap):
    for step in steps:
        time.sleep(gap)
        save(pool(step), root / f"checkpoint-{step}", step=step)
        rotate(root, limit=limit)


def wait_until_it_scans(daemon):
    """Wait until it has shown what it knew, which it does right before its first scan."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not list(daemon.folder.glob(f"tensorboard/*/*.{daemon.process.pid}.*")):
        assert daemon.process.poll() is None, daemon.log
        assert time.monotonic() < deadline, daemon.log
        time.sleep(0.02)
    time.sleep(0.1)


def content_of(folder):
    """Return the fingerprint of what is read of a whole checkpoint."""
    return fingerprint(folder, examine(Folder.listing(folder), step=None).model_files)


def numbers_are_those_of_what_was_saved(rows, pool):
    """Say whether the content and the numbers of each row are those of its step's source."""
    contents = [content_of(pool(row["step"])) for row in rows]
    return [row["fingerprint"] for row in rows] == contents and [
        json.loads(row["metrics"]) for row in rows
    ] == list(map(metrics_of, contents))


# R6


def test_r06_no_checkpoint_is_lost_to_rotation(watch_lightly, pool, rows, tmp_path):
    """30 saves, 50 ms apart, one kept; the evaluation is far slower than the trainer."""
    for step in range(1, 31):
        pool(step)
    (tmp_path / "training").mkdir()
    daemon = watch_lightly("--until_step", "30", LIGHT_SECONDS="1")
    wait_until_it_scans(daemon)
    write_and_rotate(pool, tmp_path / "training", range(1, 31), limit=1, gap=0.05)
    assert sum(row["state"] == "done" for row in rows()) < 30
    assert daemon.exit_code() == 0, daemon.log
    assert statuses(rows()) == all_done(range(1, 31))
    assert numbers_are_those_of_what_was_saved(rows(), pool)
    assert not (tmp_path / "validation" / "pins").exists()


@pytest.mark.timeout(400)
@pytest.mark.parametrize(
    ("trainer", "libraries"),
    [
        ("training", ["transformers"]),
        ("sentence_transformers_training", ["sentence_transformers", "datasets"]),
    ],
)
def test_r06_no_checkpoint_of_a_librarys_own_trainer_is_lost(
    watch_lightly, rows, tmp_path, trainer, libraries
):
    """30 saves, 0.2 s apart, `save_total_limit=1`."""
    for library in libraries:
        if find_spec(library) is None:
            pytest.skip(f"{library} is not installed")
    (tmp_path / "training").mkdir()
    training = subprocess.Popen(
        [sys.executable, "-m", f"tests.reliability.{trainer}", tmp_path / "training", "30", "0.2"],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stderr=subprocess.PIPE,
        text=True,
    )
    daemon = watch_lightly("--until_step", "30", LIGHT_SECONDS="0.4")
    errors = training.communicate(timeout=300)[1]
    assert training.returncode == 0, errors
    assert [path.name for path in (tmp_path / "training").glob("checkpoint-*")] == ["checkpoint-30"]
    assert daemon.exit_code() == 0, daemon.log
    assert statuses(rows()) == all_done(range(1, 31))
    assert all(json.loads(row["metrics"]) == metrics_of(row["fingerprint"]) for row in rows())
    assert len({row["fingerprint"] for row in rows()}) == 30
    assert rows()[-1]["fingerprint"] == content_of(tmp_path / "training" / "checkpoint-30")


# R7


def test_r07_what_was_lost_is_said(watch_lightly, pool, rows, tmp_path):
    (tmp_path / "training").mkdir()
    daemon = watch_lightly("--idle_timeout", "1.5")
    wait_until_it_scans(daemon)
    target = tmp_path / "training" / "checkpoint-1"
    save(pool(1), target, step=1, stop_after=4)
    time.sleep(0.4)
    shutil.rmtree(target)
    save(pool(2), tmp_path / "training" / "checkpoint-2", step=2)
    assert daemon.exit_code() == EXIT_SOME_FAILED, daemon.log
    lost, done = rows()
    assert (lost["step"], lost["state"]) == (1, "lost")
    assert "deleted before it was complete" in str(lost["reason"])
    assert done["state"] == "done"
    assert f"checkpoint-1 is lost: {lost['reason'][:40]}" in " ".join(daemon.log.split())


def test_r07_a_kept_copy_that_is_gone_is_said_or_made_anew(put, station):
    here = station()
    paths = [put(1), put(2)]
    here.look()
    shutil.rmtree(here.pins.root)
    shutil.rmtree(paths[0])
    for _ in range(3):
        here.work()
    assert here.states() == [("checkpoint-1", "lost"), ("checkpoint-2", "done")]
    assert here.rows()[0].reason
    assert here.daemon._final_code() == EXIT_SOME_FAILED
    assert here.rows()[0].state is State.LOST


# R16


def has_inotify(daemon):
    """Say whether a daemon has asked the kernel for events."""
    kinds = []
    for descriptor in Path(f"/proc/{daemon.process.pid}/fd").iterdir():
        with suppress(FileNotFoundError):  # it was closed meanwhile
            kinds.append(str(descriptor.readlink()))
    return "anon_inode:inotify" in kinds


def test_r16_events_are_hints(watch_lightly, pool, rows, tmp_path):
    """Without events, and with every event dropped, a slower trainer loses nothing either."""
    steps = range(1, 7)
    daemons = {
        "polled": watch_lightly("--no_inotify", "--until_step", "6", output="polled"),
        "deaf": watch_lightly("--until_step", "6", output="deaf", LIGHT_DEAF="1"),
    }
    for daemon in daemons.values():
        daemon.wait_for("to appear")
    write_and_rotate(pool, tmp_path / "training", steps[:4], limit=3, gap=0.8)
    for daemon in daemons.values():
        daemon.wait_for("checkpoint-1: RR@10")
    assert [name for name, daemon in daemons.items() if has_inotify(daemon)] == ["deaf"]
    write_and_rotate(pool, tmp_path / "training", steps[4:], limit=3, gap=0.8)
    for output, daemon in daemons.items():
        assert daemon.exit_code() == 0, daemon.log
        assert statuses(rows(output)) == all_done(steps)
        assert numbers_are_those_of_what_was_saved(rows(output), pool)


MOUNTS = r"""
21 1 8:1 / / rw,relatime shared:1 - ext4 /dev/vda rw
22 21 8:2 / /mnt rw,relatime - xfs /dev/vdb rw
23 22 0:50 / /mnt/my\040data rw,relatime - nfs4 server:/data rw
24 22 0:51 / /mnt/a\134b\011c rw - fuse.sshfs host: rw
""".lstrip()


@pytest.mark.parametrize(
    ("place", "kind"),
    [
        ("/mnt/my data/run", "nfs4"),
        ("/mnt/a\\b\tc/run", "fuse.sshfs"),
        ("/mnt/mydata", "xfs"),
        ("/home/run", "ext4"),
    ],
)
def test_r16_the_file_system_of_a_folder_is_found_whatever_its_name(
    tmp_path, monkeypatch, place, kind
):
    """The kernel writes a space in the name of a mount point as four characters."""
    mounts = tmp_path / "mountinfo"
    mounts.write_text(MOUNTS)
    monkeypatch.setattr(
        "asyncval.alarm.Path", lambda path: mounts if path == "/proc/self/mountinfo" else Path(path)
    )
    assert file_system_of(Path(place)) == kind


# R17


def test_r17_a_root_that_comes_late_or_again_is_watched(watch_lightly, pool, rows, tmp_path):
    root = tmp_path / "deep" / "training"
    daemon = watch_lightly("--until_step", "4", training="deep/training")
    daemon.wait_for("to appear")
    seconds = []
    for step in range(1, 5):
        began = time.monotonic()
        save(pool(step), root / f"checkpoint-{step}", step=step)
        daemon.wait_for(f"checkpoint-{step}: RR@10")
        seconds.append(time.monotonic() - began)
        if step == 1:  # the folder that is watched now is the one that is waited for
            time.sleep(SCAN_SECONDS)
        elif step == 2:
            shutil.rmtree(root)
        elif step == 3:
            root.rename(tmp_path / "away")
    assert daemon.exit_code() == 0, daemon.log
    assert statuses(rows()) == all_done(range(1, 5))
    assert numbers_are_those_of_what_was_saved(rows(), pool)
    assert max(seconds) < 2 * SCAN_SECONDS + 1.0, seconds


def test_r17_what_a_new_root_has_first_is_not_missed(watch_lightly, pool, rows, tmp_path):
    """The first checkpoint of a folder that was not there lives for as long as any other."""
    root = tmp_path / "deep" / "training"
    daemon = watch_lightly("--until_step", "4", training="deep/training")
    wait_until_it_scans(daemon)
    for first in (1, 3):
        for step in (first, first + 1):
            save(pool(step), root / f"checkpoint-{step}", step=step)
            time.sleep(0.3)
            rotate(root, limit=1)
        if first == 1:
            shutil.rmtree(root)
            time.sleep(0.3)
    assert daemon.exit_code() == 0, daemon.log
    assert statuses(rows()) == all_done(range(1, 5))
    assert numbers_are_those_of_what_was_saved(rows(), pool)


# R18


def test_r18_links_to_the_root_and_to_checkpoints_are_followed(watch_lightly, pool, rows, tmp_path):
    real = tmp_path / "disk" / "run"
    real.mkdir(parents=True)
    (tmp_path / "training").symlink_to(real)
    daemon = watch_lightly("--until_step", "3")
    daemon.wait_for("Watching")
    elsewhere = tmp_path / "elsewhere" / "model"
    save(pool(1), elsewhere, step=1)
    began = time.monotonic()
    (real / "checkpoint-1").symlink_to(elsewhere)
    save(pool(2), real / "checkpoint-2", step=2)
    daemon.wait_for("checkpoint-2: RR@10")
    assert time.monotonic() - began < 2 * SCAN_SECONDS + 1.0
    save(pool(3), real / "checkpoint-3", step=3)
    assert daemon.exit_code() == 0, daemon.log
    assert statuses(rows()) == all_done(range(1, 4))
    assert numbers_are_those_of_what_was_saved(rows(), pool)
    assert [row["path"] for row in rows()] == [str(real / f"checkpoint-{i}") for i in (1, 2, 3)]


def test_r18_links_to_nothing_and_in_circles_harm_nobody(put, station, tmp_path):
    put(5)
    root = tmp_path / "training"
    (root / "checkpoint-1").symlink_to(tmp_path / "nowhere")
    (root / "checkpoint-2").symlink_to("checkpoint-2")
    (root / "checkpoint-3").symlink_to("checkpoint-4")
    (root / "checkpoint-4").symlink_to("checkpoint-3")
    (root / "checkpoint-6").mkdir()
    (root / "checkpoint-6" / "self").symlink_to(".")
    (root / "checkpoint-6" / "gone.json").symlink_to("nowhere")
    (root / "checkpoint-7").symlink_to("..")
    here = station()
    for _ in range(5):
        here.work()
        here.clock.time += 100
    assert ("checkpoint-5", "done") in here.states()
    assert {name for name, _ in here.states()} <= {f"checkpoint-{i}" for i in (5, 6, 7)}
    assert {state for name, state in here.states() if name != "checkpoint-5"} <= {"broken"}


# R19


def test_r19_an_overflow_of_events_is_harmless(watch_lightly, pool, rows, tmp_path):
    root = tmp_path / "training"
    (root / "runs").mkdir(parents=True)
    daemon = watch_lightly("--until_step", "6")
    save(pool(1), root / "checkpoint-1", step=1)
    daemon.wait_for("checkpoint-1: RR@10")
    daemon.process.send_signal(signal.SIGSTOP)
    for number in range(20_000):
        os.close(os.open(root / "runs" / str(number), os.O_CREAT | os.O_WRONLY))
    for step in range(2, 7):
        save(pool(step), root / f"checkpoint-{step}", step=step)
    daemon.process.send_signal(signal.SIGCONT)
    assert daemon.exit_code() == 0, daemon.log
    assert statuses(rows()) == all_done(range(1, 7))
    assert numbers_are_those_of_what_was_saved(rows(), pool)


LIMITED = "echo 20 > /proc/sys/user/max_inotify_watches && exec "


def can_limit_watches():
    if shutil.which("unshare") is None:
        return False
    words = ["unshare", "-Ur", "sh", "-c", f"{LIMITED} true"]
    return subprocess.run(words, capture_output=True, check=False).returncode == 0


@pytest.mark.skipif(not can_limit_watches(), reason="no user namespaces here")
def test_r19_a_limit_of_watches_is_harmless(watch_lightly, pool, rows, tmp_path, monkeypatch):
    root = tmp_path / "training"
    wrapped = tmp_path / "limited-python"
    inner = f"'{LIMITED}\"$@\"'"
    wrapped.write_text(f'#!/bin/sh\nexec unshare -Ur sh -c {inner} sh {sys.executable} "$@"\n')
    wrapped.chmod(0o755)
    for step in range(1, 26):
        save(pool(step), root / f"checkpoint-{step}", step=step)
    with monkeypatch.context() as patched:
        patched.setattr(sys, "executable", str(wrapped))
        daemon = watch_lightly("--until_step", "30")
    daemon.wait_for("checkpoint-25: RR@10")
    for step in range(26, 31):
        save(pool(step), root / f"checkpoint-{step}", step=step)
    assert daemon.exit_code() == 0, daemon.log
    assert statuses(rows()) == all_done(range(1, 31))
    assert numbers_are_those_of_what_was_saved(rows(), pool)


# R29


SCAN = """
import os, sys
from pathlib import Path
from asyncval.checkpoints.pins import PinStore
from asyncval.clock import SystemClock
from asyncval.watcher import Habits, Watcher
pins = PinStore(Path(sys.argv[2]), method="none")
habits = Habits(settle_seconds=0.0)
watcher = Watcher(root=Path(sys.argv[1]), habits=habits, pins=pins, clock=SystemClock())
found = list(watcher.scan())
list(watcher.scan())
os.write(2, b"IDLE BEGINS")
for _ in range(7):
    assert not list(watcher.scan())
os.write(2, b"IDLE ENDS")
print(len(found))
"""


@has_strace
def test_r29_an_idle_scan_opens_no_file(pool, tmp_path):
    root = tmp_path / "training"
    source = pool(1)
    for step in range(1, IDLE_CHECKPOINTS + 1):
        target = root / f"checkpoint-{step}"
        target.mkdir(parents=True)
        for path in source.iterdir():
            if path.name != "trainer_state.json":
                os.link(path, target / path.name)
        (target / "trainer_state.json").write_text(json.dumps({"global_step": step}))
    scan = [sys.executable, "-c", SCAN, str(root), str(tmp_path / "pins")]
    calls = tmp_path / "calls"
    done = subprocess.run(
        ["strace", "-f", "-o", str(calls), "-e", "trace=open,openat,openat2,write", *scan],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
    )
    assert int(done.stdout) == IDLE_CHECKPOINTS
    idle = calls.read_text().partition("IDLE BEGINS")[2].partition("IDLE ENDS")[0]
    opened = re.findall(r"open\w*\(.*", idle)
    assert sum(f'"{root}"' in call for call in opened) == 7
    assert all("O_DIRECTORY" in call for call in opened)
