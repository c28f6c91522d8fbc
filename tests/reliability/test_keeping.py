"""The best checkpoint is there at the end, whatever its trainer deleted."""

import os
import shutil

import pytest

from asyncval.checkpoints.folder import Folder, fingerprint
from asyncval.core.types import Result
from asyncval.keeping import RETRY_SECONDS
from tests.reliability.saving import delete, save
from tests.reliability.test_completeness import tick

VALUES = {1: 0.2, 2: 0.9, 3: 0.5, 4: 0.9, 5: 0.1}


def by_step(job):
    return {"RR@10": VALUES[job.checkpoint.step]}


def train(here, put, steps):
    """Save, validate and delete one checkpoint after another, as with a limit of one."""
    for step in steps:
        path = put(step)
        here.work()
        delete(path)
    here.work()


def kept(here):
    return sorted(path.name.partition("@")[0] for path in (here.output / "kept").glob("*"))


def content(place, row):
    return fingerprint(place, Folder.listing(place).files) == row.checkpoint.fingerprint


def test_the_best_is_kept_after_its_trainer_deleted_it_and_no_other(put, station):
    here = station(evaluate=by_step)
    train(here, put, [1])
    assert kept(here) == ["checkpoint-1"]
    train(here, put, [2, 3, 4, 5])
    assert kept(here) == ["checkpoint-2"]  # the earliest among equals
    assert content(here.output / "best", here.rows()[1])
    assert not list((here.output / "pins").glob("*"))


def test_several_are_kept_where_that_is_wanted(put, station):
    here = station(evaluate=by_step, keep_best=3)
    train(here, put, [1, 2, 3, 4, 5])
    assert kept(here) == ["checkpoint-2", "checkpoint-3", "checkpoint-4"]
    assert content(here.output / "best", here.rows()[1])


def test_it_is_kept_by_further_names_of_its_files(put, station):
    here = station(evaluate=by_step)
    path = put(1)
    before = (path / "model.safetensors").stat()
    here.work()
    assert (here.output / "best" / "model.safetensors").stat().st_ino == before.st_ino


def test_a_daemon_that_was_killed_right_after_the_result_keeps_it_at_its_next_start(
    put, station, monkeypatch
):
    here = station(evaluate=by_step)
    monkeypatch.setattr(here.daemon, "_keep_best", lambda now=None: None)
    train(here, put, [2])
    assert kept(here) == []
    again = station(evaluate=by_step)
    again.daemon._take_up()
    assert kept(again) == ["checkpoint-2"]
    assert content(again.output / "best", again.rows()[0])
    assert not list((again.output / "pins").glob("*"))


def test_what_is_kept_and_rewritten_in_place_is_not_passed_off_as_the_best(put, pool, station):
    here = station(evaluate=by_step)
    path = put(2)
    here.work()
    assert kept(here) == ["checkpoint-2"]
    tick()
    with (path / "model.safetensors").open("r+b") as file:  # half of another save
        file.write((pool(3) / "model.safetensors").read_bytes()[:5000])
    put(1)
    here.work()
    assert kept(here) == ["checkpoint-1"]
    assert not (here.output / "best").exists()


def test_content_that_came_back_is_kept_again(put, pool, station):
    path = put(7)
    first = fingerprint(path, ["config.json", "model.safetensors", *tokenizer_files(path)])
    here = station(evaluate=lambda job: {"RR@10": float(job.checkpoint.fingerprint == first)})
    here.work()
    for seed in (8, 7):
        tick()
        save(pool(seed), path, step=7)
        here.work()
    assert kept(here) == ["checkpoint-7"]
    assert content(here.output / "best", here.rows()[0])


def tokenizer_files(path):
    return [each.name for each in path.glob("tokenizer*")]


def test_a_full_disk_delays_it(put, station, monkeypatch, clock):
    here = station(evaluate=by_step)
    real = os.link

    def link(source, target, **options):
        if "kept" in str(target):
            raise OSError(28, "No space left on device")
        return real(source, target, **options)

    monkeypatch.setattr(os, "link", link)
    train(here, put, [2])
    assert kept(here) == []
    monkeypatch.undo()
    here.work()
    assert kept(here) == []
    clock.time += RETRY_SECONDS
    here.work()
    assert kept(here) == ["checkpoint-2"]
    assert not list((here.output / "pins").glob("*"))


def test_what_was_best_under_other_options_or_is_somebody_elses_stays(put, station):
    here = station(evaluate=by_step)
    train(here, put, [2])
    with here.ledger._transaction() as db:
        db.execute("UPDATE validations SET plan = 'another'")
    (here.output / "kept" / "notes").mkdir()
    again = station(evaluate=by_step)
    train(again, put, [1])
    assert kept(again) == ["checkpoint-1", "checkpoint-2", "notes"]
    assert (again.output / "best").resolve().name.startswith("checkpoint-1@")


def test_what_is_kept_stays_though_it_was_copied_or_something_was_put_beside_it(put, station):
    here = station(evaluate=by_step)
    train(here, put, [2])
    [place] = (here.output / "kept").iterdir()
    copy = place.with_name("copy")
    shutil.copytree(place, copy)  # as with a backup: other inodes
    shutil.rmtree(place)
    copy.rename(place)
    (place / "README.md").write_text("Mine.")
    train(here, put, [1])
    assert kept(here) == ["checkpoint-2"]
    assert (here.output / "best" / "README.md").read_text() == "Mine."


def test_the_one_before_is_kept_on_where_the_best_is_not_there_any_more(put, station, caplog):
    here = station(evaluate=by_step)
    train(here, put, [3])
    unpinned = station(evaluate=by_step, pin="none")
    path = put(2)
    unpinned.executor.evaluate = lambda job: delete_after(path, by_step(job))
    unpinned.work()
    assert kept(unpinned) == ["checkpoint-3"]
    assert unpinned.rows()[0].state == "lost"  # as its files went while it was evaluated
    with unpinned.ledger._transaction() as db:  # and if the result had come right before that
        db.execute("UPDATE validations SET state = 'running' WHERE step = 2")
    number = unpinned.rows()[0].id
    unpinned.ledger.finish(number, Result(metrics={"RR@10": 0.9}, seconds={"total": 1.0}))
    again = station(evaluate=by_step)
    again.daemon._take_up()
    assert kept(again) == ["checkpoint-3"]
    assert not (again.output / "best").exists()
    assert "checkpoint-2 is the best, and its files are not kept" in caplog.text


def delete_after(path, values):
    delete(path)
    return values


def test_what_is_kept_goes_only_for_what_is_as_good(put, station):
    """A second training in the same folder, whose checkpoints have the names of the first."""
    values = iter((0.5, 0.9, 0.6, 0.1, 0.7))
    here = station(evaluate=lambda job: {"RR@10": next(values)})
    train(here, put, [1, 2, 3])
    assert kept(here) == ["checkpoint-2"]
    first = (here.output / "best").resolve()
    put(2, seed=8)
    here.work()
    assert first.is_dir()
    assert not (here.output / "best").exists()  # that is checkpoint-3, which is gone
    put(3, seed=9)
    here.work()
    assert first.is_dir()
    assert content(here.output / "best", here.rows()[-1])
    assert sorted(kept(here)) == ["checkpoint-2", "checkpoint-3"]


def test_what_was_measured_before_is_kept_from_where_it_stands(put, station):
    here = station(evaluate=by_step)
    put(2)
    here.work()
    shutil.rmtree(here.output / "kept")
    again = station(evaluate=by_step)
    again.daemon._take_up()
    assert kept(again) == ["checkpoint-2"]
    assert content(again.output / "best", again.rows()[0])


@pytest.mark.parametrize("kind", ["sentence-transformers", "sharded", "peft"])
def test_it_can_be_loaded_from_where_it_is_kept(put, station, kind):
    from asyncval.checkpoints.completeness import examine

    here = station()
    path = put(1, kind)
    here.work()
    names = examine(Folder.listing(path), step=1).model_files
    shutil.rmtree(path)
    assert examine(Folder.listing(here.output / "best"), step=None).model_files == names
