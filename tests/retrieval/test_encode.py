import itertools
import os
import threading
from dataclasses import replace

import numpy as np
import pytest
import torch

from asyncval.checkpoints.recognition import load_checkpoint
from asyncval.core.errors import CheckpointBroken
from asyncval.core.types import Checkpoint, EncoderOptions
from asyncval.retrieval import encode as encode_module
from asyncval.retrieval.device import encode_on_device
from asyncval.retrieval.encode import Encoding, encode, encode_portions
from asyncval.retrieval.tokens import TextIds, TokenStore
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
    together = torch.cat([portion.vectors for portion in portions]).numpy()
    assert np.array_equal(together, encode(store, forward, encoding=CPU))
    assert progress == sorted(progress)
    assert progress[-1] == 60
    assert sum(portion.num_tokens for portion in portions) == store.lengths.sum()
    assert all(portion.num_padded >= portion.num_tokens for portion in portions)
    monkeypatch.undo()
    np.testing.assert_allclose(together, encode(store, forward, encoding=CPU), atol=1e-5)


@pytest.mark.parametrize("limits", [{}, {"batch_size": 3}, {"shrink": 1}])
@pytest.mark.parametrize("vocabulary", [80, 70_000])
def test_the_code_for_a_gpu_gives_what_that_for_cores_gives(
    store, forward, limits, vocabulary, monkeypatch
):
    monkeypatch.setattr(encode_module, "CPU_TOKENS", 100)
    dtype = np.uint16 if vocabulary < 2**16 else np.uint32
    store = replace(store, ids=store.ids.astype(dtype))[7:55]  # not from the first token on
    encoding = Encoding(device="cpu", **limits)
    batches = encoding.batches(store.lengths)
    assert {batch.is_padded for batch in batches} == {True, False}
    progress: list[int] = []
    vectors = encode_on_device(store, batches, forward, device="cpu", on_progress=progress.append)
    np.testing.assert_allclose(vectors, encode(store, forward, encoding=encoding), atol=1e-6)
    assert progress == list(itertools.accumulate(len(batch.rows) for batch in batches))


def test_large_token_ids_keep_their_value_on_the_device():
    ids = np.array([0, 1, 40_000, 65_535])
    offsets = np.array([0, 2, 4])
    for dtype in (np.uint16, np.uint32):
        found: list[int] = []
        tokens = TokenStore(ids=ids.astype(dtype), offsets=offsets, text_ids=TextIds.of("ab"))

        def forward(inputs, mask, found=found):
            found += inputs.flatten().tolist()
            return torch.zeros(len(inputs), 3)

        batches = CPU.batches(tokens.lengths)
        encode_on_device(tokens, batches, forward, device="cpu", on_progress=lambda done: None)
        assert found == ids.tolist()


def test_in_bf16_on_a_cpu_lengths_are_rounded_up_to_what_its_attention_likes(store, monkeypatch):
    monkeypatch.setattr(encode_module, "CPU_TOKENS", 100)
    widths = set()

    def note(ids, mask):
        widths.add(ids.shape[1])
        return torch.zeros(len(ids), 4)

    encode(store, note, encoding=replace(CPU, precision="bf16", longest=27))
    assert widths == {16, 27, 28, 29}
    widths.clear()
    encode(store, note, encoding=CPU)
    assert widths >= {8, 10, 29}


def test_texts_of_one_length_come_with_a_mask_that_none_has_to_look_at(forward):
    masks = []

    def note(ids, mask):
        masks.append(mask)
        return forward(ids, mask)

    even = make_store([9] * 6)
    vectors = encode(even, note, encoding=CPU)
    assert masks[0].stride() == (0, 0)
    assert masks[0].shape == (6, 9)
    with torch.inference_mode():
        ids = torch.from_numpy(even.ids.astype(np.int64).reshape(6, 9))
        np.testing.assert_allclose(vectors, forward(ids, torch.ones_like(ids)), atol=1e-6)
    masks.clear()
    encode(make_store([9, 4, 5, 6]), note, encoding=CPU)
    assert masks[0].stride() != (0, 0)


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
