import os
import threading

import numpy as np
import pytest
import torch

from asyncval.checkpoints.recognition import load_checkpoint
from asyncval.core.errors import CheckpointBroken
from asyncval.core.types import Checkpoint, EncoderOptions
from asyncval.retrieval import encode as encode_module
from asyncval.retrieval.encode import Encoding, encode, encode_portions
from tests.retrieval.stores import make_store

CPU = Encoding(device="cpu")


@pytest.fixture(scope="module")
def forward(bert_folder):
    checkpoint = Checkpoint(path=bert_folder, step=1, layout="huggingface")
    options = EncoderOptions(pooling="mean")
    loaded = load_checkpoint(checkpoint, options, device="cpu", precision="fp32")
    return loaded.encoder.encode_passages


@pytest.fixture
def store():
    return make_store(np.random.default_rng(1).integers(1, 30, size=60))


@pytest.fixture
def cores(monkeypatch):
    """Return a function that says how many cores this process may use."""
    return lambda number: monkeypatch.setattr(
        os, "sched_getaffinity", lambda process: set(range(number))
    )


@pytest.mark.parametrize("batch_size", [1, 3, 60, 1000])
def test_the_vectors_do_not_depend_on_the_batch_size(store, forward, batch_size):
    vectors = encode(store, forward, encoding=Encoding(device="cpu", batch_size=batch_size))
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(vectors, encode(store, forward, encoding=CPU), atol=1e-5)


def test_each_vector_is_that_of_its_text_alone(store, forward):
    vectors = encode(store, forward, encoding=CPU)
    for row in range(len(store)):
        ids = store.ids[store.offsets[row] : store.offsets[row + 1]].astype(np.int64)
        tokens = torch.from_numpy(ids)[None]
        with torch.inference_mode():
            alone = forward(tokens, torch.ones_like(tokens))[0]
        np.testing.assert_allclose(vectors[row], alone, atol=1e-5)


def test_one_worker_and_two_give_the_same_bits(store, forward, cores, monkeypatch):
    monkeypatch.setattr(encode_module, "CPU_TOKENS", 64)
    found = []
    for number in (1, 2, 2, 3):
        cores(number)
        assert CPU.num_workers == number
        found.append(encode(store, forward, encoding=CPU))
    assert all(np.array_equal(found[0], other) for other in found)


def test_as_many_workers_as_there_are_cores_work_at_once(store, cores, monkeypatch):
    monkeypatch.setattr(encode_module, "CPU_TOKENS", 64)
    cores(2)
    together = threading.Barrier(2)
    met: list[int] = []

    def meet(ids, mask):
        if not met:
            together.wait(timeout=10)
            met.append(torch.get_num_threads())
        return torch.zeros(len(ids), 4)

    encode(store, meet, encoding=CPU)
    assert 1 <= len(met) <= 2
    assert set(met) == {1}  # each has one thread of torch's own


def test_portions_are_consecutive_and_give_what_one_buffer_gives(store, forward, monkeypatch):
    monkeypatch.setattr(encode_module, "CPU_TEXTS", 17)
    progress: list[int] = []
    portions = list(encode_portions(store, forward, encoding=CPU, on_progress=progress.append))
    assert [portion.first for portion in portions] == [0, 17, 34, 51]
    together = np.concatenate([portion.vectors for portion in portions])
    assert np.array_equal(together, encode(store, forward, encoding=CPU))
    assert progress == sorted(progress)
    assert progress[-1] == 60
    monkeypatch.undo()
    np.testing.assert_allclose(together, encode(store, forward, encoding=CPU), atol=1e-5)


def test_progress_ends_with_all_texts(store, forward):
    progress: list[int] = []
    encoding = Encoding(device="cpu", batch_size=16)
    encode(store, forward, encoding=encoding, on_progress=progress.append)
    assert progress == sorted(progress)
    assert progress[-1] == 60
    assert len(progress) >= 4


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_vector_that_is_no_number_means_a_broken_checkpoint(store, value):
    def diverged(ids, mask):
        vectors = torch.ones(len(ids), 4)
        vectors[mask.sum(dim=1) == 29, 2] = value
        return vectors

    number = int((store.lengths == 29).sum())
    assert number > 0
    with pytest.raises(CheckpointBroken, match=f"{number} of 60 vectors"):
        encode(store, diverged, encoding=CPU)


def test_half_precision_vectors_become_float32(store):
    vectors = encode(store, lambda ids, mask: torch.ones(len(ids), 4).bfloat16(), encoding=CPU)
    assert vectors.dtype == np.float32


def test_an_error_in_a_worker_is_raised_and_the_rest_is_not_computed(store, cores, monkeypatch):
    monkeypatch.setattr(encode_module, "CPU_TOKENS", 30)
    cores(1)
    calls = []

    def fail(ids, mask):
        calls.append(1)
        if len(calls) > 1:
            threading.Event().wait(0.2)  # gives the caller the time to call off the rest
        raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):
        encode(store, fail, encoding=CPU)
    assert len(calls) < 5


def test_after_memory_ran_out_the_portions_are_smaller_and_the_vectors_the_same(store, forward):
    smaller = Encoding(device="cpu", shrink=2)
    assert smaller.max_tokens == CPU.max_tokens // 16
    vectors = encode(store, forward, encoding=smaller)
    np.testing.assert_allclose(vectors, encode(store, forward, encoding=CPU), atol=1e-5)
    assert Encoding(device="cpu", shrink=50).max_tokens == 1
