"""R13-R15, R20, R24, R25, R31: what is recorded, is recorded once, and survives."""

import errno
import json
import math
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

from asyncval.clock import SystemClock
from asyncval.core.errors import CheckpointIncomplete
from asyncval.core.records import first_open_step
from asyncval.core.types import MAIN, Result
from asyncval.daemon import EXIT_SOME_FAILED
from asyncval.ledger.sqlite import Ledger
from asyncval.reporters.stop import StopReporter
from tests.checkpoints.recipes import RECIPES
from tests.clocks import FakeClock
from tests.e2e.test_watch import events, is_running
from tests.reliability.conftest import LightDaemon
from tests.reliability.light_worker import metrics_of
from tests.reliability.saving import SENTINEL, rotate, save
from tests.reliability.station import ANCHOR, PLAN
from tests.reliability.test_completeness import has_strace
from tests.reliability.test_watching import (
    all_done,
    content_of,
    numbers_are_those_of_what_was_saved,
    statuses,
    wait_until_it_scans,
)
from tests.reporters.results import make_result

NUM_KILLS = 20
NUM_SAVES = 10
SEEN_SECONDS = 0.3
"""For how long a checkpoint must be there, while a daemon scans, to be validated for certain."""
ORPHAN_SECONDS = 2.0


def leftovers(*folders):
    """Files and folders that only a process at work may have."""
    return [
        path
        for folder in folders
        for path in folder.rglob("*")
        if "partial" in path.name or path.name.startswith(".tmp") or path.parent.name == "pins"
    ]


# R13


def save_and_keep_two(source, root, stays):
    """Save the next step; `stays` has from when to when each was there as a whole."""
    step = len(stays) + 1
    save(source(step), root / f"checkpoint-{step}", step=step, pause=0.005)
    stays[step] = [time.monotonic(), math.inf]
    if step > 2:
        stays[step - 2][1] = time.monotonic()
    rotate(root, limit=2)


def steps_seen(stays, scans):
    """Return the steps that were there for long enough during one of the scanning times."""
    return {
        step
        for step, (whole, gone) in stays.items()
        for since, until in scans
        if min(gone, until) - max(whole, since) >= SEEN_SECONDS
    }


def test_r13_a_kill_at_any_moment_is_survived(watch_lightly, pool, rows, tmp_path):
    """20 kills while 10 checkpoints come and go: what a daemon could see is recorded once."""
    draw = random.Random(13)
    for step in range(1, NUM_SAVES + 1):
        pool(step)
    root = tmp_path / "training"
    root.mkdir()
    stays: dict[int, list[float]] = {}
    daemons, scans, num_cut_short = [], [], 0
    for kill in range(NUM_KILLS):
        daemon = watch_lightly(LIGHT_SECONDS="0.3")
        daemons.append(daemon)
        saving = threading.Timer(draw.uniform(0, 1.2), save_and_keep_two, (pool, root, stays))
        if kill % 2:
            saving.start()
        if kill % 4 == 0:  # while it starts
            time.sleep(draw.uniform(0, 0.9))
        else:
            wait_until_it_scans(daemon)
            since = time.monotonic()
            if kill % 4 == 3:  # in the middle of an evaluation
                daemon.wait_for(": validating")
            time.sleep(draw.uniform(0, 0.25 if kill % 4 == 3 else 0.6))
            scans.append((since, time.monotonic()))
            assert daemon.workers()
        daemon.end(signal.SIGKILL)
        num_cut_short += daemon.log.count(": validating") > daemon.log.count(": RR@10")
        if kill % 2:
            saving.join()
    time.sleep(ORPHAN_SECONDS)
    assert [daemon.workers() for daemon in daemons] == [[]] * NUM_KILLS
    last = watch_lightly("--until_step", str(NUM_SAVES))
    code = last.exit_code()
    assert num_cut_short >= 5, "too few kills hit an evaluation"
    seen = steps_seen(stays, scans) | {NUM_SAVES - 1, NUM_SAVES}
    assert len(seen) >= 6, "too few checkpoints could be seen"
    done = [row for row in rows() if row["state"] == "done"]
    assert sorted(seen - {row["step"] for row in done}) == [], last.log
    assert len({row["step"] for row in rows()}) == len(rows())
    assert {row["state"] for row in rows() if row not in done} <= {"lost"}
    assert code == (0 if len(done) == len(rows()) else EXIT_SOME_FAILED), last.log
    assert numbers_are_those_of_what_was_saved(done, pool)
    shown = events(last.folder / "tensorboard" / "asyncval")
    assert {"eval/RR@10", "eval/nDCG@10"} <= shown.keys()
    for points in shown.values():
        assert [step for step, _ in points] == [row["step"] for row in done]
    assert leftovers(last.folder, root) == []


def test_r13_an_evaluation_that_hangs_dies_with_its_daemon(watch_lightly, pool, rows, tmp_path):
    """It reads nothing any more, so only the kernel can end it."""
    save(pool(1), tmp_path / "training" / "checkpoint-1", step=1)
    daemon = watch_lightly(LIGHT_DEEDS='{"1": "hang"}')
    daemon.wait_for("checkpoint-1: validating")
    [worker] = daemon.workers()
    time.sleep(0.3)
    assert is_running(worker)
    daemon.end(signal.SIGKILL)
    deadline = time.monotonic() + ORPHAN_SECONDS
    while is_running(worker) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not is_running(worker)
    assert [row["state"] for row in rows()] == ["running"]
    again = watch_lightly("--until_step", "1")
    assert again.exit_code() == 0, again.log
    assert statuses(rows()) == all_done([1])


def test_r13_a_kill_between_its_two_queues_leaves_a_checkpoint_in_both(put, station, monkeypatch):
    """The daemon dies when the anchor has the checkpoint and the main queue does not."""
    path = put(1)
    killed = station(with_anchor=True)
    enqueue = Ledger.enqueue

    def die(ledger, *words, **options):
        if ledger is killed.ledger:
            raise KeyboardInterrupt
        return enqueue(ledger, *words, **options)

    monkeypatch.setattr(Ledger, "enqueue", die)
    with pytest.raises(KeyboardInterrupt):
        killed.look()
    monkeypatch.undo()
    assert len(killed.anchor.pins()) == 1
    here = station(with_anchor=True)
    here.work()
    shutil.rmtree(path)
    here.work()
    assert here.states() == [("checkpoint-1", "done")]
    assert [str(each.state) for each in here.anchor.validations(plan=PLAN)] == ["done"]
    assert [job.lane for job in here.executor.served] == [MAIN, ANCHOR]


@pytest.mark.parametrize("pin", ["hardlink", "copy"])
def test_r13_what_was_pinned_and_not_recorded_is_found_again(put, station, monkeypatch, pin):
    """The daemon dies between the two, and the trainer deletes the folder before the next start."""
    path = put(1)
    killed = station(pin=pin, with_anchor=True)
    killed.daemon._lookout.look()
    shutil.rmtree(path)
    here = station(pin=pin, with_anchor=True)
    here.run_until_done()
    assert here.states() == [("checkpoint-1", "done")]
    [row] = here.rows()
    assert row.checkpoint.path == path
    assert row.result.metrics == metrics_of(row.checkpoint.fingerprint)
    assert [job.lane for job in here.executor.served] == [MAIN, ANCHOR]
    assert leftovers(here.output) == []


def test_r13_what_was_pinned_is_not_copied_again_where_its_folder_still_stands(put, station):
    put(1)
    killed = station(pin="copy")
    killed.daemon._lookout.look()
    [pin] = killed.pins.root.iterdir()
    here = station(pin="copy")
    here.daemon._take_up()
    [row] = here.rows()
    assert row.checkpoint.pin == pin
    here.work()
    assert here.states() == [("checkpoint-1", "done")]
    assert here.executor.served[0].checkpoint.pin == pin


def test_r13_what_was_pinned_is_of_the_layout_that_its_folder_had(pool, station, tmp_path):
    """RetroMAE's two models are told from Tevatron's by a file that no pin holds."""
    made = RECIPES["retromae untied"](tmp_path / "run")
    target = tmp_path / "training" / "checkpoint-100"
    target.parent.mkdir()
    made.folder.rename(target)
    killed = station()
    killed.daemon._lookout.look()
    shutil.rmtree(target)
    here = station()
    here.daemon._take_up()
    [row] = here.rows()
    assert row.checkpoint.layout == "retromae"


def test_r13_pins_of_another_training_are_not_taken(put, station, tmp_path):
    put(1)
    pins = tmp_path / "pins"
    killed = station(pins=pins)
    killed.daemon._lookout.look()
    assert len(list(pins.iterdir())) == 1
    (tmp_path / "another" / "training").mkdir(parents=True)
    here = station(tmp_path / "another", pins=pins)
    here.daemon._take_up()
    assert here.states() == []


def test_r13_a_pin_that_was_changed_before_it_was_recorded_is_not_taken(put, station):
    path = put(1)
    killed = station(pin="hardlink")
    killed.daemon._lookout.look()
    time.sleep(0.02)
    with (path / "model.safetensors").open("r+b") as file:
        file.write(bytes(64))
    shutil.rmtree(path)
    here = station(pin="hardlink")
    here.run_until_done()
    assert here.states() == []
    assert leftovers(here.output) == []


def test_r13_an_anchor_that_is_asked_for_later_gets_what_is_there(put, station):
    for step in (1, 2, 3):
        put(step)
    station().work()
    here = station(with_anchor=True)
    here.run_until_done()
    assert [str(each.state) for each in here.rows()] == ["done"] * 3
    anchored = here.anchor.validations(plan=PLAN)
    assert [(each.checkpoint.step, str(each.state)) for each in anchored] == [
        (step, "done") for step in (1, 2, 3)
    ]
    assert {job.lane for job in here.executor.served} == {ANCHOR}


# R14


def test_r14_the_ledger_waits_for_the_disk(tmp_path):
    ledger = Ledger(tmp_path, clock=FakeClock())
    assert ledger._db.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert ledger._db.execute("PRAGMA synchronous").fetchone() == (2,)
    ledger.close()
    again = Ledger(tmp_path, clock=FakeClock(), must_exist=True)
    assert again._db.execute("PRAGMA synchronous").fetchone() == (2,)
    assert again._db.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    again.close()


@has_strace
def test_r14_a_result_is_on_disk_before_it_is_announced(collection, put, tmp_path, monkeypatch):
    """Between the end of the evaluation and its line in the log, the ledger's log is synced."""
    put(1)
    calls, stub = tmp_path / "calls", tmp_path / "traced-python"
    stub.write_text(
        "#!/bin/sh\nexec strace -f -y -s 300 -e trace=read,write,fsync,fdatasync "
        f'-o {calls} {sys.executable} "$@"\n'
    )
    stub.chmod(0o755)
    words = [
        "watch", *collection.flags(),
        "--ckpts_dir", str(tmp_path / "training"),
        "--output_dir", str(tmp_path / "validation"),
        "--cache_dir", str(tmp_path / "cache"),
        "--devices", "cpu",
        "--max_num_valid", "1",
    ]  # fmt: skip
    with monkeypatch.context() as patched:
        patched.setattr(sys, "executable", str(stub))
        daemon = LightDaemon(words, tmp_path / "log", folder=tmp_path / "validation")
    assert daemon.exit_code() == 0, daemon.log
    text = calls.read_text(errors="replace")
    heard = text.index('"{\\"kind\\": \\"done\\"')
    told = text.index("checkpoint-1: RR@10")
    assert heard < told
    synced = re.findall(r"f(?:data)?sync\(\d+<([^>]*)>", text[heard:told])
    assert any(path.endswith("ledger.sqlite-wal") for path in synced), synced


# R15


@pytest.mark.parametrize("torn", [7, 1, 10_000])
def test_r15_a_torn_export_never_harms_the_next_record(put, station, torn):
    for step in (1, 2):
        put(step)
    station().run_until_done()
    here = station()
    export = here.output / "results.jsonl"
    whole = export.read_bytes()
    assert [json.loads(line)["step"] for line in whole.splitlines()] == [1, 2]
    export.write_bytes(whole[:-torn])
    put(3)
    here.run_until_done()
    lines = export.read_bytes().splitlines(keepends=True)
    assert b"".join(lines[:2]) == whole
    assert [json.loads(line)["step"] for line in lines] == [1, 2, 3]
    export.write_bytes(b"".join(lines)[:-torn])
    station().run_until_done()  # with nothing new
    assert export.read_bytes() == b"".join(lines)


# R20


def test_r20_two_daemons_on_one_run_do_not_validate_twice(watch_lightly, pool, rows, tmp_path):
    root = tmp_path / "training"
    save(pool(1), root / "checkpoint-1", step=1)
    first = watch_lightly(LIGHT_SURVIVES="1", LIGHT_DEEDS='{"1": "hang"}')
    first.wait_for("checkpoint-1: validating")
    second = watch_lightly()
    assert second.exit_code() == 2
    said = f"is in use by another asyncval (process {first.process.pid}). Stop it first"
    assert said in " ".join(second.log.split())
    assert "Traceback" not in second.log
    assert rows()[0]["state"] == "running"
    workers = first.workers()
    first.end(signal.SIGKILL)
    try:
        assert workers
        assert all(map(is_running, workers))  # this one does not die with its daemon
        third = watch_lightly("--until_step", "1")
        assert third.exit_code() == 0, third.log
        assert statuses(rows()) == all_done([1])
    finally:
        for worker in workers:
            subprocess.run(["kill", "-9", str(worker)], check=False)


# R24


def test_r24_tensorboard_has_each_step_once_whatever_the_order(put, station, tmp_path):
    """100 and 300 are shown, 200 is recorded, and the daemon dies before it is shown."""
    from torch.utils.tensorboard import SummaryWriter

    trainer = SummaryWriter(str(tmp_path / "tb"))
    for step in (100, 200, 300):
        trainer.add_scalar("train/loss", 1 / step, step)
    trainer.close()

    def of_the_trainer() -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in (tmp_path / "tb").glob("events.*")}

    before = of_the_trainer()
    here = station(clock=FakeClock())
    for step in (100, 300):
        put(step)
        here.work()
    put(200)
    here.look()
    job = here.ledger.claim(plan="plan")
    here.ledger.finish(job.id, Result(metrics={"RR@10": 0.5, "nDCG@10": 0.5}, seconds={"total": 1}))
    run = tmp_path / "tb" / "asyncval"
    assert [step for step, _ in events(run)["eval/RR@10"]] == [100, 300]
    again = station()  # nothing was closed: the file is as a kill leaves it
    again.run_until_done()
    shown = events(run)
    results = {row.checkpoint.step: row.result for row in again.rows()}
    assert shown
    for tag, points in shown.items():
        assert [step for step, _ in points] == [100, 200, 300], tag
    for measure in ("RR@10", "nDCG@10"):
        for step, value in shown[f"eval/{measure}"]:
            assert value == pytest.approx(results[step].metrics[measure])
    assert of_the_trainer() == before


# R31


@contextmanager
def being_read(path):
    """Read a JSON file over and over, as a trainer may; it is whole whenever it is there.

    Yields:
        The steps that it named so far.
    """
    steps, errors, is_over = set(), [], threading.Event()

    def read() -> None:
        while not is_over.is_set():
            try:
                steps.add(json.loads(path.read_bytes())["step"])
            except FileNotFoundError:
                continue
            except (ValueError, KeyError) as error:
                errors.append(repr(error))

    reader = threading.Thread(target=read)
    reader.start()
    try:
        yield steps
    finally:
        is_over.set()
        reader.join()
    assert errors == []


def test_r31_feedback_to_the_trainer_is_whole_at_every_moment(put, station, tmp_path):
    best, stop = tmp_path / "validation" / "best.json", tmp_path / "validation" / "stop"
    values = {step: [0.1, 0.4, 0.3, 0.4, 0.9, 0.2][step % 6] + step / 1000 for step in range(1, 40)}
    here = station()
    here.executor.evaluate = lambda job: {"RR@10": values[job.checkpoint.step], "nDCG@10": 0.5}
    here.reporting._reporters["stop"] = StopReporter(output_dir=here.output, patience=2)
    with being_read(best) as steps_of_best, being_read(stop) as steps_of_stop:
        for step in values:
            put(step, seed=1)
            config = here.root / f"checkpoint-{step}" / "config.json"
            config.write_text(config.read_text() + " " * step)
            put_sentinel_last(here.root / f"checkpoint-{step}", step)
            here.work()
    assert len(here.executor.served) == len(values)
    shown = json.loads(best.read_text())
    assert shown["step"] == max(values, key=lambda step: values[step])
    assert shown["measure"] == "RR@10"
    assert shown["value"] == values[shown["step"]]
    assert len(steps_of_best) > 1
    assert steps_of_stop == {6}  # after 0.904 at step 4
    assert not best.is_relative_to(here.root)
    assert [path.name for path in here.root.iterdir() if "checkpoint-" not in path.name] == []
    assert leftovers(tmp_path / "validation") == []


def put_sentinel_last(path: Path, step: int) -> None:
    (path / "trainer_state.json").write_text(json.dumps({"global_step": step}))


def test_r31_the_trainer_is_told_when_to_stop(watch_lightly, pool, rows, tmp_path):
    """With `--patience 2` a file `stop` appears once two results in a row were no better."""
    value = {seed: metrics_of(content_of(pool(seed)))["RR@10"] for seed in range(1, 6)}
    worst, *others, best = sorted(value, key=lambda seed: value[seed])
    root, stop = tmp_path / "training", tmp_path / "validation" / "stop"
    root.mkdir()
    daemon = watch_lightly("--until_step", "5", "--patience", "2")
    wait_until_it_scans(daemon)
    with being_read(stop) as steps:
        for step, seed in enumerate([worst, best, *others], start=1):
            assert not steps or step > 4
            save(pool(seed), root / f"checkpoint-{step}", step=step)
            daemon.wait_for(f"checkpoint-{step}: RR@10")
        assert daemon.exit_code() == 0, daemon.log
    assert statuses(rows()) == all_done(range(1, 6))
    assert steps == {4}
    assert json.loads(stop.read_text()) == {"step": 4, "patience": 2}
    assert not stop.is_relative_to(root)


# R25: also in test_evaluation.py


def test_r31_patience_waits_for_a_checkpoint_that_is_still_open(tmp_path):
    """With several devices, or after a failed attempt, later steps are through before it."""
    still_open = [2]
    reporter = StopReporter(
        output_dir=tmp_path,
        patience=2,
        first_open_step=lambda: min(still_open, default=float("inf")),
    )
    results = [make_result(step, step, **{"RR@10": 1 / step}) for step in (1, 3, 4)]
    reporter.publish(results, results)
    assert not (tmp_path / "stop").exists()
    still_open.clear()
    results.insert(1, make_result(2, 2, **{"RR@10": 0.1}))
    reporter.publish(results[1:2], results)
    assert json.loads((tmp_path / "stop").read_text())["step"] == 3
    still_open.append(2)  # saved again: what was said is not taken back for that
    reporter.publish([], results)
    assert (tmp_path / "stop").exists()


def test_r31_patience_may_be_over_when_a_checkpoint_fails(put, station):
    failing = {2}

    def evaluate(job):
        if job.checkpoint.step in failing:
            raise CheckpointIncomplete("It is broken.")
        return {"RR@10": 1 / job.checkpoint.step}

    here = station(evaluate=evaluate)
    here.reporting._reporters["stop"] = StopReporter(
        output_dir=here.output, patience=1, first_open_step=lambda: first_open_step(here.rows())
    )
    put(1)
    put(3)
    here.work()
    (here.output / "stop").unlink()  # as if the third had been through while the second ran
    put(2)
    here.work()
    assert here.states() == [
        (f"checkpoint-{i}", s) for i, s in ((1, "done"), (2, "failed"), (3, "done"))
    ]
    assert (here.output / "stop").exists()


@pytest.mark.parametrize("number", [2, 3])
def test_r25_what_appears_in_the_turn_that_would_be_the_last_is_waited_for(
    pool, station, tmp_path, monkeypatch, number
):
    (tmp_path / "done").touch()
    here = station(settle=5.0, done_file=tmp_path / "done")
    look, scans = here.daemon._lookout.look, []

    def appear_late(**options):
        scans.append(options)
        if len(scans) == number:
            save_without_sentinel(pool(1), here.root / "checkpoint-1")
        look(**options)

    monkeypatch.setattr(here.daemon._lookout, "look", appear_late)
    assert here.daemon._turn() is None
    assert here.states() == []
    assert len(scans) >= number
    here.clock.time += 5.0
    here.work()
    assert here.states() == [("checkpoint-1", "done")]
    assert here.daemon._turn() == 0


def save_without_sentinel(source, target):
    save(source, target, step=1)
    (target / SENTINEL).unlink()


def test_r25_a_short_idle_timeout_does_not_cut_the_settling_time_short(pool, station):
    here = station(settle=5.0, idle_timeout=1.0)
    save_without_sentinel(pool(1), here.root / "checkpoint-1")
    for seconds in (0.0, 2.0, 2.9):
        here.clock.time += seconds
        assert here.daemon._turn() is None
        assert here.states() == []
    here.clock.time += 0.1
    here.work()
    assert here.states() == [("checkpoint-1", "done")]
    assert here.daemon._turn() is None
    here.clock.time += 1.0
    assert here.daemon._turn() == 0


def test_r25_what_cannot_be_kept_at_the_end_is_said_and_validated_by_the_next_start(
    put, station, monkeypatch
):
    def refuse(*arguments):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    put(1)
    now = {"pin": "hardlink", "settle": 0.1, "clock": SystemClock()}
    with monkeypatch.context() as patched:
        patched.setattr(os, "link", refuse)
        here = station(**now)
        assert here.run_until_done() == EXIT_SOME_FAILED
    [row] = here.rows()
    assert row.state == "blocked"
    assert "It cannot be kept now: No space left on device" in row.reason
    again = station(**now)
    assert again.run_until_done() == 0
    assert [state for _, state in again.states() if state != "superseded"] == ["done"]
    assert leftovers(again.output) == []


@pytest.mark.parametrize(("until", "last"), [(2, 2), (3, 4)])
def test_r25_it_ends_by_the_first_step_that_is_late_enough(put, station, until, last):
    """What waits behind it is left for the next start, with what was kept of it."""
    steps = (1, 2, 4, 5)
    for step in steps:
        put(step)
    here = station(until_step=until)
    assert here.run() == 0
    assert [(row.checkpoint.step, row.state) for row in here.rows()] == [
        (step, "done" if step <= last else "queued") for step in steps
    ]
    shutil.rmtree(here.root)
    again = station()
    assert again.run_until_done() == 0
    assert [state for _, state in again.states()] == ["done"] * len(steps)


def test_r25_another_training_with_the_same_output_is_one_of_its_own(
    watch_lightly, pool, rows, tmp_path
):
    """Its results are shown alone, and what the first one has reached does not end it."""
    first, second = tmp_path / "first", tmp_path / "second"
    for step in (1, 2):
        save(pool(step), first / f"checkpoint-{step}", step=step)
    assert watch_lightly("--until_step", "2", training="first").exit_code() == 0
    daemon = watch_lightly("--until_step", "2", training="second")
    wait_until_it_scans(daemon)
    save(pool(3), second / "checkpoint-2", step=2)
    assert daemon.exit_code() == 0, daemon.log
    shown = (daemon.folder / "results.jsonl").read_text().splitlines()
    assert [json.loads(line)["path"] for line in shown] == [str(second / "checkpoint-2")]
    assert statuses(rows()) == all_done([1, 2, 2])


# R12: also in test_pinning.py


def test_r12_a_folder_that_is_named_by_a_link_is_not_validated_twice(
    watch_lightly, pool, rows, tmp_path
):
    save(pool(1), tmp_path / "training" / "checkpoint-1", step=1)
    (tmp_path / "link").symlink_to("training")
    assert watch_lightly("--until_step", "1").exit_code() == 0
    daemon = watch_lightly("--until_step", "1", training="link")
    assert daemon.exit_code() == 0, daemon.log
    assert "validating" not in daemon.log
    assert [row["path"] for row in rows()] == [str(tmp_path / "training" / "checkpoint-1")]


def test_what_a_killed_process_left_half_written_is_removed(watch_lightly, pool, rows, tmp_path):
    for place in ("runs", "per_query", "anchor/runs"):
        folder = tmp_path / "validation" / place
        folder.mkdir(parents=True)
        (folder / ".checkpoint-7.trec.partial").write_text("half")
        (folder / "checkpoint-7.trec").write_text("whole")
    save(pool(1), tmp_path / "training" / "checkpoint-1", step=1)
    daemon = watch_lightly("--until_step", "1")
    assert daemon.exit_code() == 0, daemon.log
    left = [path.name for path in (tmp_path / "validation").rglob("*checkpoint-7*")]
    assert left == ["checkpoint-7.trec"] * 3
