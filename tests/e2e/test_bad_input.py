"""What a user can get wrong: one sentence that says where, exit code 2, nothing begun."""

import json
import os
import signal
from pathlib import Path

import pytest

from tests.e2e.conftest import Collection, asyncval
from tests.models import save_huggingface


def refused(collection: Collection, tmp_path: Path, *more: str) -> str:
    """Run `watch`, which must refuse; return its last line."""
    done = asyncval(
        "watch", *collection.flags(),
        "--ckpts_dir", str(tmp_path / "training"),
        "--output_dir", str(tmp_path / "out"),
        "--cache_dir", str(tmp_path / "cache"),
        "--idle_timeout", "1",
        *more,
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out" / "results.jsonl").exists()
    return done.stderr.strip().splitlines()[-1]


def test_a_missing_file_is_named_with_its_flag(collection, tmp_path):
    collection.queries.unlink()
    assert f"--query_file: there is no file {str(collection.queries)!r}" in refused(
        collection, tmp_path
    )


def test_an_empty_file_is_named(collection, tmp_path):
    collection.queries.write_text("")
    assert "is empty" in refused(collection, tmp_path)


def test_a_folder_without_passages_is_named(collection, tmp_path):
    (collection.corpus / "split00.jsonl").unlink()
    assert "has no passage file" in refused(collection, tmp_path)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('{"text_id": "x", "text": "half', "line 41: not valid JSON"),
        ('{"text": "no id"}', "line 41: no id"),
        ('{"text_id": "x"}', "line 41: no text"),
        ('{"text_id": "p3", "text": "again"}', "the passage id 'p3' stands twice"),
    ],
)
def test_a_bad_line_is_named_with_its_number(collection, tmp_path, line, said):
    corpus = collection.corpus / "split00.jsonl"
    corpus.write_text(corpus.read_text() + line + "\n")
    message = refused(collection, tmp_path)
    assert said in message
    assert "split00.jsonl" in message


def test_judgements_of_other_queries_are_refused_with_an_example(collection, tmp_path):
    collection.qrels.write_text("other1 0 p1 1\nother2 0 p2 1\n")
    message = refused(collection, tmp_path)
    assert "none of the 2 queries" in message
    assert "'other1'" in message


def test_judgements_of_another_corpus_are_refused_with_an_example(collection, tmp_path):
    collection.qrels.write_text("q1 0 d1 1\nq2 0 d2 1\n")
    message = refused(collection, tmp_path)
    assert "none of the 2 relevant passages" in message
    assert "'d1'" in message


def test_all_unknown_measures_are_named_at_once(collection, tmp_path):
    message = refused(collection, tmp_path, "--metrics", "RR@10", "foo@10", "P")
    assert "'foo@10', 'P'" in message


def test_a_depth_below_a_cutoff_is_refused(collection, tmp_path):
    message = refused(collection, tmp_path, "--depth", "5", "--metrics", "nDCG@10")
    assert "--depth 5 is below the cutoff of nDCG@10: give --depth 10 or more." in message


def test_an_output_folder_that_cannot_be_made_is_named(collection, tmp_path):
    (tmp_path / "file").write_text("")
    message = refused(collection, tmp_path, "--output_dir", str(tmp_path / "file" / "out"))
    assert "cannot be written" in message


def test_a_training_folder_that_is_a_file_is_named(collection, tmp_path):
    (tmp_path / "training").write_text("no folder")
    assert "is no folder" in refused(collection, tmp_path)


def test_the_training_folder_cannot_be_the_output_folder(collection, tmp_path):
    folder = str(tmp_path / "training")
    assert "is the trainer's alone" in refused(collection, tmp_path, "--output_dir", folder)


def test_an_output_folder_of_eval_is_tried_before_anything_is_encoded(collection, tmp_path):
    checkpoint = save_huggingface(tmp_path / "checkpoint-1")
    (tmp_path / "file").write_text("no folder")
    done = asyncval(
        "eval", str(checkpoint), *collection.flags(), "--output_dir", str(tmp_path / "file"),
        "--cache_dir", str(tmp_path / "cache"),
    )  # fmt: skip
    assert done.returncode == 2
    assert "file' cannot be written" in done.stderr
    assert not (tmp_path / "cache").exists()


def test_a_device_that_is_not_there_is_named(collection, tmp_path):
    message = refused(collection, tmp_path, "--devices", "cuda:63")
    assert "--devices: cuda:63 is not there" in message


def test_a_device_that_is_none_is_named(collection, tmp_path):
    assert "'tpu' is no device" in refused(collection, tmp_path, "--devices", "tpu")


def test_an_unknown_reporter_is_named_with_the_known_ones(collection, tmp_path):
    message = refused(collection, tmp_path, "--report_to", "tensorbord")
    assert "Did you mean 'tensorboard'?" in message


def test_a_reporter_that_cannot_be_made_is_named_with_what_it_must_take(collection, tmp_path):
    message = refused(collection, tmp_path, "--report_to", "asyncval.reporters.stop:StopReporter")
    assert "StopReporter' cannot be made: " in message
    assert "takes output_dir, logging_dir and run_name" in message


def test_an_unknown_command_is_named(tmp_path):
    done = asyncval("wach")
    assert done.returncode == 2
    assert done.stderr.startswith("asyncval: there is no command 'wach'. There are watch, eval,")


def test_an_unknown_key_in_the_configuration_file_is_named(collection, tmp_path):
    (tmp_path / "config.yaml").write_text("quey_file: x\n")
    message = refused(collection, tmp_path, "--config", str(tmp_path / "config.yaml"))
    assert "unknown option 'quey_file'. Did you mean 'query_file'?" in message


def test_a_ledger_that_is_not_there_is_named(tmp_path):
    done = asyncval("results", "--output_dir", str(tmp_path))
    assert done.returncode == 2
    assert "There is no ledger in" in done.stderr


def test_a_damaged_ledger_is_named(collection, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "ledger.sqlite").write_text("this is no database, whatever it is called")
    assert "cannot be used" in refused(collection, tmp_path)


def test_an_id_that_a_run_cannot_carry_is_named(collection, tmp_path):
    lines = collection.queries.read_text().splitlines()
    record = json.loads(lines[0]) | {"text_id": "q zero"}
    collection.queries.write_text("\n".join([json.dumps(record), *lines[1:]]))
    assert "'q zero' has white space" in refused(collection, tmp_path)


def test_a_checkpoint_that_is_not_there_is_named(collection, tmp_path):
    done = asyncval("eval", str(tmp_path / "nothing"), *collection.flags())
    assert done.returncode == 2
    assert "there is no folder" in done.stderr


@pytest.mark.parametrize("what", ["passages", "queries", "judgements"])
def test_data_that_changes_after_the_start_is_not_taken_for_what_it_was(
    watch, save_checkpoint, collection, tmp_path, what
):
    daemon = watch("--until_step", "1")
    daemon.wait_for("Watching")
    late = '{"text_id": "late", "text": "river stone"}\n'
    path, line = {
        "passages": (collection.corpus / "split00.jsonl", late),
        "queries": (collection.queries, late),
        "judgements": (collection.qrels, "q0\t0\tlate\t1\n"),
    }[what]
    with path.open("a") as file:
        file.write(line)
    if what != "passages":  # they are read when a process starts
        for worker in daemon.workers():
            os.kill(worker, signal.SIGKILL)
    save_checkpoint(1)
    assert daemon.exit_code() == 2
    assert "changed after the start. Start again" in daemon.log.splitlines()[-1]
    assert not (tmp_path / "validation" / "results.jsonl").read_text()
    status = asyncval("status", "--output_dir", str(tmp_path / "validation")).stdout
    assert "queued" in status
