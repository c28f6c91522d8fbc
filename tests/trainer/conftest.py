import json
import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    BertConfig,
    BertModel,
    LlamaConfig,
    LlamaModel,
    PreTrainedTokenizerFast,
    T5Config,
    T5Model,
)

from trainer.train import main

WORDS = [f"word{i}" for i in range(60)]
SPECIAL_TOKENS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Spare these tiny tensors the wait for a second thread on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def model_folder(tmp_path: Path) -> Path:
    """A BERT of a few thousand random weights with a word-level tokenizer."""
    folder = tmp_path / "model"
    vocabulary = {token: i for i, token in enumerate([*SPECIAL_TOKENS, ":", *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
    ).save_pretrained(folder)
    torch.manual_seed(7)
    config = BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=128,
        initializer_range=0.5,
    )
    BertModel(config).save_pretrained(folder)
    return folder


@pytest.fixture
def decoder_folder(model_folder: Path) -> Path:
    """A tiny Llama with the same tokenizer, which pads left and names no padding token."""
    config = LlamaConfig(
        vocab_size=len(SPECIAL_TOKENS) + 1 + len(WORDS),
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=128,
        initializer_range=0.5,
    )
    LlamaModel(config).save_pretrained(model_folder)
    settings = model_folder / "tokenizer_config.json"
    kept = {k: v for k, v in json.loads(settings.read_text()).items() if k != "pad_token"}
    settings.write_text(json.dumps({**kept, "padding_side": "left", "eos_token": "[SEP]"}))
    return model_folder


@pytest.fixture
def t5_folder(model_folder: Path) -> Path:
    """A tiny T5, encoder and decoder, with the same tokenizer."""
    config = T5Config(
        vocab_size=len(SPECIAL_TOKENS) + 1 + len(WORDS),
        d_model=16,
        d_kv=8,
        d_ff=32,
        num_layers=1,
        num_heads=2,
        pad_token_id=0,
        eos_token_id=3,
    )
    T5Model(config).save_pretrained(model_folder)
    return model_folder


@pytest.fixture
def train_file(tmp_path: Path) -> Path:
    """Twenty examples with two positives and three negatives each."""
    draw = random.Random(1)
    path = tmp_path / "train.jsonl"
    rows = [
        {
            "query": " ".join(draw.sample(WORDS, 3)),
            "positives": [" ".join(draw.sample(WORDS, 6)) for _ in range(2)],
            "negatives": [" ".join(draw.sample(WORDS, 6)) for _ in range(3)],
        }
        for _ in range(20)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def scored_file(train_file: Path, tmp_path: Path) -> Path:
    """The same examples with ids, and a teacher's score for each passage."""
    draw = random.Random(2)
    path = tmp_path / "scored.jsonl"

    def passage(text: str) -> dict[str, object]:
        return {"docid": text.split()[0], "text": text, "score": round(draw.gauss(0, 2), 3)}

    with path.open("w") as lines:
        for number, line in enumerate(train_file.read_text().splitlines()):
            row = json.loads(line)
            scored = {
                "query_id": str(number),
                "query": row["query"],
                "positive_passages": [passage(text) for text in row["positives"]],
                "negative_passages": [passage(text) for text in row["negatives"]],
            }
            lines.write(json.dumps(scored) + "\n")
    return path


@pytest.fixture
def qrels_file(tmp_path: Path) -> Path:
    """For every query, ten to twenty of the ids, which are words."""
    draw = random.Random(3)
    path = tmp_path / "qrels.txt"
    with path.open("w") as lines:
        for query in range(20):
            for word in draw.sample(WORDS, draw.randint(10, 20)):
                lines.write(f"{query} 0 {word} 1\n")
    return path


@pytest.fixture
def train(model_folder: Path, train_file: Path, tmp_path: Path) -> Callable[..., Path]:
    """Run `trainer train` with small sizes; flags replace or add to them.

    With data workers it needs a process of its own: they are forks, and this one has threads.
    """

    def run(output: str = "training", *, in_process: bool = True, **flags: object) -> Path:
        defaults: dict[str, object] = {
            "model_name_or_path": model_folder,
            "train_file": train_file,
            "output_dir": tmp_path / output,
            "q_max_len": 8,
            "p_max_len": 12,
            "train_n_passages": 3,
            "per_device_train_batch_size": 4,
            "learning_rate": 1e-2,
            "max_steps": 4,
            "save_steps": 2,
            "use_cpu": True,
        }
        words = [
            word for name, value in (defaults | flags).items() for word in (f"--{name}", value)
        ]
        if in_process:
            main([str(word) for word in words])
        else:
            command = [sys.executable, "-m", "trainer", "train", *map(str, words)]
            subprocess.run(command, check=True, capture_output=True)
        return tmp_path / output

    return run
