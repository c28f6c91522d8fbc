import json
import os

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModel,
    BertForMaskedLM,
    BertForSequenceClassification,
    BertModel,
    T5Config,
)

from asyncval.checkpoints.completeness import examine
from asyncval.checkpoints.folder import Folder
from asyncval.checkpoints.loading import TwoTowers, pool
from asyncval.checkpoints.recognition import load_checkpoint
from asyncval.core.errors import CheckpointBroken, CheckpointError, CheckpointUnsupported
from asyncval.core.types import Checkpoint, EncoderOptions, LoadedCheckpoint
from tests.models import bert_config, make_sentences, make_tokenizer

LENGTHS = [7, 3, 12, 1]


def load(folder, precision="fp32", **options):
    checkpoint = Checkpoint(path=folder, step=1, layout="")
    return load_checkpoint(checkpoint, EncoderOptions(**options), device="cpu", precision=precision)


def make_batch(lengths=LENGTHS):
    """Return ids and mask, [B, T], padded on the right with zeros."""
    draw = np.random.default_rng(0)
    mask = np.arange(max(lengths))[None, :] < np.array(lengths)[:, None]
    ids = np.where(mask, draw.integers(4, 40, size=mask.shape), 0)
    return torch.from_numpy(ids), torch.from_numpy(mask.astype(np.int64))


def encode(loaded, *, side="passages"):
    with torch.inference_mode():
        return getattr(loaded.encoder, f"encode_{side}")(*make_batch()).numpy()


POOLINGS = {
    "cls": lambda hidden: hidden[0],
    "last": lambda hidden: hidden[-1],
    "max": lambda hidden: hidden.max(axis=0),
    "mean": lambda hidden: hidden.sum(axis=0) / len(hidden),
    "mean_sqrt_len": lambda hidden: hidden.sum(axis=0) / np.sqrt(len(hidden)),
    "weightedmean": lambda hidden: np.average(hidden, axis=0, weights=1 + np.arange(len(hidden))),
}
"""Hidden states of one text, [T, H], to its vector."""


def hidden_states(folder):
    """Return the last hidden states of each text of the batch, [T, H], made without padding."""
    model = AutoModel.from_pretrained(folder).eval()
    ids, mask = make_batch()
    with torch.no_grad():
        outputs = [
            model(input_ids=row[None, :length])
            for row, length in zip(ids, mask.sum(dim=1), strict=True)
        ]
    return [output.last_hidden_state[0].double().numpy() for output in outputs]


def plain_vectors(folder, pooling):
    """Return the vectors that one text at a time gives, without padding, by plain arithmetic."""
    return np.stack([POOLINGS[pooling](hidden) for hidden in hidden_states(folder)])


def unit(vectors):
    return vectors / np.sqrt((vectors**2).sum(axis=1, keepdims=True))


@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize(
    "closing", [{}, {"normalize": True}, {"similarity": "cos"}, {"similarity": "ip"}]
)
def test_embeddings_equal_plain_arithmetic(bert_folder, pooling, closing):
    expected = plain_vectors(bert_folder, pooling)
    if closing not in ({}, {"similarity": "ip"}):
        expected = unit(expected)
    loaded = load(bert_folder, pooling=pooling, **closing)
    np.testing.assert_allclose(encode(loaded), expected, atol=1e-5)
    np.testing.assert_allclose(encode(loaded, side="queries"), expected, atol=1e-5)


@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("skip", [0, 2])
def test_tokens_at_the_start_may_be_left_out_of_the_pooling(pooling, skip):
    hidden = torch.randn(2, 7, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    mask = torch.tensor([[1] * 7, [1] * 5 + [0] * 2])
    for vector, states, length in zip(
        pool(hidden, mask, pooling, skip=skip), hidden.numpy(), (7, 5), strict=True
    ):
        if pooling == "weightedmean":  # the weights go on counting from the first token
            expected = np.average(states[skip:length], axis=0, weights=range(1 + skip, 1 + length))
        else:
            expected = POOLINGS[pooling](states[skip:length])
        np.testing.assert_allclose(vector.numpy(), expected, atol=1e-12)


def test_two_towers_send_queries_and_passages_to_one_each(bert_folder):
    cls, mean = (load(bert_folder, pooling=pooling) for pooling in ("cls", "mean"))
    towers = TwoTowers(queries=cls.encoder, passages=mean.encoder)
    both = LoadedCheckpoint(encoder=towers, queries=cls.queries, passages=mean.passages)
    np.testing.assert_array_equal(encode(both, side="queries"), encode(cls))
    np.testing.assert_array_equal(encode(both), encode(mean))


def test_without_a_word_on_pooling_it_is_the_first_token_and_that_is_told(bert_folder):
    loaded = load(bert_folder)
    np.testing.assert_allclose(encode(loaded), plain_vectors(bert_folder, "cls"), atol=1e-5)
    [assumed] = loaded.assumed
    assert assumed.startswith("--pooling cls")
    assert load(bert_folder, pooling="cls").assumed == ()


def test_prefixes_length_and_tokenizer_come_with_the_checkpoint(bert_folder):
    loaded = load(bert_folder, query_prefix="q: ", passage_prefix="p: ")
    assert (loaded.queries.prefix, loaded.passages.prefix) == ("q: ", "p: ")
    assert loaded.queries.max_length == 40
    assert loaded.queries.tokenizer_folder == bert_folder


def test_the_tokenizer_may_lie_in_the_folder_above(copy_of_bert):
    folder = copy_of_bert()
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).unlink()
    assert load(folder).passages.tokenizer_folder is None
    make_tokenizer().save_pretrained(folder.parent)
    assert load(folder).passages.tokenizer_folder == folder.parent


def test_bfloat16_gives_nearly_the_same_vectors(bert_folder):
    vectors = encode(load(bert_folder, pooling="mean", precision="bf16"))
    assert vectors.dtype == np.float32
    expected = plain_vectors(bert_folder, "mean")
    assert ((unit(vectors) * unit(expected)).sum(axis=1) > 0.98).all()


def test_a_sharded_checkpoint_and_one_of_torch_give_the_same_vectors(copy_of_bert):
    expected = encode(load(copy_of_bert("checkpoint-1")))
    sharded, torchs = copy_of_bert("checkpoint-2"), copy_of_bert("checkpoint-3")
    model = BertModel.from_pretrained(sharded)
    (sharded / "model.safetensors").unlink()
    model.save_pretrained(sharded, max_shard_size=10_000)
    torch.save(model.state_dict(), torchs / "pytorch_model.bin")
    (torchs / "model.safetensors").unlink()
    assert (sharded / "model.safetensors.index.json").is_file()
    for folder in (sharded, torchs):
        examine(Folder.listing(folder), step=None)
        np.testing.assert_array_equal(encode(load(folder)), expected)


def test_the_head_of_another_task_does_not_matter(tmp_path):
    torch.manual_seed(3)
    model = BertForMaskedLM(bert_config())
    model.save_pretrained(tmp_path / "masked")
    model.bert.save_pretrained(tmp_path / "plain")
    vectors = encode(load(tmp_path / "masked", pooling="mean"))
    np.testing.assert_allclose(vectors, plain_vectors(tmp_path / "plain", "mean"), atol=1e-5)


def without_tensors(folder, drop):
    tensors = load_file(folder / "model.safetensors")
    kept = {name: tensor.clone() for name, tensor in tensors.items() if not drop(name)}
    assert len(kept) < len(tensors)
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})


def test_missing_tensors_are_never_left_to_chance(copy_of_bert):
    folder = copy_of_bert()
    without_tensors(folder, lambda name: name.startswith("encoder.layer.1."))
    with pytest.raises(CheckpointBroken, match=r"16 tensors .*encoder\.layer\.1\."):
        load(folder)


def test_a_missing_pooler_does_not_matter(copy_of_bert):
    folder = copy_of_bert()
    without_tensors(folder, lambda name: name.startswith("pooler."))
    np.testing.assert_allclose(encode(load(folder)), plain_vectors(folder, "cls"), atol=1e-5)


def test_a_tensor_of_another_shape_means_broken(copy_of_bert):
    folder = copy_of_bert()
    tensors = load_file(folder / "model.safetensors")
    tensors["embeddings.word_embeddings.weight"] = torch.zeros(7, 16)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointBroken, match=r"embeddings\.word_embeddings"):
        load(folder)


def test_a_file_of_weights_that_is_cut_while_it_is_loaded_is_the_checkpoints_fault(copy_of_bert):
    folder = copy_of_bert()
    os.truncate(folder / "model.safetensors", 1000)
    with pytest.raises(CheckpointError):
        load(folder)


def test_a_re_ranker_is_refused_as_such(tmp_path):
    BertForSequenceClassification(bert_config(num_labels=1)).save_pretrained(tmp_path)
    with pytest.raises(CheckpointUnsupported, match="re-ranker"):
        load(tmp_path)


def test_an_encoder_decoder_is_refused_as_such(copy_of_bert):
    folder = copy_of_bert()
    T5Config(architectures=["T5ForConditionalGeneration"]).save_pretrained(folder)
    with pytest.raises(CheckpointUnsupported, match="encoder-decoder"):
        load(folder)


def test_a_configuration_that_no_library_knows_is_unsupported(copy_of_bert):
    folder = copy_of_bert()
    (folder / "config.json").write_text('{"model_type": "no-such-model"}')
    with pytest.raises(CheckpointUnsupported, match="no-such-model"):
        load(folder)


def test_code_in_a_checkpoint_is_not_run(copy_of_bert, tmp_path):
    folder = copy_of_bert()
    config = json.loads((folder / "config.json").read_text())
    config |= {
        "model_type": "mine",
        "auto_map": {"AutoConfig": "mine.MyConfig", "AutoModel": "mine.MyModel"},
    }
    (folder / "config.json").write_text(json.dumps(config))
    canary = tmp_path / "canary"
    (folder / "mine.py").write_text(f"open({str(canary)!r}, 'w').close()\n")
    with pytest.raises(CheckpointUnsupported):
        load(folder)
    assert not canary.exists()


def test_a_pickle_in_a_file_of_weights_executes_nothing(copy_of_bert, malicious):
    folder = copy_of_bert()
    (folder / "model.safetensors").unlink()
    canary = malicious(folder / "pytorch_model.bin")
    examine(Folder.listing(folder), step=None)
    with pytest.raises(CheckpointError):
        load(folder)
    assert not canary.exists()


def test_a_pickle_beside_the_weights_executes_nothing(copy_of_bert, malicious):
    folder = copy_of_bert()
    canary = malicious(folder / "training_args.bin")
    malicious(folder / "optimizer.pt")
    examine(Folder.listing(folder), step=None)
    encode(load(folder))
    assert not canary.exists()


def test_weights_do_not_change_with_their_file_after_loading(copy_of_bert):
    folder = copy_of_bert()
    loaded = load(folder, pooling="mean")
    before = encode(loaded)
    path = folder / "model.safetensors"
    with path.open("r+b") as file:
        header = 8 + int.from_bytes(file.read(8), "little")
        file.seek(header)
        file.write(bytes(path.stat().st_size - header))
    np.testing.assert_array_equal(encode(loaded), before)
    assert not np.array_equal(encode(load(folder, pooling="mean")), before)


def test_an_encoder_answers_the_same_every_time(bert_folder):
    loaded = load(bert_folder)
    np.testing.assert_array_equal(encode(loaded), encode(loaded))


def test_sentences_of_the_makers_have_no_unknown_word():
    tokenizer = make_tokenizer()
    ids = tokenizer(make_sentences(20))["input_ids"]
    assert tokenizer.unk_token_id not in {token for each in ids for token in each}


def test_the_encoder_half_of_t5_is_loaded_as_it_was_saved(tmp_path):
    from transformers import T5Config, T5EncoderModel

    torch.manual_seed(3)
    config = T5Config(vocab_size=60, d_model=16, d_kv=8, d_ff=32, num_layers=1, num_heads=2)
    model = T5EncoderModel(config).eval()
    model.save_pretrained(tmp_path / "checkpoint-1")
    loaded = load_checkpoint(
        Checkpoint(path=tmp_path / "checkpoint-1", step=1, layout=""),
        EncoderOptions(pooling="mean"),
        device="cpu",
        precision="fp32",
    )
    ids = torch.tensor([[5, 6, 7, 1]])
    mask = torch.ones_like(ids)
    with torch.inference_mode():
        wanted = model(input_ids=ids, attention_mask=mask).last_hidden_state.mean(dim=1)
        torch.testing.assert_close(
            loaded.encoder.encode_queries(ids, mask), wanted, atol=1e-5, rtol=0
        )
