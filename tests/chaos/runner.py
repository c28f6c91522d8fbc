"""Runs one schedule: a writer, and a daemon that is killed and started again."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from tests.chaos.pool import ROOT, Pool, Source
from tests.chaos.schedules import Action, Schedule, make_schedule
from tests.reliability.saving import delete, save

if TYPE_CHECKING:
    from tests.chaos.invariants import Report

PATIENCE_SECONDS = 120.0
DISK_BYTES = 8 << 20
REFUSED = 2
"""The exit code of a daemon that cannot start where it is."""
MODULES = {"light": "tests.reliability.light", "real": "asyncval"}


@dataclass(slots=True)
class Generation:
    """One save of one checkpoint; times are of the monotonic clock.

    `whole_at` is None for a torn one, `ended_at` when it began to be overwritten or deleted.
    """

    path: Path
    step: int
    source: Source
    whole_at: float | None = None
    ended_at: float | None = None


@dataclass(slots=True)
class Life:
    """One daemon: from its first scan on until right before it was killed or told to end."""

    pid: int
    scans_from: float | None = None
    until: float | None = None
    ended_with: int | None = None
    """The exit code of one that ended before it was told to."""


@dataclass(slots=True, kw_only=True)
class Outcome:
    """Everything that the invariants are checked on."""

    schedule: Schedule
    pool: Pool
    evaluator: str
    folder: Path
    generations: list[Generation] = field(default_factory=list)
    lives: list[Life] = field(default_factory=list)
    num_worker_kills: int = 0
    num_torn_exports: int = 0
    exit_code: int | None = None
    log: str = ""

    @property
    def root(self) -> Path:
        """The folder that is watched."""
        return self.folder / "training"

    @property
    def output(self) -> Path:
        """The daemon's own."""
        return self.folder / "validation"


class Keeper:
    """Keeps a daemon running, and kills it when it is time to."""

    def __init__(self, outcome: Outcome) -> None:
        self._outcome = outcome
        self._log = outcome.folder / "log.txt"
        self._lock = threading.Lock()
        self._timers: list[threading.Thread] = []
        self.done_file = outcome.folder / "done"
        self._process = self._start()

    def _start(self) -> "subprocess.Popen[bytes]":
        outcome = self._outcome
        words = [
            "watch", *outcome.pool.flags,
            "--ckpts_dir", str(outcome.root),
            "--output_dir", str(outcome.output),
            "--cache_dir", str(outcome.pool.cache),
            "--devices", "cpu",
            "--settle", "0.5",
            "--pin", outcome.schedule.pin,
            "--done_file", str(self.done_file),
        ]  # fmt: skip
        settings = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "LIGHT_SECONDS": "0.1"}
        with self._log.open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", MODULES[outcome.evaluator], *words],
                stdout=log,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                cwd=outcome.folder,
                env=os.environ | settings,
            )
        life = Life(process.pid)
        outcome.lives.append(life)
        threading.Thread(target=self._see_it_scan, args=(process, life), daemon=True).start()
        return process

    def _see_it_scan(self, process: "subprocess.Popen[bytes]", life: Life) -> None:
        """Note the time from which it scans: right after it has shown what it knew."""
        folder = self._outcome.output / "tensorboard" / "asyncval"
        while process.poll() is None and life.until is None:
            if any(f".{process.pid}." in path.name for path in folder.glob("events*")):
                time.sleep(0.1)
                life.scans_from = time.monotonic()
                return
            time.sleep(0.01)

    def wait_until_it_scans(self) -> None:
        """Wait for the daemon that runs now, or the one after it."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while self._outcome.lives[-1].scans_from is None:
            with self._lock:
                self._start_where_the_disk_was_full()
            if time.monotonic() > deadline or self._process.poll() is not None:
                raise TimeoutError(f"The daemon does not scan; its log is {self._log}.")
            time.sleep(0.01)

    def _start_where_the_disk_was_full(self) -> None:
        """Start a daemon again that said that it cannot write, as its user would."""
        if self._was_refused():
            self._outcome.lives[-1].until = time.monotonic()
            time.sleep(0.1)
            self._process = self._start()

    def _was_refused(self) -> bool:
        is_tight = self._outcome.schedule.count("fill disk") > 0
        return is_tight and self._process.poll() == REFUSED

    def schedule_kill(self, action: Action) -> None:
        """Kill the daemon or its worker in a while."""
        kill = self._kill_daemon if action.deed == "kill daemon" else self._kill_worker
        self._do_meanwhile(threading.Timer(action.seconds, kill, kwargs={"action": action}))

    def fill_disk(self, action: Action) -> None:
        """Leave no space in the daemon's folder for a while, in which everything else goes on."""
        seconds = {"seconds": action.seconds}
        folder = (self._outcome.output,)
        self._do_meanwhile(threading.Thread(target=fill_disk, args=folder, kwargs=seconds))

    def _do_meanwhile(self, thread: threading.Thread) -> None:
        self._timers.append(thread)
        thread.start()

    def _kill_daemon(self, action: Action) -> None:
        with self._lock:
            life = self._outcome.lives[-1]
            life.until = time.monotonic()
            if not self._was_refused():
                life.ended_with = self._process.poll()
            self._process.kill()
            self._process.wait()
            if action.tear_exports:
                self._tear_exports()
            self._process = self._start()

    def _kill_worker(self, action: Action) -> None:
        with self._lock:
            for pid in workers_of(self._process.pid):
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    continue
                self._outcome.num_worker_kills += 1

    def _tear_exports(self) -> None:
        """Cut off the ends of what the daemon exports, as a loss of power does."""
        output = self._outcome.output
        for path in (output / "results.jsonl", output / "best.json", *output.rglob("events*")):
            if path.exists() and path.stat().st_size:
                os.truncate(path, max(path.stat().st_size - 7, 0))
                self._outcome.num_torn_exports += 1

    def finish(self) -> None:
        """Let the daemon validate what is left and end by itself."""
        for timer in self._timers:
            timer.join()
        self.wait_until_it_scans()
        time.sleep(0.3)
        self._outcome.lives[-1].until = time.monotonic()
        self.done_file.touch()
        try:
            self._outcome.exit_code = self._process.wait(timeout=PATIENCE_SECONDS)
        except subprocess.TimeoutExpired:
            self._outcome.exit_code = None

    def close(self) -> None:
        """Leave no process and no timer behind, whatever happened."""
        for timer in self._timers:
            if isinstance(timer, threading.Timer):
                timer.cancel()
            timer.join()
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        self._outcome.log = self._log.read_text(errors="replace")


def workers_of(daemon: int) -> list[int]:
    """Return the evaluation processes of a daemon, also of one that is gone."""
    found = []
    for place in Path("/proc").iterdir():
        if not place.name.isdecimal():
            continue
        try:
            words = (place / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        is_worker = any(word.endswith((b"asyncval.worker", b"light_worker")) for word in words)
        if is_worker and words[-2] == str(daemon).encode():
            found.append(int(place.name))
    return found


class Writer:
    """Saves and deletes checkpoints, and notes when."""

    def __init__(self, outcome: Outcome, keeper: Keeper) -> None:
        self._outcome = outcome
        self._schedule = outcome.schedule
        self._keeper = keeper

    def act(self, action: Action) -> None:
        """Do one thing."""
        if action.deed == "save":
            self._save(action)
        elif action.deed == "pause":
            time.sleep(action.seconds)
        elif action.deed == "wait":
            time.sleep(0.05)
            self._keeper.wait_until_it_scans()
        elif action.deed == "recreate root":
            self._recreate_root(action)
        elif action.deed == "fill disk":
            self._keeper.fill_disk(action)
        else:
            self._keeper.schedule_kill(action)

    def _save(self, action: Action) -> None:
        path = self._outcome.root / f"checkpoint-{action.step}"
        source = self._outcome.pool.sources[self._schedule.kind][action.source]
        self._end(path)
        generation = Generation(path, action.step, source)
        self._outcome.generations.append(generation)
        save(
            source.path,
            path,
            step=action.step,
            aside=self._schedule.aside,
            pause=action.seconds,
            stop_after=action.stop_after,
            tears_file=action.tears_file,
        )
        if action.stop_after is None:
            generation.whole_at = time.monotonic()
            self._rotate()

    def _rotate(self) -> None:
        there = sorted(
            self._outcome.root.glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1])
        )
        for path in there[: -self._schedule.limit]:
            self._end(path)
            delete(path, pause=self._schedule.unlink_pause)

    def _recreate_root(self, action: Action) -> None:
        for path in self._outcome.root.glob("checkpoint-*"):
            self._end(path)
        shutil.rmtree(self._outcome.root, ignore_errors=True)
        time.sleep(action.seconds)
        self._outcome.root.mkdir()

    def _end(self, path: Path) -> None:
        now = time.monotonic()
        for each in self._outcome.generations:
            if each.path == path and each.ended_at is None:
                each.ended_at = now


def fill_disk(folder: Path, *, seconds: float) -> None:
    """Leave no space in a folder for a while."""
    filler = folder / "filler"
    with filler.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            time.sleep(seconds)
    filler.unlink()


@cache
def can_mount() -> bool:
    """Say whether a small file system can be made here, which needs root."""
    place = Path(tempfile.mkdtemp(prefix="asyncval-chaos-"))
    try:
        return mount(place) and unmount(place)
    finally:
        place.rmdir()


def mount(place: Path) -> bool:
    """Make a file system of a few megabytes; say whether that worked."""
    words = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "chaos", str(place)]
    return _works(words)


def unmount(place: Path) -> bool:
    """Give it back."""
    return _works(["umount", str(place)])


def _works(words: list[str]) -> bool:
    if shutil.which(words[0]) is None:
        return False
    return subprocess.run(words, capture_output=True, check=False).returncode == 0


def run_schedule(schedule: Schedule, pool: Pool, folder: Path, *, evaluator: str) -> "Report":
    """Run a schedule in an empty folder and return what the invariants found."""
    from tests.chaos.invariants import examine_outcome

    outcome = Outcome(schedule=schedule, pool=pool, evaluator=evaluator, folder=folder)
    outcome.root.mkdir(parents=True)
    outcome.output.mkdir()
    is_mounted = schedule.count("fill disk") > 0
    if is_mounted and not mount(outcome.output):
        raise OSError(
            f"{outcome.output} cannot be made a small file system"
        )  # do not fill the disk
    try:
        keeper = Keeper(outcome)
        try:
            keeper.wait_until_it_scans()
            writer = Writer(outcome, keeper)
            for action in schedule.actions:
                writer.act(action)
            keeper.finish()
        finally:
            keeper.close()
        return examine_outcome(outcome)
    finally:
        if is_mounted:
            unmount(outcome.output)


def run_one(seed: int, pool: Pool, work: Path, *, evaluator: str, can_fill_disk: bool) -> "Report":
    """Run the schedule of one seed; its folder stays only where something was violated."""
    folder = work / f"schedule-{seed}"
    began = time.monotonic()
    schedule = make_schedule(seed, can_fill_disk=can_fill_disk)
    try:
        report = run_schedule(schedule, pool, folder, evaluator=evaluator)
    except Exception:
        from tests.chaos.invariants import Report

        lines = traceback.format_exc().strip().splitlines()
        report = Report(seed=seed, counts={}, violations=(f"it could not be run: {lines[-1]}",))
    if not report.violations:
        shutil.rmtree(folder)
    return replace(report, seconds=time.monotonic() - began)
