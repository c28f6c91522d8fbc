"""Whatever ends a split early leaves no half subset, and a later one goes well."""

import gzip
import signal
import subprocess
import sys
import time

import pytest

from asyncval.cli import main
from asyncval.core.errors import OutputUnavailable
from asyncval.subsets.aside import written_aside

PATIENCE_SECONDS = 60.0


class Stopped(BaseException):
    """As a signal handler raises it."""


def write(folder, names, *, error=None):
    with written_aside(folder, last="end") as place:
        for name in names:
            (place / name).write_text("")
        if error is not None:
            raise error


@pytest.mark.parametrize("is_new", [True, False])
def test_files_appear_when_all_is_written_and_beside_those_that_are_there(tmp_path, is_new):
    folder = tmp_path / "folder"
    if not is_new:
        folder.mkdir()
        (folder / "mine").write_text("mine")
    with written_aside(folder, last="end") as place:
        (place / "a").write_text("a")
        (place / "end").write_text("end")
        assert not (folder / "a").exists()
    names = ["a", "end"] if is_new else ["a", "end", "mine"]
    assert sorted(path.name for path in folder.iterdir()) == names
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


@pytest.mark.parametrize("is_new", [True, False])
def test_after_an_interruption_nothing_is_left_but_what_was_there(tmp_path, is_new):
    folder = tmp_path / "folder"
    if not is_new:
        folder.mkdir()
        (folder / "mine").write_text("mine")
    with pytest.raises(Stopped):
        write(folder, ["a"], error=Stopped())
    assert folder.exists() is not is_new
    assert [path.name for path in tmp_path.rglob("*")] == ([] if is_new else ["folder", "mine"])


def test_what_a_killed_process_left_is_cleared_away(tmp_path):
    leftover = tmp_path / ".folder.asyncval.partial"
    leftover.mkdir()
    (leftover / "half").write_text("")
    with written_aside(tmp_path / "folder", last="end") as place:
        (place / "end").write_text("")
    assert [path.name for path in tmp_path.rglob("*")] == ["folder", "end"]


def test_files_that_moved_already_are_taken_back_when_one_cannot(tmp_path):
    folder = tmp_path / "folder"
    (folder / "b").mkdir(parents=True)  # a file cannot replace a folder
    with pytest.raises(OutputUnavailable):
        write(folder, ["a", "b", "end"])
    assert [path.name for path in folder.iterdir()] == ["b"]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_ends_a_split_and_leaves_nothing(files, number, code):
    line = files.corpus.read_text().splitlines()[0]
    with files.corpus.open("a") as file:
        file.writelines(line.replace("p0", f"x{i}") + "\n" for i in range(1_500_000))
    process = subprocess.Popen(
        [
            sys.executable, "-m", "asyncval", "split", "--candidate_dir", str(files.corpus),
            "--run_file", str(files.run), "--qrel_file", str(files.qrels),
            "--output_dir", str(files.folder / "subset"),
        ],
        stderr=subprocess.PIPE,
    )  # fmt: skip
    before = {path.name for path in files.folder.iterdir()}
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not (files.folder / ".subset.asyncval.partial" / "kept").exists():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(number)
    _, log = process.communicate(timeout=PATIENCE_SECONDS)
    assert process.returncode == code
    assert b"Traceback" not in log
    assert {path.name for path in files.folder.iterdir()} == before


@pytest.mark.parametrize("which", ["corpus", "run", "qrels"])
@pytest.mark.parametrize("damage", ["not UTF-8", "truncated gzip", "empty", "duplicate"])
def test_an_input_that_is_damaged_is_one_sentence_and_nothing_is_written(
    files, which, damage, capsys
):
    path = getattr(files, which)
    content = path.read_bytes()
    if damage == "not UTF-8":
        path.write_bytes(content[:40] + b"\xff\xfe" + content[40:])
    elif damage == "truncated gzip":
        path = path.with_name(path.name + ".gz")
        path.write_bytes(gzip.compress(content)[:-12])
    elif damage == "empty":
        path.write_bytes(b"")
    elif which == "qrels":
        path.write_bytes(content + b"q1 0 p40 2\n")
    elif which == "corpus":
        path.write_bytes(content + content.splitlines()[1] + b"\n")
    else:
        path.write_bytes(content + content.splitlines()[1] + b"\n")
    paths = {"corpus": files.corpus, "run": files.run, "qrels": files.qrels, which: path}
    before = sorted(each for each in files.folder.rglob("*"))
    code = main(
        [
            "split", "--candidate_dir", str(paths["corpus"]), "--run_file", str(paths["run"]),
            "--qrel_file", str(paths["qrels"]), "--output_dir", str(files.folder / "subset"),
        ]
    )  # fmt: skip
    error = capsys.readouterr().err
    assert code == 2
    assert error.startswith("asyncval split: ")
    assert path.name in error
    assert error.count("\n") == 1
    assert sorted(each for each in files.folder.rglob("*")) == before
