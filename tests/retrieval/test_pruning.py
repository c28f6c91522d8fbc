import os
import subprocess
import sys

import pytest

from asyncval.retrieval.pruning import MARK, PARTIAL, being_made, hold, prune


@pytest.fixture
def make_store(tmp_path):
    def make(name, *, used, size=100):
        folder = tmp_path / "tokens" / name
        folder.mkdir(parents=True)
        (folder / "ids.bin").write_bytes(b"x" * (size - 2))
        (folder / MARK).write_text("{}")
        os.utime(folder / MARK, (used, used))
        return folder

    return make


def names(tmp_path):
    return sorted(path.name for path in (tmp_path / "tokens").iterdir())


def test_what_was_not_used_for_longest_goes_until_the_rest_fits(make_store, tmp_path):
    for name, used in (("a", 30), ("b", 10), ("c", 20), ("d", 40)):
        make_store(name, used=used)
    prune(tmp_path / "tokens", max_bytes=400)
    assert names(tmp_path) == ["a", "b", "c", "d"]
    prune(tmp_path / "tokens", max_bytes=250)
    assert names(tmp_path) == ["a", "d"]
    prune(tmp_path / "tokens", max_bytes=0)
    assert names(tmp_path) == []


def test_opening_a_store_counts_as_use(make_store, tmp_path):
    old, _ = make_store("old", used=10), make_store("new", used=20)
    held = hold(old)
    assert held is not None
    os.close(held)
    prune(tmp_path / "tokens", max_bytes=100)
    assert names(tmp_path) == ["old"]


def test_a_store_that_another_process_uses_stays(make_store, tmp_path):
    store = make_store("a", used=10)
    make_store("b", used=20)
    code = (
        "import sys; from pathlib import Path; from asyncval.retrieval.pruning import hold\n"
        "hold(Path(sys.argv[1])); print('held', flush=True); sys.stdin.read()"
    )
    user = subprocess.Popen(
        [sys.executable, "-c", code, str(store)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert user.stdout is not None
    assert user.stdout.readline() == b"held\n"
    prune(tmp_path / "tokens", max_bytes=0)
    assert names(tmp_path) == ["a"]
    user.communicate()
    prune(tmp_path / "tokens", max_bytes=0)
    assert names(tmp_path) == []


def test_a_store_that_is_being_made_is_left_alone(make_store, tmp_path):
    make_store(".partial-x", used=10)
    prune(tmp_path / "tokens", max_bytes=0)
    assert names(tmp_path) == [".partial-x"]


def test_a_store_that_is_gone_cannot_be_held(tmp_path):
    assert hold(tmp_path / "nothing") is None


def test_what_a_killed_maker_left_is_removed_and_what_is_being_made_stays(tmp_path):
    folder = tmp_path / "tokens"
    folder.mkdir()
    with being_made(folder) as slow:
        left = folder / f"{PARTIAL}left"
        left.mkdir()
        (left / "ids.bin").write_bytes(b"x")
        for path in (slow, left):
            os.utime(path, (10, 10))
        with being_made(folder) as quick:
            assert names(tmp_path) == sorted([slow.name, quick.name])
    assert names(tmp_path) == []
