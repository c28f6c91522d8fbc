"""What the evaluation process makes of an error that nobody foresaw."""

import errno
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from asyncval.core.types import Checkpoint, Job
from asyncval.worker import EXIT_LOST_DEVICE, cause_of, serve


class Ended(BaseException):
    """Stands for the end of the process."""


class Failing:
    """An evaluation that fails."""

    def __init__(self, error):
        self.error = error

    def run(self, checkpoint, **_):
        raise self.error


@pytest.fixture
def said(monkeypatch, tmp_path):
    """Serve one job whose evaluation fails; return the last message, or the exit code."""

    def end(code):
        raise Ended(code)

    def call(error):
        messages = []
        failing: Any = Failing(error)
        checkpoint = Checkpoint(path=tmp_path, step=1, layout="")
        monkeypatch.setattr(os, "_exit", end)
        try:
            serve(
                Job(id=1, checkpoint=checkpoint, attempts=1),
                failing,
                lambda kind, **values: messages.append({"kind": kind, **values}),
            )
        except Ended as ended:
            return ended.args[0]
        return messages[-1]

    return call


def test_a_process_that_lost_its_device_ends_and_says_nothing_of_the_checkpoint(said):
    error = RuntimeError("CUDA error: device-side assert triggered")
    assert said(error) == EXIT_LOST_DEVICE
    assert said(RuntimeError("CUDA error: out of memory"))["cause"] == "memory"
    assert said(RuntimeError("shapes do not match"))["cause"] == ""


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        (MemoryError(), "memory"),
        (torch.OutOfMemoryError("CUDA out of memory."), "memory"),
        (RuntimeError("Error: 'err == cudaSuccess' failed: alloc failed: 3 GiB"), "memory"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), "memory"),
        (OSError(errno.ENOSPC, "No space left on device"), "disk"),
        (OSError(errno.EIO, "Input/output error"), ""),
        (ValueError("alloc failed"), ""),
    ],
)
def test_what_the_daemon_can_do_something_about_is_named(error, cause):
    assert cause_of(error) == cause


def test_numpys_own_words_for_a_full_disk_are_known():
    with (
        Path("/dev/full").open("wb", buffering=0) as full,
        pytest.raises(OSError, match="requested") as caught,
    ):
        np.zeros(1 << 20).tofile(full)
    assert cause_of(caught.value) == "disk"
