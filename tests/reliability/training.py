"""The real Hugging Face trainer: a tiny model, saved after every step, only the newest kept.

`python -m tests.reliability.training FOLDER STEPS SECONDS_BETWEEN` runs it.
"""

import sys
import time
from typing import Any

import torch
from transformers import BertModel, Trainer, TrainerCallback, TrainingArguments

from tests.models import bert_config, make_tokenizer


class Regressor(BertModel):
    """A plain BERT whose own vectors are its loss."""

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> Any:
        hidden = super().forward(input_ids, attention_mask=attention_mask).last_hidden_state
        return {"loss": (hidden.mean(dim=1) - 1).pow(2).mean()}


class Pause(TrainerCallback):
    """Makes a step take as long as it is to take."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

    def on_step_begin(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
        time.sleep(self._seconds)


def train(folder: str, *, steps: int, seconds: float) -> None:
    torch.set_num_threads(1)
    torch.manual_seed(1)
    row = {"input_ids": [2, 7, 8, 9, 3], "attention_mask": [1, 1, 1, 1, 1]}
    rows: Any = [row] * 4 * steps
    arguments = TrainingArguments(
        output_dir=folder,
        max_steps=steps,
        per_device_train_batch_size=2,
        learning_rate=1e-2,
        save_strategy="steps",
        save_steps=1,
        save_total_limit=1,
        use_cpu=True,
        report_to="none",
        disable_tqdm=True,
        logging_strategy="no",
    )
    trainer = Trainer(
        model=Regressor(bert_config()),
        args=arguments,
        train_dataset=rows,
        processing_class=make_tokenizer(),
        callbacks=[Pause(seconds)],
    )
    trainer.train()


if __name__ == "__main__":
    train(sys.argv[1], steps=int(sys.argv[2]), seconds=float(sys.argv[3]))
