"""R22, R23: whatever a checkpoint's files hold, it costs that checkpoint and nothing else."""

import errno
import json
import logging
import os
import shutil
from dataclasses import replace

import pytest

from asyncval.watcher import LOOK_AGAIN_EVERY
from tests.reliability.saving import save

DEEP = "[" * 100_000
MALFORMED = {
    "deep configuration": ("config.json", DEEP),
    "deep tokenizer": ("tokenizer.json", DEEP),
    "deep sentinel": ("trainer_state.json", DEEP),
    "architectures that are no list": ("config.json", '{"architectures": 5, "model_type": 7}'),
    "shards that are no names": ("model.safetensors.index.json", '{"weight_map": {"a": 1}}'),
    "a header that is a list": ("model.safetensors", "\x02\0\0\0\0\0\0\0[]"),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_r23_a_malformed_file_costs_its_own_checkpoint_only(pool, station, name):
    here = station()
    file, content = MALFORMED[name]
    target = here.root / "checkpoint-1"
    save(pool(1, "sharded" if "shards" in name else "huggingface"), target, step=1)
    (target / file).write_text(content)
    later = (target / "trainer_state.json").stat().st_mtime_ns + 1_000_000
    os.utime(target / "trainer_state.json", ns=(later, later))
    save(pool(2), here.root / "checkpoint-2", step=2)
    for _ in range(3):
        here.work()
        here.clock.time += 400
    assert here.states()[-1] == ("checkpoint-2", "done")
    assert dict(here.states()).get("checkpoint-1") in ("failed", "broken", "done")


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
    later = (target / "trainer_state.json").stat().st_mtime_ns + 1_000_000
    os.utime(target / "trainer_state.json", ns=(later, later))
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
