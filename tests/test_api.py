"""The public interface, used as its documentation says."""

import json

import numpy as np
import pytest

from asyncval.api import AsyncvalError, EncodingConfig, TextEncoder, TopK, in_trec_order
from tests.models import WORDS

QUERIES = ["ocean storm", "green light music"]


@pytest.fixture
def files(tmp_path):
    queries, passages = tmp_path / "queries.tsv", tmp_path / "corpus.jsonl"
    queries.write_text("".join(f"0{i}\t{text}\n" for i, text in enumerate(QUERIES)))
    texts = [" ".join(WORDS[i : i + 1 + i % 3]) for i in range(9)]
    rows = [json.dumps({"text_id": f"p{i}", "text": text}) for i, text in enumerate(texts)]
    passages.write_text("\n".join(rows))
    return queries, passages


def test_what_it_finds_is_what_numpy_finds_in_its_vectors(bert_folder, files, tmp_path):
    config = EncodingConfig(pooling="mean", cache_dir=tmp_path / "cache")
    encoder = TextEncoder(bert_folder, config, device="cpu")
    queries = encoder.tokenize([files[0]], is_query=True)
    passages = encoder.tokenize([files[1]], is_query=False)
    query_vectors = encoder.encode(queries, is_query=True)
    passage_vectors = encoder.encode(passages, is_query=False)
    assert (query_vectors.shape, passage_vectors.shape) == ((2, 16), (9, 16))
    assert list(queries.text_ids) == ["00", "01"]
    top = TopK(query_vectors, depth=3)
    top.add(passage_vectors, first=0)
    scores, positions = in_trec_order(*top.answers(), passage_ids=passages.text_ids, depth=3)
    expected = query_vectors @ passage_vectors.T
    assert positions.tolist() == np.argsort(-expected, axis=1)[:, :3].tolist()
    np.testing.assert_allclose(scores, -np.sort(-expected, axis=1)[:, :3], rtol=1e-6)


def test_rows_that_are_taken_out_of_a_store_are_encoded_to_the_same_vectors(
    bert_folder, files, tmp_path
):
    config = EncodingConfig(cache_dir=tmp_path / "cache")
    encoder = TextEncoder(bert_folder, config, device="cpu")
    passages = encoder.tokenize([files[1]], is_query=False)
    rows = np.array([7, 2, 5])
    some = passages.take(rows)
    assert list(some.text_ids) == ["p7", "p2", "p5"]
    whole = encoder.encode(passages, is_query=False)
    np.testing.assert_allclose(encoder.encode(some, is_query=False), whole[rows], atol=1e-6)


def test_what_had_to_be_assumed_is_said_and_what_cannot_be_done_is_one_sentence(
    bert_folder, tmp_path
):
    config = EncodingConfig(cache_dir=tmp_path / "cache")
    remarks = TextEncoder(bert_folder, config, device="cpu").remarks
    assert any("--pooling cls is assumed" in remark for remark in remarks)
    with pytest.raises(AsyncvalError, match=r"neither modules\.json nor config\.json"):
        TextEncoder(tmp_path, config, device="cpu")
