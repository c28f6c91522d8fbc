"""Make a small model that knows nothing yet, and a tokenizer that knows identifiers.

The tokenizer is trained on the training text only. It keeps words and numbers and drops
punctuation; `snake_case` and `CamelCase` fall apart into their words.
"""

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
from transformers import (
    BertConfig,
    BertModel,
    LlamaConfig,
    LlamaModel,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    T5Config,
    T5Model,
)
from transformers.utils.logging import disable_progress_bar

SPECIAL_TOKENS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
# Where a capital begins a new word: between aB, and between the A and Bc of ABc.
CAMEL_CASE = r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])"
WORD = r"[a-z]+|[0-9]"
MAX_LENGTH = 128
# What each kind of model wants around a text; a decoder's end-of-text token is a flag's to add.
TEMPLATES = {"bert": "[CLS] $A [SEP]", "t5": "$A [SEP]", "llama": "[CLS] $A"}


def training_texts(path: Path) -> Iterator[str]:
    """Yield queries and passages of a training file."""
    with path.open(encoding="utf-8") as lines:
        for line in lines:
            row = json.loads(line)
            yield row["query"]
            yield row["positive"]


def train_tokenizer(
    texts: Iterator[str], *, vocab_size: int, template: str
) -> PreTrainedTokenizerFast:
    """Train a WordPiece tokenizer that adds the template's special tokens."""
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Replace(Regex(CAMEL_CASE), " "), normalizers.Lowercase()]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(WORD), behavior="removed", invert=True)
    tokenizer.train_from_iterator(
        texts,
        trainers.WordPieceTrainer(
            vocab_size=vocab_size, special_tokens=SPECIAL_TOKENS, show_progress=False
        ),
    )
    # The trainer numbers equally frequent pieces by chance; by name, every run is the same.
    pieces = sorted(set(tokenizer.get_vocab()) - set(SPECIAL_TOKENS))
    vocabulary = {piece: i for i, piece in enumerate([*SPECIAL_TOKENS, *pieces])}
    tokenizer.model = models.WordPiece(vocabulary, unk_token="[UNK]")
    tokenizer.post_processor = processors.TemplateProcessing(
        single=template,
        special_tokens=[(token, tokenizer.token_to_id(token)) for token in ("[CLS]", "[SEP]")],
    )
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=tokenizer,
        model_max_length=MAX_LENGTH,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        bos_token="[CLS]",
        eos_token="[SEP]",
    )


def random_model(
    architecture: str, *, vocab_size: int, hidden_size: int, num_layers: int
) -> PreTrainedModel:
    """Return a model with random weights."""
    num_heads = max(hidden_size // 64, 1)
    sizes: dict[str, Any]
    if architecture == "t5":
        sizes = {"d_model": hidden_size, "d_kv": hidden_size // num_heads, "d_ff": 4 * hidden_size}
        return T5Model(
            T5Config(
                vocab_size=vocab_size,
                num_layers=num_layers,
                num_heads=num_heads,
                pad_token_id=0,
                eos_token_id=SPECIAL_TOKENS.index("[SEP]"),
                dropout_rate=0.0,
                **sizes,
            )
        )
    sizes = {
        "vocab_size": vocab_size,
        "hidden_size": hidden_size,
        "num_hidden_layers": num_layers,
        "num_attention_heads": num_heads,
        "intermediate_size": 4 * hidden_size,
        "max_position_embeddings": MAX_LENGTH,
        "pad_token_id": 0,
    }
    if architecture == "llama":
        return LlamaModel(LlamaConfig(**sizes))
    # A few hundred steps over fresh examples cannot overfit.
    sizes |= {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    return BertModel(BertConfig(**sizes))


def main() -> None:
    """Write the model and its tokenizer into a folder."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--train_file", type=Path, required=True)
    parser.add_argument("--output_dir", type=Path, required=True)
    parser.add_argument("--architecture", choices=TEMPLATES, default="bert")
    parser.add_argument("--vocab_size", type=int, default=10_000)
    parser.add_argument("--hidden_size", type=int, default=128)
    parser.add_argument("--num_layers", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    flags = parser.parse_args()
    disable_progress_bar()  # type: ignore[no-untyped-call]
    tokenizer = train_tokenizer(
        training_texts(flags.train_file),
        vocab_size=flags.vocab_size,
        template=TEMPLATES[flags.architecture],
    )
    torch.manual_seed(flags.seed)
    model = random_model(
        flags.architecture,
        vocab_size=len(tokenizer),
        hidden_size=flags.hidden_size,
        num_layers=flags.num_layers,
    )
    tokenizer.save_pretrained(flags.output_dir)
    model.save_pretrained(flags.output_dir)
    print(f"{len(tokenizer):,} word pieces, {model.num_parameters() / 1e6:.1f} million weights")


if __name__ == "__main__":
    main()
