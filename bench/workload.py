"""What the benches of speed run on: MS MARCO's lengths, the shapes of real encoders, no download.

Texts are words that were made up, each one token, as often as words of a language are (Zipf),
with lengths whose mean, median and 95th percentile are those of MS MARCO's passages: 76 tokens,
72 and 128 (cut). Weights are random: a matrix product takes as long, whatever stands in it.
"""

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

SHAPES: dict[str, dict[str, int]] = {
    "tiny": {"hidden": 32, "layers": 1, "heads": 2, "intermediate": 64},
    "minilm": {"hidden": 384, "layers": 6, "heads": 12, "intermediate": 1536},
    "bert-base": {"hidden": 768, "layers": 12, "heads": 12, "intermediate": 3072},
}
SPECIALS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
VOCABULARY = 30522
P_MAX_LEN, Q_MAX_LEN = 128, 32


def passage_lengths(number: int, *, seed: int = 0) -> NDArray[np.int64]:
    """Return tokens of passages, special ones included, [N]."""
    draw = np.random.default_rng(seed).lognormal(np.log(72), 0.36, number)
    return np.clip(np.round(draw), 12, P_MAX_LEN).astype(np.int64)


def query_lengths(number: int, *, seed: int = 1) -> NDArray[np.int64]:
    """Return tokens of queries, special ones included, [N]."""
    draw = np.random.default_rng(seed).lognormal(np.log(7.6), 0.28, number)
    return np.clip(np.round(draw), 4, Q_MAX_LEN).astype(np.int64)


def words() -> list[str]:
    """Return as many different words as the vocabulary has room for, the commonest first."""
    draw = random.Random(0)
    found: dict[str, None] = {}
    while len(found) < VOCABULARY - len(SPECIALS):
        syllables = draw.choices(
            [
                "ba",
                "ce",
                "di",
                "fo",
                "gu",
                "ka",
                "le",
                "mi",
                "no",
                "pu",
                "ra",
                "se",
                "ti",
                "vo",
                "zu",
            ],
            k=4,
        )
        found["".join(syllables[: draw.randint(2, 4)]) + draw.choice(["", "n", "r", "st"])] = None
    return list(found)


def make_collection(folder: Path, *, passages: int, queries: int) -> None:
    """Write corpus.jsonl, queries.jsonl and qrels.tsv: one relevant passage a query."""
    folder.mkdir(parents=True, exist_ok=True)
    vocabulary = np.array(words())
    draw = np.random.default_rng(2)
    share = 1 / np.arange(10, 10 + len(vocabulary))
    share /= share.sum()
    lengths = passage_lengths(passages) - 2
    texts = np.split(draw.choice(vocabulary, lengths.sum(), p=share), lengths.cumsum()[:-1])
    relevant = draw.permutation(passages)[:queries]
    with (folder / "corpus.jsonl").open("w") as file:
        for number, text in enumerate(texts):
            row = {"text_id": f"p{number}", "text": " ".join(text.tolist()).capitalize() + "."}
            file.write(json.dumps(row) + "\n")
    with (folder / "queries.jsonl").open("w") as file:
        for number, length in enumerate(query_lengths(queries) - 2):
            rare = sorted(texts[relevant[number]].tolist())[: int(length)]
            file.write(json.dumps({"text_id": f"q{number}", "text": " ".join(rare)}) + "\n")
    with (folder / "qrels.tsv").open("w") as file:
        for number in range(queries):
            file.write(f"q{number}\t0\tp{relevant[number]}\t1\n")


def make_tokenizer(folder: Path) -> None:
    """Write a lower-casing WordPiece tokenizer, in the fast form and as vocab.txt."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    pieces = [*SPECIALS, ".", *words()][:VOCABULARY]
    vocabulary = {piece: number for number, piece in enumerate(pieces)}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    named = dict(zip(("pad", "unk", "cls", "sep", "mask"), SPECIALS, strict=True))
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, **{f"{name}_token": token for name, token in named.items()}
    ).save_pretrained(folder)
    (folder / "vocab.txt").write_text("".join(f"{piece}\n" for piece in pieces))


def make_backbone(shape: str, *, seed: int = 0) -> Any:  # noqa: ANN401
    """Return a BERT of this shape with random weights, in evaluation mode."""
    import torch
    from transformers import BertConfig, BertModel

    sizes = SHAPES[shape]
    torch.manual_seed(seed)
    config = BertConfig(
        vocab_size=VOCABULARY,
        hidden_size=sizes["hidden"],
        num_hidden_layers=sizes["layers"],
        num_attention_heads=sizes["heads"],
        intermediate_size=sizes["intermediate"],
        initializer_range=0.1,
    )
    return BertModel(config, add_pooling_layer=False).eval()


def make_checkpoint(folder: Path, shape: str, *, seed: int = 0) -> Path:
    """Write a checkpoint of this shape with its tokenizer."""
    make_backbone(shape, seed=seed).save_pretrained(folder)
    make_tokenizer(folder)
    return folder


def operations(lengths: NDArray[np.int64], shape: str) -> float:
    """Return the floating point operations of all matrix products, real tokens only."""
    sizes = SHAPES[shape]
    hidden, layers = sizes["hidden"], sizes["layers"]
    linear = 2 * (4 * hidden**2 + 2 * hidden * sizes["intermediate"]) * int(lengths.sum())
    return float(layers * (linear + 4 * hidden * int((lengths**2).sum())))


def table(title: str, header: list[str], rows: list[list[str]]) -> str:
    """Return a Markdown table under its title."""
    lines = [f"## {title}", "", "| " + " | ".join(header) + " |", "|" + " --- |" * len(header)]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)]) + "\n"


def save(name: str, text: str, values: dict[str, Any]) -> None:
    """Print a table, and write it and its numbers to bench/results."""
    print(text)
    folder = Path(__file__).parent / "results"
    folder.mkdir(exist_ok=True)
    (folder / f"{name}.md").write_text(text)
    (folder / f"{name}.json").write_text(json.dumps(values, indent=1) + "\n")
