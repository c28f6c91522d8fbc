"""`train --asyncval`: the daemon beside the training."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.trainer.collections import write_collection
from trainer.beside import validation_beside
from trainer.errors import InputError

PATIENCE_SECONDS = 60


@pytest.fixture
def config_file(tmp_path):
    """A configuration of `asyncval watch` without its folders."""
    files = write_collection(tmp_path / "data")
    path = tmp_path / "asyncval.yaml"
    options = {
        "query_file": str(files.queries),
        "candidate_dir": str(files.corpus),
        "qrel_file": str(files.qrels),
        "cache_dir": str(tmp_path / "cache"),
        "devices": "cpu",
        "settle": 0.2,
    }
    path.write_text(json.dumps(options))
    return path


@pytest.fixture
def command(bert_folder, tmp_path):
    """Return the command line of a training of six steps, three of them with a checkpoint."""
    train_file = tmp_path / "train.jsonl"
    train_file.write_text('{"query": "ocean storm", "positive": "river light"}\n' * 8)

    def words(config_file, **more):
        flags = {
            "model_name_or_path": bert_folder, "train_file": train_file,
            "output_dir": tmp_path / "training", "train_n_passages": 1, "max_steps": 6,
            "p_max_len": 32, "save_steps": 2, "per_device_train_batch_size": 2, "use_cpu": True,
            "report_to": "none", "asyncval": config_file, **more,
        }  # fmt: skip
        named = [str(word) for name, value in flags.items() for word in (f"--{name}", value)]
        return [sys.executable, "-m", "trainer", "train", *named]

    return words


def test_every_checkpoint_is_validated_and_both_have_ended(command, config_file, tmp_path):
    done = subprocess.run(
        command(config_file), check=False, capture_output=True, text=True, timeout=PATIENCE_SECONDS
    )
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    validation = tmp_path / "training-validation"
    rows = [json.loads(line) for line in (validation / "results.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows if row["step"]] == [2, 4, 6]
    assert {row["status"] for row in rows} == {"done"}
    assert f"asyncval results --output_dir {validation} shows what it found." in done.stderr
    assert "Watching" in (validation / "asyncval.log").read_text()


def running_daemons(tmp_path):
    """Return the process numbers of daemons that watch this test's folder."""
    found = []
    for status in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = status.read_bytes().decode(errors="replace").split("\0")
        except OSError:
            continue
        if "watch" in words and str(tmp_path / "training") in words:
            found.append(int(status.parent.name))
    return found


def test_the_daemon_ends_with_a_training_that_is_killed(command, config_file, tmp_path):
    process = subprocess.Popen(
        command(config_file, max_steps=100000, save_steps=50000), stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    assert any("Asyncval watches" in line for line in process.stderr)
    assert len(running_daemons(tmp_path)) == 1
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    deadline = time.monotonic() + PATIENCE_SECONDS
    while running_daemons(tmp_path):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.stderr.close()


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (None, "cannot be read: No such file or directory. It should have the options of"),
        ("a: [", "is not valid YAML: "),
        ("query_filez: x.jsonl", "has the unknown option 'query_filez'. Did you mean"),
        ("query_file: nowhere.jsonl", "asyncval watch: --candidate_dir is missing"),
        (
            "query_file: q.tsv\ncandidate_dir: .\nqrel_file: nowhere\n",
            "asyncval watch: --qrel_file: there is no file 'nowhere'.",
        ),
    ],
)
def test_what_asyncval_refuses_is_said_before_the_training(tmp_path, content, sentence):
    path = tmp_path / "asyncval.yaml"
    if content is not None:
        path.write_text(content)
    with (
        pytest.raises(InputError) as caught,
        validation_beside(str(path), training_dir=tmp_path / "training"),
    ):
        pytest.fail("the training began")
    assert sentence in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_a_training_that_fails_ends_the_daemon(config_file, tmp_path):
    def fail():
        with validation_beside(str(config_file), training_dir=tmp_path / "training"):
            assert len(running_daemons(tmp_path)) == 1
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert running_daemons(tmp_path) == []


def test_without_the_flag_and_on_other_ranks_nothing_is_started(tmp_path, monkeypatch):
    with validation_beside(None, training_dir=tmp_path / "training"):
        pass
    monkeypatch.setenv("RANK", "1")
    with validation_beside("nowhere.yaml", training_dir=tmp_path / "training"):
        pass
    assert list(tmp_path.iterdir()) == []
