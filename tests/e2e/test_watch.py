"""`asyncval watch` from outside: real processes, real checkpoints, real signals."""

import json
import os
import shutil
import signal
import sqlite3
import time
from pathlib import Path

import pytest


def events(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """Read a TensorBoard run directory: tag to (step, value)."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    accumulator = EventAccumulator(str(folder))
    accumulator.Reload()
    return {
        tag: [(each.step, each.value) for each in accumulator.Scalars(tag)]
        for tag in accumulator.Tags()["scalars"]
    }


def is_running(pid: int) -> bool:
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False


def test_checkpoints_from_before_and_from_later_are_validated_in_step_order(
    watch, save_checkpoint, results, tmp_path
):
    save_checkpoint(200)
    save_checkpoint(100)
    daemon = watch("--max_num_valid", "3")
    daemon.wait_for("RR@10", times=2)
    save_checkpoint(300)
    assert daemon.exit_code() == 0, daemon.log

    rows = results()
    assert [row["step"] for row in rows] == [100, 200, 300]
    assert {row["status"] for row in rows} == {"done"}
    points = events(tmp_path / "validation" / "tensorboard" / "asyncval")
    for measure in ("RR@10", "nDCG@10"):
        shown = dict(points[f"eval/{measure}"])
        assert list(shown) == [100, 200, 300]
        assert list(shown.values()) == pytest.approx([row["metrics"][measure] for row in rows])
    lines = (tmp_path / "validation" / "results.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [100, 200, 300]
    assert daemon.log.index("checkpoint-100: RR@10") < daemon.log.index("checkpoint-200: RR@10")


def test_nothing_is_validated_twice_after_a_restart(watch, save_checkpoint, results, tmp_path):
    save_checkpoint(100)
    assert watch("--max_num_valid", "1").exit_code() == 0
    before = results()
    save_checkpoint(200)
    daemon = watch("--idle_timeout", "2")
    assert daemon.exit_code() == 0, daemon.log
    assert "checkpoint-100: validating" not in daemon.log
    after = results()
    assert after[0] == before[0]
    assert [row["step"] for row in after] == [100, 200]
    assert len(events(tmp_path / "validation" / "tensorboard" / "asyncval")["eval/RR@10"]) == 2


def test_another_plan_validates_anew(watch, save_checkpoint, results):
    save_checkpoint(100)
    assert watch("--max_num_valid", "1").exit_code() == 0
    assert watch("--max_num_valid", "1", "--metrics", "RR@5", "R@20").exit_code() == 0
    assert set(results()[0]["metrics"]) == {"RR@5", "R@20"}


def test_a_broken_checkpoint_is_recorded_with_its_reason_and_the_daemon_goes_on(
    watch, save_checkpoint, results
):
    broken = save_checkpoint(100)
    weights = broken / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    os.utime(broken / "trainer_state.json")
    missing_layer = save_checkpoint(200)
    from safetensors.torch import load_file, save_file

    tensors = load_file(missing_layer / "model.safetensors")
    kept = {name: tensor for name, tensor in tensors.items() if "layer.0.output" not in name}
    save_file(kept, missing_layer / "model.safetensors", metadata={"format": "pt"})
    os.utime(missing_layer / "trainer_state.json")
    save_checkpoint(300)
    daemon = watch("--idle_timeout", "3")
    assert daemon.exit_code() == 4, daemon.log
    rows = results()
    assert [row["status"] for row in rows] == ["failed", "failed", "done"]
    assert "model.safetensors has" in rows[0]["reason"]
    assert "tensors of the model are not in the checkpoint" in rows[1]["reason"]
    assert rows[0]["metrics"] == rows[1]["metrics"] == {}


def test_a_folder_without_the_trainers_last_file_must_have_been_quiet(
    watch, save_checkpoint, results
):
    daemon = watch("--max_num_valid", "1", "--settle", "2")
    daemon.wait_for("Watching")
    began = time.monotonic()
    save_checkpoint(100, sentinel=False)
    daemon.wait_for("complete and queued")
    assert time.monotonic() - began >= 2
    assert daemon.exit_code() == 0
    assert results()[0]["status"] == "done"


def test_what_is_no_checkpoint_is_left_alone(watch, save_checkpoint, results, tmp_path):
    training = tmp_path / "training"
    for name in ("runs", "checkpoint-foo", "tmp-checkpoint-5", "checkpoint-10.pin"):
        (training / name).mkdir(parents=True)
    (training / "checkpoint-3").write_text("a file")
    save_checkpoint(100)
    assert watch("--max_num_valid", "1").exit_code() == 0
    assert [row["step"] for row in results()] == [100]


def test_the_watched_folder_is_never_written_to(watch, save_checkpoint, tmp_path):
    save_checkpoint(100)

    def state() -> list[tuple[str, int, int]]:
        paths = [tmp_path / "training", *sorted((tmp_path / "training").rglob("*"))]
        return [(str(p), p.stat().st_mtime_ns, p.stat().st_size) for p in paths]

    before = state()
    assert watch("--max_num_valid", "1").exit_code() == 0
    assert state() == before


def test_sigterm_ends_it_with_143_and_leaves_no_process(watch, save_checkpoint, results):
    daemon = watch()
    daemon.wait_for("Watching")
    workers = daemon.workers()
    assert len(workers) == 1
    assert daemon.end(signal.SIGTERM) == 143
    assert not is_running(workers[0])


def test_ctrl_c_twice_returns_the_job_to_the_queue_at_once(watch, save_checkpoint, results):
    save_checkpoint(100)
    daemon = watch()
    daemon.wait_for("validating on cpu")
    [worker] = daemon.workers()
    os.kill(worker, signal.SIGSTOP)  # it would be done too soon otherwise
    daemon.process.send_signal(signal.SIGINT)
    daemon.wait_for("Stopping.")
    assert results()[0]["status"] == "running"
    assert daemon.end(signal.SIGINT) == 130
    assert not is_running(worker)
    assert results()[0]["status"] == "queued"
    assert watch("--max_num_valid", "1").exit_code() == 0
    assert results()[0]["status"] == "done"


def test_a_killed_daemon_takes_its_worker_along_and_loses_nothing(watch, save_checkpoint, results):
    save_checkpoint(100)
    daemon = watch()
    daemon.wait_for("validating on cpu")
    [worker] = daemon.workers()
    os.kill(worker, signal.SIGSTOP)
    assert daemon.end(signal.SIGKILL) == -signal.SIGKILL
    deadline = time.monotonic() + 5
    while is_running(worker) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not is_running(worker)
    assert watch("--max_num_valid", "1").exit_code() == 0
    assert [row["status"] for row in results()] == ["done"]


def test_a_killed_worker_costs_an_attempt_and_nothing_else(watch, save_checkpoint, results):
    save_checkpoint(100)
    daemon = watch("--max_num_valid", "1")
    daemon.wait_for("validating on cpu")
    [worker] = daemon.workers()
    os.kill(worker, signal.SIGKILL)
    assert daemon.exit_code() == 0, daemon.log
    assert "ended unexpectedly (signal 9)" in daemon.log
    assert results()[0]["status"] == "done"


def test_a_second_daemon_on_the_same_output_is_refused(watch, save_checkpoint):
    first = watch()
    first.wait_for("Watching")
    second = watch()
    assert second.exit_code() == 2
    assert f"is in use by another asyncval (process {first.process.pid})" in second.log
    assert first.process.poll() is None


def test_the_training_folder_may_appear_later_and_be_made_again(
    watch, save_checkpoint, results, tmp_path
):
    daemon = watch("--max_num_valid", "2")
    daemon.wait_for("to appear")
    save_checkpoint(100)
    daemon.wait_for("checkpoint-100: RR@10")
    shutil.rmtree(tmp_path / "training")
    save_checkpoint(200)
    assert daemon.exit_code() == 0, daemon.log
    assert [row["step"] for row in results()] == [100, 200]


def test_a_rewritten_checkpoint_is_validated_again_and_shown_once(
    watch, save_checkpoint, results, tmp_path
):
    path = save_checkpoint(100)
    daemon = watch("--max_num_valid", "2")
    daemon.wait_for("checkpoint-100: RR@10")
    other = save_checkpoint(7, folder=tmp_path / "elsewhere")
    shutil.copyfile(other / "model.safetensors", path / "model.safetensors")
    (path / "trainer_state.json").write_text(json.dumps({"global_step": 100, "again": True}))
    assert daemon.exit_code() == 0, daemon.log
    [row] = results()
    assert row["status"] == "done"
    [(step, value)] = events(tmp_path / "validation" / "tensorboard" / "asyncval")["eval/nDCG@10"]
    assert step == 100
    assert value == pytest.approx(row["metrics"]["nDCG@10"])


def test_status_tells_what_waits_runs_and_failed(watch, save_checkpoint, tmp_path):
    from tests.e2e.conftest import asyncval

    save_checkpoint(100)
    save_checkpoint(200)
    daemon = watch()
    daemon.wait_for("validating on cpu")
    [worker] = daemon.workers()
    os.kill(worker, signal.SIGSTOP)
    done = asyncval("status", "--output_dir", str(tmp_path / "validation"))
    assert "checkpoint-200  queued" in done.stdout
    assert daemon.process.poll() is None


def test_the_ledger_survives_a_power_loss(watch, save_checkpoint, tmp_path):
    save_checkpoint(100)
    assert watch("--max_num_valid", "1").exit_code() == 0
    database = sqlite3.connect(tmp_path / "validation" / "ledger.sqlite")
    assert database.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    database.close()


def test_the_resolved_configuration_is_saved_and_can_be_given_again(
    start, watch, save_checkpoint, tmp_path
):
    save_checkpoint(100)
    assert watch("--max_num_valid", "1").exit_code() == 0
    saved = tmp_path / "validation" / "config.yaml"
    daemon = start("watch", "--config", str(saved), "--output_dir", str(tmp_path / "again"))
    assert daemon.exit_code() == 0, daemon.log
    assert (tmp_path / "again" / "runs" / "checkpoint-100.trec").read_bytes() == (
        tmp_path / "validation" / "runs" / "checkpoint-100.trec"
    ).read_bytes()


def test_the_daemon_itself_holds_neither_torch_nor_ranx(watch, save_checkpoint):
    save_checkpoint(100)
    daemon = watch()
    daemon.wait_for("RR@10")
    mapped = Path(f"/proc/{daemon.process.pid}/maps").read_text()
    for library in ("torch", "numba", "faiss", "scipy"):
        assert f"/{library}/" not in mapped


def test_a_missing_faiss_is_named_with_what_to_install(collection, tmp_path, monkeypatch):
    from tests.e2e.conftest import asyncval

    (tmp_path / "path").mkdir()
    (tmp_path / "path" / "faiss.py").write_text("raise ImportError('there is no faiss')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "path"))
    done = asyncval(
        "watch", *collection.flags(), "--ckpts_dir", str(tmp_path / "training"),
        "--output_dir", str(tmp_path / "out"), "--cache_dir", str(tmp_path / "cache"),
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1] == (
        "asyncval watch: FAISS is not installed: run `pip install asyncval[cpu]`, or `pip install "
        "asyncval[gpu]` for its CUDA build; or give --search_backend torch."
    )
