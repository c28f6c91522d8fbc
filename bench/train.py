"""Steps per second of our trainer and of Sentence Transformers', interleaved in one run.

    pip install "sentence-transformers[train]>=6.2"
    python bench/train.py --json bench/results/train.json

Both train the same model on the same texts by the same loss (cross-entropy over all passages of the
batch, cosine, temperature 0.05), with the same batch, lengths, optimiser and seed. They take turns;
a turn trains from the start again, and its first steps warm up and are not timed. The texts are
made up, with as many words as those of MS MARCO. Without `--model` so is the model, a BERT of
MiniLM's size with random weights, as speed does not depend on what a model knows.
"""

import argparse
import json
import logging
import os
import platform
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import (
    BertConfig,
    BertModel,
    PreTrainedTokenizerFast,
    PrinterCallback,
    TrainerCallback,
)

SEED = 7
NUM_WORDS = 20_000
TEMPERATURE = 0.05
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]


def made_up_words() -> list[str]:
    """Return words, of which each is a token."""
    draw = random.Random(SEED)
    letters = "etaoinshrdlucmfwypvbgk"
    words = {"".join(draw.choices(letters, k=draw.randint(2, 9))) for _ in range(2 * NUM_WORDS)}
    return sorted(words)[:NUM_WORDS]


def save_model(folder: Path, words: list[str], *, num_layers: int) -> None:
    """Write a BERT of MiniLM's size (but for the layers) with random weights."""
    vocabulary = {token: i for i, token in enumerate([*SPECIAL, *words])}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    names = dict(zip(("pad_token", "unk_token", "cls_token", "sep_token"), SPECIAL, strict=True))
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names).save_pretrained(folder)
    torch.manual_seed(SEED)
    config = BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=384,
        num_hidden_layers=num_layers,
        num_attention_heads=12,
        intermediate_size=1536,
    )
    BertModel(config).save_pretrained(folder)


def examples(number: int, words: list[str], *, num_passages: int) -> list[dict[str, Any]]:
    """Return queries with a positive and negatives, as long as those of MS MARCO."""
    draw = random.Random(SEED)

    def text(mean: float, spread: float) -> str:
        return " ".join(draw.choices(words, k=max(2, round(draw.gauss(mean, spread)))))

    return [
        {
            "query": text(6, 2.5),
            "positive": text(56, 22),
            "negatives": [text(56, 22) for _ in range(num_passages - 1)],
        }
        for _ in range(number)
    ]


class Stopwatch(TrainerCallback):
    """Times the steps after the first few."""

    def __init__(self, warm_up: int) -> None:
        self.warm_up = warm_up
        self.started = self.ended = 0.0
        self.losses: list[float] = []

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ANN401
        """Take the time."""
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self.ended = time.perf_counter()
        if state.global_step == self.warm_up:
            self.started = self.ended

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:  # noqa: ANN401
        """Keep the losses, which say whether both train the same."""
        if "loss" in (logs or {}):
            self.losses.append(float(logs["loss"]))


def common(options: argparse.Namespace, output: Path) -> dict[str, Any]:
    """Return what both trainers are told."""
    return {
        "output_dir": str(output),
        "per_device_train_batch_size": options.batch_size,
        "max_steps": options.warm_up + options.steps,
        "learning_rate": 1e-4,
        "save_strategy": "no",
        "logging_steps": options.warm_up + options.steps,
        "report_to": "none",
        "disable_tqdm": True,
        "seed": SEED,
        "use_cpu": not torch.cuda.is_available(),
        "bf16": options.bf16,
        "dataloader_num_workers": options.workers,
    }


def ours(options: argparse.Namespace, work: Path, rows: list[dict[str, Any]]) -> Stopwatch:
    """Train by `trainer train`'s own parts."""
    from trainer.arguments import parse_flags
    from trainer.train import build_trainer

    path = work / "train.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    flags = {
        **common(options, work / "ours"),
        "model_name_or_path": options.model,
        "train_file": path,
        "train_n_passages": options.num_passages,
        "pooling": "mean",
        "normalize": True,
        "temperature": TEMPERATURE,
        "q_max_len": options.max_length,
        "p_max_len": options.max_length,
    }
    trainer = build_trainer(
        *parse_flags([str(word) for name, value in flags.items() for word in (f"--{name}", value)])
    )
    watch = Stopwatch(options.warm_up)
    trainer.add_callback(watch)
    trainer.train()
    return watch


def theirs(options: argparse.Namespace, work: Path, rows: list[dict[str, Any]]) -> Stopwatch:
    """Train by Sentence Transformers as its documentation shows."""
    from datasets import Dataset
    from sentence_transformers import (
        SentenceTransformer,
        SentenceTransformerTrainer,
        SentenceTransformerTrainingArguments,
    )
    from sentence_transformers.base.modules import Transformer
    from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss
    from sentence_transformers.sentence_transformer.modules import Pooling

    transformer = Transformer(str(options.model), max_seq_length=options.max_length)
    pooling = Pooling(transformer.get_embedding_dimension())
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = SentenceTransformer(modules=[transformer, pooling], device=device)
    columns = {
        "anchor": [row["query"] for row in rows],
        "positive": [row["positive"] for row in rows],
        **{
            f"negative_{i}": [row["negatives"][i] for row in rows]
            for i in range(options.num_passages - 1)
        },
    }
    trainer = SentenceTransformerTrainer(
        model=model,
        args=SentenceTransformerTrainingArguments(**common(options, work / "theirs")),
        train_dataset=Dataset.from_dict(columns),
        loss=MultipleNegativesRankingLoss(model, scale=1 / TEMPERATURE),
    )
    trainer.remove_callback(PrinterCallback)
    watch = Stopwatch(options.warm_up)
    trainer.add_callback(watch)
    trainer.train()
    return watch


def parse(arguments: list[str]) -> argparse.Namespace:
    """Return the options."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", type=Path, help="Default: a random BERT of MiniLM's size.")
    parser.add_argument("--num_layers", type=int, default=6, help="Of the made-up model.")
    parser.add_argument("--batch_size", type=int, default=16)
    parser.add_argument("--num_passages", type=int, default=4)
    parser.add_argument("--max_length", type=int, default=128)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--warm_up", type=int, default=3)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--workers", type=int, default=0, help="Data loader processes.")
    parser.add_argument("--threads", type=int, help="Default: torch's own choice.")
    parser.add_argument("--bf16", action="store_true")
    parser.add_argument("--json", type=Path)
    return parser.parse_args(arguments)


def main() -> None:
    """Measure, print one table, and write it as JSON."""
    options = parse(sys.argv[1:])
    os.environ["HF_HUB_OFFLINE"] = "1"
    logging.disable(logging.WARNING)
    if options.threads:
        torch.set_num_threads(options.threads)
    options.made_up = options.model is None
    words = made_up_words()
    trainers: dict[str, Callable[..., Stopwatch]] = {
        "ours": ours,
        "sentence-transformers": theirs,
    }
    seconds: dict[str, list[float]] = {name: [] for name in trainers}
    losses: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        if options.made_up:
            options.model = work / "model"
            save_model(options.model, words, num_layers=options.num_layers)
        number = (options.warm_up + options.steps) * options.batch_size
        rows = examples(number, words, num_passages=options.num_passages)
        for repeat in range(options.repeats):
            # Neither always comes second, when the machine is warm.
            order = list(trainers) if repeat % 2 == 0 else list(trainers)[::-1]
            for name in order:
                watch = trainers[name](options, work, rows)
                seconds[name].append((watch.ended - watch.started) / options.steps)
                losses[name] = watch.losses[-1]
                print(f"{name}: {seconds[name][-1]:.3f} s a step", file=sys.stderr, flush=True)
    report(options, seconds, losses)


def report(
    options: argparse.Namespace, seconds: dict[str, list[float]], losses: dict[str, float]
) -> None:
    """Print the table and write the JSON."""
    peer = statistics.median(seconds["sentence-transformers"])
    print("| trainer | steps a second | fastest | slowest | texts a second | ratio | mean loss |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: |")
    texts = options.batch_size * (options.num_passages + 1)
    for name, each in seconds.items():
        middle = statistics.median(each)
        print(
            f"| {name} | {1 / middle:.3f} | {1 / min(each):.3f} | {1 / max(each):.3f} | "
            f"{texts / middle:.0f} | {peer / middle:.2f} | {losses[name]:.3f} |"
        )
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        settings = {
            name: None if name == "model" and options.made_up else str(value)
            for name, value in vars(options).items()
            if name != "json"
        }
        device = torch.cuda.get_device_name() if torch.cuda.is_available() else platform.machine()
        content = {
            "settings": settings,
            "device": device,
            "threads": torch.get_num_threads(),
            "torch": torch.__version__,
            "seconds_a_step": seconds,
            "mean_loss": losses,
        }
        options.json.write_text(json.dumps(content, indent=2) + "\n")


if __name__ == "__main__":
    main()
