"""The files of the checkpoint that comes next are in memory when they are wanted."""

import os
import shutil
import subprocess
import time

import pytest

from asyncval.checkpoints.pins import read_ahead

NUM_BYTES = 2**23
PATIENCE_SECONDS = 20


def bytes_in_memory(path):
    fields = ["fincore", "--bytes", "--noheadings", "--output", "RES", path]
    return int(subprocess.run(fields, capture_output=True, text=True, check=True).stdout)


def put_on_disk(path):
    with path.open("wb") as file:
        file.write(os.urandom(NUM_BYTES))
        file.flush()
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


@pytest.mark.skipif(shutil.which("fincore") is None, reason="fincore is not installed")
def test_a_folders_files_are_read_into_memory(tmp_path):
    paths = [tmp_path / "model.safetensors", tmp_path / "2_Dense" / "model.safetensors"]
    for path in paths:
        path.parent.mkdir(exist_ok=True)
        put_on_disk(path)
    if any(bytes_in_memory(path) for path in paths):
        pytest.skip("this file system keeps its files in memory")
    read_ahead(tmp_path)
    deadline = time.monotonic() + PATIENCE_SECONDS
    while any(bytes_in_memory(path) < NUM_BYTES for path in paths):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_folder_that_is_gone_is_passed_over(tmp_path):
    read_ahead(tmp_path / "nowhere")
