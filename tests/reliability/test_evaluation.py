"""R11, R21, R23, R25: evaluations that go wrong, that would mislead, and that end."""

import errno
import json
import math
import os
import shutil
import signal
import time
from datetime import datetime
from pathlib import Path

import pytest

from asyncval.clock import SystemClock
from asyncval.daemon import DISK_SECONDS, RETRY_SECONDS
from tests.e2e.test_watch import is_running
from tests.reliability.light_worker import metrics_of
from tests.reliability.saving import SENTINEL, save
from tests.reliability.test_watching import (
    all_done,
    numbers_are_those_of_what_was_saved,
    statuses,
    wait_until_it_scans,
)

# R11, with the worker that users have


def test_r11_a_rewrite_in_place_voids_the_result(watch, pool, rows, results, tmp_path):
    target = tmp_path / "training" / "checkpoint-1"
    save(pool(1), target, step=1, aside=False)
    daemon = watch("--pin", "hardlink", "--max_num_valid", "1")
    daemon.wait_for("validating on cpu")
    [worker] = daemon.workers()
    os.kill(worker, signal.SIGSTOP)  # in the middle of its work
    inode = (target / "model.safetensors").stat().st_ino
    save(pool(2), target, step=1, aside=False)
    assert (target / "model.safetensors").stat().st_ino == inode
    os.kill(worker, signal.SIGCONT)
    assert daemon.exit_code() == 0, daemon.log
    first, second = rows()
    assert (first["state"], first["metrics"]) == ("superseded", None)
    assert second["state"] == "done"
    assert first["fingerprint"] != second["fingerprint"]
    [row] = results()
    assert row["fingerprint"] == second["fingerprint"]


# R21


def test_r21_a_full_disk_costs_no_attempt(pool, station):
    """Neither a disk that is full for minutes nor what it cuts short makes a checkpoint fail."""
    here = station()
    save(pool(1), here.root / "checkpoint-1", step=1)
    failures = iter(range(30))

    def full(job):
        if next(failures, None) is not None:
            raise OSError(errno.ENOSPC, "No space left on device")
        return metrics_of(job.checkpoint.fingerprint)

    here.executor.evaluate = full
    for _ in range(31):
        here.work()
        here.clock.time += DISK_SECONDS
    [row] = here.rows()
    assert (row.state, row.attempts) == ("done", 1)
    assert len(here.executor.served) == 31


def test_r21_an_evaluation_that_goes_wrong_is_bounded(watch_lightly, pool, rows, tmp_path):
    """It hangs, exits, gets a SIGBUS, is killed for its memory, or runs out of it and says so."""
    deeds = {1: "hang", 2: "exit", 3: "bus", 4: "kill", 5: "memory", 6: "", 7: "mute"}
    for step in deeds:
        save(pool(step), tmp_path / "training" / f"checkpoint-{step}", step=step)
    daemon = watch_lightly(
        "--until_step", "7", "--time_limit", "1", LIGHT_DEEDS=json.dumps(deeds), LIGHT_SECONDS="0"
    )
    daemon.wait_for("checkpoint-6: RR@10")
    after_first = statuses(rows())
    assert after_first[4:6] == [(5, "done"), (6, "done")]
    assert daemon.exit_code() == 4, daemon.log
    ends = dict.fromkeys(deeds, "failed") | {5: "done", 6: "done"}
    assert statuses(rows()) == list(ends.items())
    reasons = [str(row["reason"]) for row in rows()]
    assert "--time_limit 1 s" in reasons[0]
    assert "exit code 1" in reasons[1]
    assert f"signal {int(signal.SIGBUS)}" in reasons[2]
    assert "signal 9" in reasons[3]
    assert "exit code 1" in reasons[6]
    assert [row["attempts"] for row in rows()][:4] == [3, 3, 3, 3]
    for step in (1, 2, 3, 4, 7):
        first, second, third = starts_of(step, daemon.log)
        # Both are whole seconds, so cutting off their parts makes no wait seem shorter.
        assert (second - first).total_seconds() >= RETRY_SECONDS[0]
        assert (third - second).total_seconds() >= RETRY_SECONDS[1]
    assert not any(map(is_running, daemon.workers()))


def test_r21_a_process_that_hangs_while_it_starts_again_is_killed(
    watch_lightly, pool, rows, tmp_path
):
    hangs = tmp_path / "hangs"
    daemon = watch_lightly(
        "--until_step", "2", LIGHT_START_SECONDS="1",
        LIGHT_DEEDS='{"1": "exit"}', LIGHT_SECONDS="0", LIGHT_HANGS=str(hangs),
    )  # fmt: skip
    daemon.wait_for("Watching")
    hangs.touch()
    for step in (1, 2):
        save(pool(step), tmp_path / "training" / f"checkpoint-{step}", step=step)
    daemon.wait_for("does not start within 1 s")
    hangs.unlink()
    assert daemon.exit_code() == 4, daemon.log
    assert statuses(rows()) == [(1, "failed"), (2, "done")]


def starts_of(step, log):
    """Return when the log says that each evaluation of a checkpoint began."""
    return [
        datetime.fromisoformat(line[: len("2026-01-01 00:00:00")])
        for line in log.splitlines()
        if f" checkpoint-{step}: validating" in line
    ]


def test_r21_a_device_that_is_gone_for_a_while_is_said_and_tried_again(
    watch_lightly, pool, rows, tmp_path
):
    gone = tmp_path / "gone"
    daemon = watch_lightly("--until_step", "1", LIGHT_REFUSES=str(gone))
    wait_until_it_scans(daemon)
    gone.touch()
    for worker in daemon.workers():
        os.kill(worker, signal.SIGKILL)
    save(pool(1), tmp_path / "training" / "checkpoint-1", step=1)
    daemon.wait_for("The device is gone.", times=2)
    began, said = time.monotonic(), daemon.log.count("The device is gone.")
    time.sleep(2.5)
    assert daemon.log.count("The device is gone.") - said <= 1, "it starts over and over"
    assert daemon.process.poll() is None
    gone.unlink()
    assert daemon.exit_code() == 0, daemon.log
    assert time.monotonic() - began < 20
    assert statuses(rows()) == all_done([1])


def test_r21_a_worker_may_end_after_its_log_was_cleared_up(watch_lightly, pool, rows, tmp_path):
    daemon = watch_lightly("--until_step", "2")
    save(pool(1), tmp_path / "training" / "checkpoint-1", step=1)
    daemon.wait_for("checkpoint-1: RR@10")
    shutil.rmtree(tmp_path / "validation" / "logs")
    for worker in daemon.workers():
        os.kill(worker, signal.SIGKILL)
    daemon.wait_for("ended unexpectedly (signal 9)")
    save(pool(2), tmp_path / "training" / "checkpoint-2", step=2)
    assert daemon.exit_code() == 0, daemon.log
    assert statuses(rows()) == all_done([1, 2])


# R23


def without_tokenizer(path):
    (path / "tokenizer.json").unlink()


def without_modules(path):
    (path / "modules.json").unlink()


def without_modules_and_their_config(path):
    (path / "modules.json").unlink()
    (path / "config_sentence_transformers.json").unlink()


def without_a_layer(path):
    from safetensors.torch import load_file, save_file

    tensors = load_file(path / "model.safetensors")
    kept = {name: each for name, each in tensors.items() if "layer.1." not in name}
    assert len(kept) < len(tensors)
    save_file(kept, path / "model.safetensors", metadata={"format": "pt"})


def without_dense(path):
    shutil.rmtree(path / "2_Dense")


def with_a_foreign_vocabulary(path):
    place = path / "tokenizer.json"
    tokenizer = json.loads(place.read_text())
    words = tokenizer["model"]["vocab"]
    special = {word: number for word, number in words.items() if word.startswith("[")}
    others = {f"{number}" * 9: number for word, number in words.items() if word not in special}
    tokenizer["model"]["vocab"] = special | others
    place.write_text(json.dumps(tokenizer))


def fill(path, name, number):
    from safetensors.torch import load_file, save_file

    tensors = load_file(path / "model.safetensors")
    tensors[name].fill_(number)
    save_file(tensors, path / "model.safetensors", metadata={"format": "pt"})


def with_numbers_that_are_none(path):
    fill(path, "encoder.layer.0.output.dense.bias", math.nan)


def with_one_vector_for_all(path):
    fill(path, "encoder.layer.1.output.LayerNorm.weight", 0.0)
    fill(path, "encoder.layer.1.output.LayerNorm.bias", 0.5)


def with_a_smaller_dense(path):
    from safetensors.torch import load_file, save_file

    dense = path / "2_Dense"
    config = json.loads((dense / "config.json").read_text())
    (dense / "config.json").write_text(json.dumps(config | {"out_features": 4}))
    tensors = load_file(dense / "model.safetensors")
    halves = {name: each[:4].contiguous() for name, each in tensors.items()}
    save_file(halves, dense / "model.safetensors")


HARMS = {
    200: (without_tokenizer, "broken", "It lacks tokenizer.json"),
    300: (without_modules, "broken", "modules.json is missing"),
    400: (without_modules_and_their_config, "broken", "It lacks 1_Pooling/config.json"),
    500: (without_a_layer, "failed", "tensors of the model are not in the checkpoint"),
    600: (without_dense, "broken", "2_Dense/config.json is missing"),
    700: (with_a_foreign_vocabulary, "failed", "% of all tokens are unknown to the tokenizer"),
    800: (with_numbers_that_are_none, "failed", "no finite numbers (NaN)"),
    900: (with_one_vector_for_all, "failed", "All passages have nearly the same vector"),
    1000: (with_a_smaller_dense, "failed", "have 4 dimensions where those of the checkpoints"),
}


def test_r23_silent_misloads_are_errors(watch, pool, rows, tmp_path, monkeypatch):
    """Of folders that have been quiet, without a sentinel; given by a relative path."""
    monkeypatch.delenv("HF_HUB_OFFLINE")
    training = tmp_path / "training"
    save(pool(100, "sentence-transformers"), training / "checkpoint-100", step=100)
    daemon = watch("--idle_timeout", "2", "--ckpts_dir", os.path.relpath(training))
    daemon.wait_for("checkpoint-100: RR@10")
    [worker] = daemon.workers()
    environment = Path(f"/proc/{worker}/environ").read_bytes().split(b"\0")
    assert b"HF_HUB_OFFLINE=1" in environment
    for step, (harm, _, _) in HARMS.items():
        target = tmp_path / "aside" / f"checkpoint-{step}"
        save(pool(100, "sentence-transformers"), target, step=step)
        (target / SENTINEL).unlink()
        harm(target)
        target.rename(training / target.name)
    assert daemon.exit_code() == 4, daemon.log
    done, *others = rows()
    assert done["state"] == "done"
    assert [row["step"] for row in others] == list(HARMS)
    for row in others:
        _, state, reason = HARMS[int(str(row["step"]))]
        assert (row["state"], row["metrics"]) == (state, None), row
        assert reason in str(row["reason"]), row
        assert Path(str(row["path"])).is_absolute()
    runs = (tmp_path / "validation" / "runs").iterdir()
    assert [path.name for path in runs] == ["checkpoint-100.trec"]


# R25


def test_r25_until_step_does_not_judge_what_comes_behind_it(pool, station):
    here = station(until_step=1, settle=0.2, clock=SystemClock())
    save(pool(1), here.root / "checkpoint-1", step=1)
    save(pool(2), here.root / "checkpoint-2", step=2, stop_after=1)
    assert here.run() == 0
    assert here.states() == [("checkpoint-1", "done")]


def test_r25_it_ends_cleanly_when_it_is_told_to(watch_lightly, pool, rows, tmp_path):
    """The trainer removes all but the best at its end: the last one is validated nevertheless."""
    root = tmp_path / "training"
    root.mkdir()
    done_file = tmp_path / "done"
    slowly = {"LIGHT_SECONDS": "0.3"}
    daemons = {
        "step": watch_lightly("--until_step", "6", output="step", **slowly),
        "idle": watch_lightly("--idle_timeout", "3", output="idle", **slowly),
        "file": watch_lightly("--done_file", str(done_file), output="file", **slowly),
    }
    for daemon in daemons.values():
        wait_until_it_scans(daemon)
    for step in range(1, 7):
        save(pool(step), root / f"checkpoint-{step}", step=step)
        time.sleep(0.2)
    for step in (1, 3, 4, 5, 6):  # 2 was the best
        shutil.rmtree(root / f"checkpoint-{step}")
    done_file.touch()
    for output, daemon in daemons.items():
        assert daemon.exit_code() == 0, daemon.log
        assert "Ending, as --" in daemon.log
        assert statuses(rows(output)) == all_done(range(1, 7)), output
        assert numbers_are_those_of_what_was_saved(rows(output), pool), output
        assert not (tmp_path / output / "pins").exists()


@pytest.mark.parametrize("seconds", ["1", "60"], ids=["it may finish", "it goes back"])
def test_r25_sigterm_ends_it_after_what_runs(watch_lightly, pool, rows, tmp_path, seconds):
    for step in (1, 2, 3):
        save(pool(step), tmp_path / "training" / f"checkpoint-{step}", step=step)
    daemon = watch_lightly(LIGHT_SECONDS=seconds)
    daemon.wait_for("checkpoint-1: validating")
    [worker] = daemon.workers()
    daemon.process.send_signal(signal.SIGTERM)
    if seconds == "60":
        daemon.wait_for("Stopping.")
        daemon.process.send_signal(signal.SIGTERM)
    assert daemon.exit_code() == 128 + signal.SIGTERM, daemon.log
    assert not is_running(worker)
    first = "done" if seconds == "1" else "queued"
    assert statuses(rows()) == [(1, first), (2, "queued"), (3, "queued")]
    again = watch_lightly("--until_step", "3")
    assert again.exit_code() == 0, again.log
    assert statuses(rows()) == all_done([1, 2, 3])
    assert numbers_are_those_of_what_was_saved(rows(), pool)
