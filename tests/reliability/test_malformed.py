"""R22, R23: whatever a checkpoint's files hold, it costs that checkpoint and nothing else."""

import errno
import json
import logging
import os
import shutil
import time
from dataclasses import replace

import pytest

from asyncval.checkpoints.recognition import load_checkpoint
from asyncval.core.types import EncoderOptions
from asyncval.watcher import LOOK_AGAIN_EVERY
from tests.e2e.conftest import asyncval
from tests.reliability.saving import SENTINEL, save
from tests.reliability.station import measured
from tests.reliability.test_watching import numbers_are_those_of_what_was_saved, wait_until_it_scans

DEEP = "[" * 100_000
MALFORMED = {
    "deep configuration": ("config.json", DEEP, "failed", "config.json cannot be read"),
    "deep tokenizer": ("tokenizer.json", DEEP, "failed", "tokenizer.json is not whole JSON"),
    "deep sentinel": ("trainer_state.json", DEEP, "broken", "trainer_state.json cannot be read"),
    "architectures that are no list": (
        "config.json",
        '{"architectures": 5, "model_type": 7}',
        "failed",
        "model type `7`",
    ),
    "shards that are no names": (
        "model.safetensors.index.json",
        '{"weight_map": {"a": 1}}',
        "failed",
        "names a shard that is no text",
    ),
    "a header that is a list": (
        "model.safetensors",
        "\x02\0\0\0\0\0\0\0[]",
        "failed",
        "model.safetensors has a damaged header",
    ),
}


def loaded_and_measured(job):
    load_checkpoint(job.checkpoint, EncoderOptions(), device="cpu", precision="fp32")
    return measured(job)


@pytest.mark.parametrize("name", MALFORMED)
def test_r23_a_malformed_file_costs_its_own_checkpoint_only(pool, station, name):
    """Whether its structure shows it, or only the libraries that load it."""
    here = station(evaluate=loaded_and_measured)
    file, content, state, reason = MALFORMED[name]
    target = here.root / "checkpoint-1"
    save(pool(1, "sharded" if "shards" in name else "huggingface"), target, step=1)
    (target / file).write_text(content)
    make_newest(target / SENTINEL)
    save(pool(2), here.root / "checkpoint-2", step=2)
    for _ in range(3):
        here.work()
        here.clock.time += 400
    assert here.states() == [("checkpoint-1", state), ("checkpoint-2", "done")]
    assert reason in here.rows()[0].reason
    assert here.rows()[0].result is None


def make_newest(sentinel):
    """Date the file that is written last after everything else."""
    later = sentinel.stat().st_mtime_ns + 1_000_000
    os.utime(sentinel, ns=(later, later))


def test_r23_what_is_damaged_fails_again_until_it_is_repaired(watch_lightly, pool, rows, tmp_path):
    """`asyncval retry` has it looked at anew, which neither evaluates nor excuses it."""
    aside, target = tmp_path / "aside", tmp_path / "training" / "checkpoint-1"
    save(pool(1), aside, step=1)
    weights = aside / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[: len(whole) // 2])
    make_newest(aside / SENTINEL)
    target.parent.mkdir()
    daemon = watch_lightly()
    wait_until_it_scans(daemon)
    aside.rename(target)
    daemon.wait_for("checkpoint-1 is failed")
    [failed] = rows()
    assert (failed["state"], failed["metrics"]) == ("failed", None)
    assert "model.safetensors" in str(failed["reason"])
    retry = asyncval("retry", "--output_dir", str(daemon.folder))
    assert retry.returncode == 0, retry.stderr
    assert "1 checkpoints are queued again." in retry.stderr
    [again] = wait_for_state(rows, "failed")
    assert (again["state"], again["reason"]) == ("failed", failed["reason"]), daemon.log
    assert again["metrics"] is None
    (target / "model.safetensors").write_bytes(whole)
    save(pool(1), target, step=1)
    assert "done" in [row["state"] for row in wait_for_state(rows, "done")], daemon.log
    done = [row for row in rows() if row["state"] == "done"]
    assert numbers_are_those_of_what_was_saved(done, pool)
    assert daemon.log.count("checkpoint-1: validating") == 1


def wait_for_state(rows, state, *, seconds=15.0):
    """Return the rows as soon as one of them is in a state, or as they are after a while."""
    deadline = time.monotonic() + seconds
    while state not in [row["state"] for row in rows()] and time.monotonic() < deadline:
        time.sleep(0.05)
    return rows()


def test_a_model_whose_name_tells_no_step_is_passed_over_aloud_once(pool, put, station, caplog):
    here = station()
    put(1)
    shutil.copytree(pool(2), here.root / "final")
    (here.root / "runs").mkdir()
    with caplog.at_level(logging.INFO, logger="asyncval"):
        for _ in range(3):
            here.work()
    assert here.states() == [("checkpoint-1", "done")]
    said = [each for each in caplog.messages if "passed over" in each]
    assert said == ["'final' is passed over: its name tells no step (--ckpt_pattern)."]


def test_results_by_other_options_are_said_to_stay(put, station, caplog):
    here = station()
    put(1)
    here.run_until_done()
    here.ledger.close()
    other = station()
    with caplog.at_level(logging.INFO, logger="asyncval"):
        other.daemon._take_up()
        assert "by other options" not in caplog.text
        other.daemon._main = replace(other.daemon._main, plan="another")
        other.daemon._take_up()
    assert "Results of 1 checkpoints are by other options or data" in caplog.text


def test_r23_what_nobody_foresaw_is_a_reason_and_not_the_end(pool, station, monkeypatch):
    here = station()
    save(pool(1), here.root / "checkpoint-1", step=1)

    def stumble(*_, **__):
        raise ZeroDivisionError("nobody thought of this")

    monkeypatch.setattr("asyncval.watcher.examine", stumble)
    for _ in range(3):
        here.work()
        here.clock.time += 400
    [row] = here.rows()
    assert row.state == "failed"
    assert "ZeroDivisionError: nobody thought of this" in row.reason


@pytest.mark.parametrize("number", [errno.EDQUOT, errno.EIO, errno.ESTALE, errno.ENOSPC])
def test_r21_an_output_that_cannot_be_written_for_a_while_is_waited_for(pool, station, number):
    here = station()
    save(pool(1), here.root / "checkpoint-1", step=1)
    publish, failures = here.reporting.publish, iter(range(3))

    def stumble(**options):
        if next(failures, None) is not None:
            raise OSError(number, os.strerror(number))
        publish(**options)

    here.reporting.publish = stumble
    for _ in range(6):
        here.daemon._turn()
        here.work()
    assert here.states() == [("checkpoint-1", "done")]
    assert len((here.output / "results.jsonl").read_text().splitlines()) == 1


def test_r12_a_small_file_that_is_rewritten_in_place_is_found_in_the_end(pool, station):
    here = station()
    target = here.root / "checkpoint-1"
    save(pool(1, "sentence-transformers"), target, step=1)
    here.work()
    path = target / "1_Pooling" / "config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps(config, indent=7))
    for _ in range(LOOK_AGAIN_EVERY):
        here.look()
    for _ in range(3):
        here.clock.time += 400
        here.work()
    assert [str(row.state) for row in here.rows()] == ["done", "done"]


@pytest.mark.parametrize("relative", [False, True])
def test_r10_a_model_file_that_is_a_link_is_kept_as_a_file(pool, station, relative):
    here = station()
    target = here.root / "checkpoint-1"
    save(pool(1), target, step=1)
    blobs = here.root.parent / "blobs"
    blobs.mkdir()
    (target / "model.safetensors").rename(blobs / "model")
    place = os.path.relpath(blobs / "model", target) if relative else str(blobs / "model")
    (target / "model.safetensors").symlink_to(place)
    make_newest(target / SENTINEL)
    for _ in range(3):
        here.look()
        here.clock.time += 400
    [row] = here.rows()
    kept = row.checkpoint.location / "model.safetensors"
    (blobs / "model").unlink()
    assert kept.is_file()
    assert not kept.is_symlink()
    here.work()
    assert here.states() == [("checkpoint-1", "done")]
