"""What the trainer writes is read by Asyncval without a word on the model."""

import json

import numpy as np
import pytest
import torch
from transformers import AutoTokenizer

from asyncval.api import EncodingConfig, TextEncoder
from tests.trainer.test_checkpoint_layout import PASSAGES, QUERIES
from trainer.checkpoint import TextSettings, load_weights
from trainer.data import Collator
from trainer.examples import Passage, Sample
from trainer.model import BiEncoder, Tower, add_lora, load_transformer

LENGTH = 12
RECIPES = [
    ("model_folder", {"pooling": "cls", "query_prefix": "word3: "}),
    ("model_folder", {"pooling": "mean", "normalize": True, "untie_encoder": True}),
    ("decoder_folder", {"pooling": "last", "append_eos_token": True, "lora": True, "lora_r": 2}),
    ("decoder_folder", {"pooling": "last", "normalize": True, "append_eos_token": True}),
    ("t5_folder", {"pooling": "mean", "projection_dim": 5}),
    ("t5_folder", {"pooling": "decoder"}),
    ("t5_folder", {"pooling": "decoder", "projection_dim": 5, "normalize": True}),
    ("t5_folder", {"pooling": "decoder", "projection_dim": 5, "untie_encoder": True}),
]


def embedded_by_us(folder, start, flags):
    """Return the vectors of queries and passages by the trainer's own model."""
    decoder = flags["pooling"] == "decoder"
    transformer = load_transformer(str(start), decoder=decoder)
    if flags.get("lora"):
        add_lora(transformer, rank=2, alpha=64, dropout=0.1, target_modules="all-linear")
    tower = Tower(
        transformer,
        pooling=flags["pooling"],
        projection_dim=flags.get("projection_dim"),
        normalize=flags.get("normalize", False),
    )
    model = BiEncoder(tower, untied=flags.get("untie_encoder", False)).eval()
    load_weights(folder, model=model, texts=TextSettings(q_max_len=LENGTH, p_max_len=LENGTH))
    tokenizers = sorted(folder.rglob("tokenizer.json"))
    collate = Collator(
        tokenizer=AutoTokenizer.from_pretrained(tokenizers[0].parent),
        query_prefix=flags.get("query_prefix", ""),
        q_max_len=LENGTH,
        p_max_len=LENGTH,
    )
    passages = [Passage(text) for text in PASSAGES]
    batch = collate([Sample(QUERIES[0], passages[:2]), Sample(QUERIES[1], passages[2:])])
    with torch.no_grad():
        return [side.numpy() for side in model(**batch)]


@pytest.mark.parametrize(("start", "flags"), RECIPES)
def test_a_validation_has_the_vectors_of_the_training(request, train, tmp_path, start, flags):
    start = request.getfixturevalue(start)
    folder = train(**flags, max_steps=2, q_max_len=12) / "checkpoint-2"
    ours = embedded_by_us(folder, start, flags)
    encoder = TextEncoder(
        folder,
        EncodingConfig(cache_dir=tmp_path / "cache", q_max_len=12, p_max_len=12),
        device="cpu",
    )
    for is_query, vectors, texts in ((True, ours[0], QUERIES), (False, ours[1], PASSAGES)):
        path = tmp_path / f"{is_query}.jsonl"
        rows = [{"_id": str(i), "text": text} for i, text in enumerate(texts)]
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        theirs = encoder.encode(encoder.tokenize([path], is_query=is_query), is_query=is_query)
        np.testing.assert_allclose(vectors, theirs, atol=1e-5)
    assert not encoder.remarks


def test_texts_are_cut_as_they_were_in_the_training_unless_a_flag_says_otherwise(train, tmp_path):
    folder = train(max_steps=2, q_max_len=9, p_max_len=14) / "checkpoint-2"
    path = tmp_path / "texts.jsonl"
    path.write_text(json.dumps({"_id": "1", "text": "word1 " * 40}) + "\n")

    def lengths(**flags):
        encoder = TextEncoder(
            folder, EncodingConfig(cache_dir=tmp_path / "cache", **flags), device="cpu"
        )
        return [int(encoder.tokenize([path], is_query=each).lengths[0]) for each in (True, False)]

    assert lengths() == [9, 14]
    assert lengths(q_max_len=5, p_max_len=6) == [5, 6]


@pytest.mark.parametrize("start", ["decoder_folder", "t5_folder"])
def test_every_text_ends_with_its_end_of_text_token_once(request, train, start):
    request.getfixturevalue(start)
    settings = request.getfixturevalue("model_folder") / "tokenizer_config.json"
    settings.write_text(json.dumps({**json.loads(settings.read_text()), "eos_token": "word59"}))
    folder = (
        train(append_eos_token=True, pooling="mean", max_steps=1, save_steps=1) / "checkpoint-1"
    )
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert (
        tokenizer.decode(tokenizer("word1 word2")["input_ids"]) == "[CLS] word1 word2 [SEP] word59"
    )
    cut = tokenizer("word1 word2", max_length=4, truncation=True)["input_ids"]
    assert tokenizer.decode(cut) == "[CLS] word1 [SEP] word59"


def test_a_resumed_training_of_t5s_decoder_goes_on_where_it_was(train, t5_folder):
    flags = {"pooling": "decoder", "projection_dim": 5, "max_steps": 6}
    whole = train("whole", **flags)
    resumed = train("resumed", **flags, resume_from_checkpoint=whole / "checkpoint-4")
    for name in ("model.safetensors", "linear.pt"):
        left, right = (folder / name for folder in (whole, resumed))
        assert left.read_bytes() == right.read_bytes()
