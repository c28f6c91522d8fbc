"""The real Sentence Transformers trainer: a tiny model, saved after every step, one kept.

`python -m tests.reliability.sentence_transformers_training FOLDER STEPS SECONDS_BETWEEN` runs it.
"""

import sys
from pathlib import Path

import torch
from datasets import Dataset
from sentence_transformers import (
    SentenceTransformer,
    SentenceTransformerTrainer,
    SentenceTransformerTrainingArguments,
)
from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss
from sentence_transformers.sentence_transformer.modules import (
    Dense,
    Normalize,
    Pooling,
    Transformer,
)

from tests.models import HIDDEN, make_sentences, save_huggingface
from tests.reliability.training import Pause

PROMPTS = {"query": "query: ", "document": "music "}


def train(folder: str, *, steps: int, seconds: float, kept: int = 1) -> None:
    torch.set_num_threads(1)
    start = save_huggingface(Path(folder).parent / "start")
    modules = [Transformer(str(start)), Pooling(HIDDEN), Dense(HIDDEN, 8), Normalize()]
    model = SentenceTransformer(modules=modules, device="cpu", prompts=PROMPTS)
    passages = make_sentences(4 * steps)
    examples = Dataset.from_dict(
        {"query": [each.partition(" ")[0] for each in passages], "positive": passages}
    )
    arguments = SentenceTransformerTrainingArguments(
        output_dir=folder,
        max_steps=steps,
        per_device_train_batch_size=4,
        learning_rate=1e-2,
        prompts={"query": PROMPTS["query"], "positive": PROMPTS["document"]},
        save_strategy="steps",
        save_steps=1,
        save_total_limit=kept,
        use_cpu=True,
        report_to="none",
        disable_tqdm=True,
        logging_strategy="no",
    )
    trainer = SentenceTransformerTrainer(
        model=model,
        args=arguments,
        train_dataset=examples,
        loss=MultipleNegativesRankingLoss(model),
        callbacks=[Pause(seconds)],
    )
    trainer.train()


if __name__ == "__main__":
    train(sys.argv[1], steps=int(sys.argv[2]), seconds=float(sys.argv[3]))
