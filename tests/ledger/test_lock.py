import subprocess
import sys

import pytest

from asyncval.core.errors import OutputUnavailable
from asyncval.ledger.lock import OutputLock, is_held

HOLD = """
import sys
from pathlib import Path
from asyncval.ledger.lock import OutputLock, is_held
lock = OutputLock(Path(sys.argv[1]))
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def holder(tmp_path):
    """Another process that holds the folder."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path / "out")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_a_folder_in_use_is_refused_with_the_process_that_holds_it(tmp_path, holder):
    with pytest.raises(OutputUnavailable, match=rf"in use by .*\(process {holder.pid}\)"):
        OutputLock(tmp_path / "out")


def test_the_lock_ends_with_its_process_however_it_ends(tmp_path, holder):
    holder.kill()
    holder.wait()
    OutputLock(tmp_path / "out").release()


def test_a_folder_that_was_let_go_can_be_taken_again(tmp_path):
    for _ in range(2):
        lock = OutputLock(tmp_path / "out")
        with pytest.raises(OutputUnavailable):
            OutputLock(tmp_path / "out")
        lock.release()


def test_a_child_does_not_inherit_the_lock(tmp_path):
    lock = OutputLock(tmp_path)
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    with child:
        lock.release()
        OutputLock(tmp_path).release()
        child.kill()


def test_a_folder_that_cannot_be_written_is_refused_in_words(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputUnavailable, match=r"--output_dir: .* cannot be written"):
        OutputLock(tmp_path / "file" / "out")


def test_others_can_tell_whether_it_is_held(tmp_path):
    assert not is_held(tmp_path)
    lock = OutputLock(tmp_path)
    assert is_held(tmp_path)
    lock.release()
    assert not is_held(tmp_path)


def test_a_file_is_no_output_folder(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OutputUnavailable, match="is no folder"):
        OutputLock(tmp_path / "file")
