"""Plain encoders of each family, against a forward pass by hand of one text at a time."""

import json
from typing import Any

import numpy as np
import pytest
import torch
import transformers

from asyncval.api import TextEncoder
from asyncval.checkpoints.completeness import examine
from asyncval.checkpoints.folder import Folder
from asyncval.config import EncodingConfig
from asyncval.core.types import Pooling
from tests.checkpoints.test_loading import POOLINGS, load, make_batch
from tests.models import make_sentences, make_tokenizer

WIDTHS: dict[str, Any] = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
BERT = WIDTHS | {"intermediate_size": 32, "max_position_embeddings": 24}
SHIFTED = BERT | {"pad_token_id": 1}
DECODER = BERT | {"num_key_value_heads": 1}
FAMILIES: dict[str, tuple[str, dict[str, Any], int | None]] = {
    # The model, its configuration, and the longest text that it can take.
    "albert": ("AlbertModel", BERT | {"embedding_size": 8}, 24),
    "bert": ("BertModel", BERT, 24),
    "camembert": ("CamembertModel", SHIFTED, 22),
    "data2vec-text": ("Data2VecTextModel", SHIFTED, 22),
    "distilbert": (
        "DistilBertModel",
        {"dim": 16, "n_layers": 2, "n_heads": 2, "hidden_dim": 32, "max_position_embeddings": 24},
        24,
    ),
    "electra": ("ElectraModel", BERT | {"embedding_size": 8}, 24),
    "llama": ("LlamaModel", DECODER, 24),
    "llama with a head": ("LlamaForCausalLM", DECODER, 24),
    "modernbert": ("ModernBertModel", BERT | {"local_attention": 4, "pad_token_id": 0}, 24),
    "longformer": ("LongformerModel", SHIFTED | {"attention_window": 4}, 22),
    "luke": ("LukeModel", SHIFTED | {"entity_vocab_size": 5, "entity_emb_size": 8}, 22),
    "mpnet": ("MPNetModel", SHIFTED, 22),
    "qwen2": ("Qwen2Model", DECODER, 24),
    "roberta": ("RobertaModel", SHIFTED, 22),
    "roberta with a head": ("RobertaForMaskedLM", SHIFTED, 22),
    "roberta-prelayernorm": ("RobertaPreLayerNormModel", SHIFTED, 22),
    "t5 encoder": (
        "T5EncoderModel",
        {"d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 2, "num_heads": 2},
        None,
    ),
    "xlm-roberta": ("XLMRobertaModel", SHIFTED, 22),
    "xlm-roberta-xl": ("XLMRobertaXLModel", SHIFTED, 22),
    "xmod": ("XmodModel", SHIFTED | {"languages": ["en_XX"], "default_language": "en_XX"}, 22),
}
ABSOLUTE = [
    "albert", "bert", "camembert", "data2vec-text", "distilbert", "electra", "longformer", "luke",
    "mpnet", "roberta", "roberta-prelayernorm", "xlm-roberta", "xlm-roberta-xl", "xmod",
]  # fmt: skip


DECODERS = ("llama", "llama with a head", "qwen2")


@pytest.fixture(params=FAMILIES)
def family(request):
    return request.param


@pytest.fixture
def folder(family, tmp_path):
    name, values, _ = FAMILIES[family]
    kind = getattr(transformers, name)
    values = {"bos_token_id": 2, "eos_token_id": 3} | values
    config = kind.config_class(vocab_size=len(make_tokenizer()), **values)
    torch.manual_seed(4)
    model = kind(config)
    with torch.no_grad():
        for parameter in model.parameters():  # biases too, which start at zero
            parameter.add_(torch.randn_like(parameter) * 0.2)
    model.save_pretrained(tmp_path / "checkpoint-1")
    save_tokenizer(tmp_path / "checkpoint-1")
    return tmp_path / "checkpoint-1"


def save_tokenizer(folder, side="right"):
    tokenizer = make_tokenizer()
    tokenizer.eos_token, tokenizer.padding_side = ":", side
    tokenizer.save_pretrained(folder)
    return transformers.AutoTokenizer.from_pretrained(folder)  # as Qwen2 wants it, for example


def by_hand(folder, rows):
    """Return the last hidden states of each row of ids, [T, H], as its own class makes them."""
    config = json.loads((folder / "config.json").read_text())
    model = getattr(transformers, config["architectures"][0]).from_pretrained(folder).eval()
    model = getattr(model, model.base_model_prefix, model)
    if config["architectures"][0] == "T5EncoderModel":
        model = model.encoder if hasattr(model, "encoder") else model
    with torch.no_grad():
        return [
            model(input_ids=torch.tensor([row])).last_hidden_state[0].double().numpy()
            for row in rows
        ]


def rows_of(ids, mask):
    return [row[:n].tolist() for row, n in zip(ids, mask.sum(dim=1), strict=True)]


def test_vectors_equal_those_made_by_hand_up_to_the_longest_text(family, folder):
    longest = FAMILIES[family][2]
    examine(Folder.listing(folder), step=None)
    ids, mask = make_batch([longest or 60, 3, 11, 1])
    hidden = by_hand(folder, rows_of(ids, mask))
    pooling: Pooling = "last" if family in DECODERS else "mean"
    loaded = load(folder, pooling=pooling)
    assert loaded.queries.max_length == loaded.passages.max_length == longest
    with torch.inference_mode():
        found = loaded.encoder.encode_passages(ids, mask).numpy()
    expected = np.stack([POOLINGS[pooling](each) for each in hidden])
    np.testing.assert_allclose(found, expected, atol=1e-5)
    if longest and family in ABSOLUTE:  # the limit is one: one token more would fail
        with pytest.raises((IndexError, RuntimeError)):
            by_hand(folder, [[5] * (longest + 1)])


@pytest.mark.parametrize("family", ["llama", "qwen2"])
@pytest.mark.parametrize("side", ["right", "left"])
def test_a_decoder_may_need_its_end_of_text_and_does_not_mind_where_padding_goes(
    family, folder, tmp_path, side
):
    tokenizer = save_tokenizer(folder, side)
    sentences = make_sentences(9)
    texts = tmp_path / "texts.jsonl"
    texts.write_text(
        "".join(json.dumps({"_id": str(n), "text": t}) + "\n" for n, t in enumerate(sentences))
    )
    config = EncodingConfig(
        cache_dir=tmp_path / "cache", pooling="last", q_max_len=8, append_eos_token=True
    )
    encoder = TextEncoder(folder, config, device="cpu")
    found = encoder.encode(encoder.tokenize([texts], is_query=True), is_query=True)
    cut = tokenizer(sentences, truncation=True, max_length=7)["input_ids"]
    expected = by_hand(folder, [[*ids, tokenizer.eos_token_id] for ids in cut])
    np.testing.assert_allclose(found, [each[-1] for each in expected], atol=1e-5)
