"""What only a GPU can tell; `pytest -m gpu` runs it, and CI does not."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from asyncval.checkpoints.recognition import load_checkpoint
from asyncval.core.types import Checkpoint, EncoderOptions, Precision
from asyncval.evaluation import resolve_precision
from asyncval.retrieval.encode import Encoding, encode
from asyncval.retrieval.search import TopK
from asyncval.retrieval.tokens import TokenStore
from tests.retrieval.stores import make_store

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device"),
]
GPU = "cuda:0"


@pytest.fixture
def store():
    return make_store(np.random.default_rng(1).integers(1, 30, size=600))


def vectors_of(
    store: TokenStore, folder: Path, *, device: str, precision: Precision = "fp32", **limits: Any
) -> NDArray[np.float32]:
    loaded = load_checkpoint(
        Checkpoint(path=folder, step=None, layout=""),
        EncoderOptions(pooling="mean", similarity="cos"),
        device=device,
        precision=precision,
    )
    encoding = Encoding(device=device, precision=precision, **limits)
    return encode(store, loaded.encoder.encode_passages, encoding=encoding)


@pytest.mark.parametrize("limits", [{}, {"batch_size": 7}, {"shrink": 3}])
def test_vectors_are_those_of_the_cpu(store, bert_folder, limits):
    found = vectors_of(store, bert_folder, device=GPU, **limits)
    np.testing.assert_allclose(found, vectors_of(store, bert_folder, device="cpu"), atol=1e-5)


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_half_precision_is_near(store, bert_folder, precision):
    found = vectors_of(store, bert_folder, device=GPU, precision=precision)
    expected = vectors_of(store, bert_folder, device="cpu")
    assert (found * expected).sum(axis=1).min() > 0.99


@pytest.mark.parametrize("backend", ["auto", "torch", "faiss"])
def test_answers_are_those_of_the_cpu(backend):
    draw = np.random.default_rng(2)
    queries, passages = (draw.normal(size=(n, 64)).astype(np.float32) for n in (50, 100_000))
    found = []
    for device in ("cpu", GPU):
        top = TopK(queries, depth=100, backend=backend, device=device)
        for first in range(0, len(passages), 40_000):
            some = torch.from_numpy(passages[first : first + 40_000]).to(device)
            top.add(some, first=first)
        scores, positions = top.answers()
        order = np.argsort(-scores, axis=1)[:, :100]
        found.append(np.take_along_axis(positions, order, 1))
    np.testing.assert_array_equal(found[0], found[1])


def test_auto_is_half_precision():
    assert resolve_precision(GPU, "auto")[0] in ("fp16", "bf16")
