"""The flags of `trainer train`, as dataclasses from which `HfArgumentParser` makes the parser."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from transformers import HfArgumentParser, TrainingArguments

from asyncval.api import AsyncvalError, TextForm, check_form
from trainer.errors import InputError
from trainer.formats import FORMATS
from trainer.model import Pooling
from trainer.sources import TrainingFiles
from trainer.wording import Wording

Objective = Literal["contrastive", "margin_mse", "kl"]

# flag of the Hugging Face trainer -> the one value that ours honours, and what else to do
LIMITED: dict[str, tuple[object, str]] = {
    "eval_strategy": ("no", "Leave it out: --asyncval validates the checkpoints."),
    "train_sampling_strategy": (
        "random",
        "Only random is supported: a batch of similar texts changes what in-batch negatives teach.",
    ),
    "label_smoothing_factor": (0, "Leave it out: no objective here smooths its labels."),
    "neftune_noise_alpha": (None, "Leave it out: noise on the embeddings is not supported."),
}


@dataclass(kw_only=True)
class ModelArguments:
    """What is trained and how token vectors become one embedding."""

    model_name_or_path: str = field(
        metadata={"help": "Folder or hub name of the transformer to start from."}
    )
    tokenizer_name_or_path: str | None = field(
        default=None, metadata={"help": "Folder or hub name of the tokenizer, if not the model's."}
    )
    append_eos_token: bool = field(
        default=False,
        metadata={"help": "End every text with the tokenizer's end-of-text token, if it does not."},
    )
    untie_encoder: bool = field(
        default=False, metadata={"help": "Train one model for queries and one for passages."}
    )
    pooling: Pooling = field(
        default="cls",
        metadata={
            "help": "First token, mean of all tokens, last token, or the first of T5's decoder."
        },
    )
    normalize: bool = field(
        default=False, metadata={"help": "Scale embeddings to length 1: cosine similarity."}
    )
    projection_dim: int | None = field(
        default=None, metadata={"help": "Project embeddings to this length by a linear layer."}
    )
    lora: bool = field(
        default=False, metadata={"help": "Train low-rank adapters (PEFT), not the transformer."}
    )
    lora_r: int = field(default=16, metadata={"help": "Rank of the adapters."})
    lora_alpha: int = field(default=64, metadata={"help": "Their scale is lora_alpha / lora_r."})
    lora_dropout: float = field(default=0.1, metadata={"help": "Dropout before the adapters."})
    lora_target_modules: str = field(
        default="all-linear",
        metadata={"help": "Names of the layers that get one, such as q_proj,v_proj."},
    )

    def __post_init__(self) -> None:
        """Refuse sizes that cannot work."""
        for name in ("projection_dim", "lora_r"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise InputError(f"--{name} is {getattr(self, name)}. It must be at least 1.")
        if self.lora and self.untie_encoder:
            raise InputError(
                "--lora does not go with --untie_encoder: Sentence Transformers loads no adapters "
                "of two towers. Leave one of them out."
            )
        if self.lora and self.pooling == "decoder":
            raise InputError(
                "--lora does not go with --pooling decoder: OpenMatch's layout, which such a "
                "checkpoint has, has no place for adapters. Leave one of them out."
            )


@dataclass(kw_only=True)
class DataArguments:
    """What it is trained on."""

    train_file: list[str] = field(
        default_factory=list,
        metadata={
            "help": "Files or folders of examples, one a line, plain or .gz. What forms there are "
            "is in trainer/README.md."
        },
    )
    train_format: str = field(
        default="auto",
        metadata={"help": f"The form of --train_file: auto, {', '.join(FORMATS)}, or a module."},
    )
    train_qrels: str | None = field(
        default=None,
        metadata={
            "help": "Instead of --train_file: judgements; each query with a relevant passage is an "
            "example."
        },
    )
    neg_file: str | None = field(
        default=None,
        metadata={
            "help": "With --train_qrels: the negatives of each query. Without it they are drawn "
            "from the whole corpus."
        },
    )
    teacher_score_files: list[str] = field(
        default_factory=list,
        metadata={"help": "With --train_qrels: a teacher's scores, as lines or pickled."},
    )
    train_query_file: str | None = field(
        default=None, metadata={"help": "The queries that training files name by their ids."}
    )
    corpus_file: str | None = field(
        default=None,
        metadata={"help": "The passages that they name: TSV, JSON lines or a tokenised folder."},
    )
    sample_neg_from_topk: int | None = field(
        default=None, metadata={"help": "Draw only from so many of the first in --neg_file."}
    )
    query_template: str | None = field(
        default=None, metadata={"help": "Makes a query of its fields: '<text>', or a preset."}
    )
    doc_template: str | None = field(
        default=None,
        metadata={
            "help": "Makes a passage of its fields: 'Title: <title> Text: <text>', or a preset."
        },
    )
    query_column_names: str | None = field(
        default=None, metadata={"help": "Columns of a query TSV: 'id,text'."}
    )
    doc_column_names: str | None = field(
        default=None, metadata={"help": "Columns of a corpus TSV: 'id,title,text'."}
    )
    q_max_len: int = field(default=32, metadata={"help": "Tokens kept of a query."})
    p_max_len: int = field(default=128, metadata={"help": "Tokens kept of a passage."})
    train_n_passages: int = field(
        default=8, metadata={"help": "Passages per query: one positive, the rest negatives."}
    )
    qrels_file: str | None = field(
        default=None,
        metadata={
            "help": "Judgements of TREC or BEIR: a passage of the batch that is relevant to a "
            "query is no negative of it. Examples need query_id and docid."
        },
    )
    query_prefix: str = field(default="", metadata={"help": "Put before every query."})
    passage_prefix: str = field(default="", metadata={"help": "Put before every passage."})

    def __post_init__(self) -> None:
        """Refuse sizes that cannot work."""
        for name in ("q_max_len", "p_max_len", "train_n_passages", "sample_neg_from_topk"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise InputError(f"--{name} is {getattr(self, name)}. It must be at least 1.")
        if bool(self.train_file) == bool(self.train_qrels):
            raise InputError("Give either --train_file or --train_qrels.")
        try:
            check_form(
                TextForm(
                    is_query=True,
                    columns=_names(self.query_column_names),
                    template=self.query_template,
                )
            )
            check_form(TextForm(columns=_names(self.doc_column_names), template=self.doc_template))
        except AsyncvalError as error:
            raise InputError(str(error)) from error

    def training_files(self, *, num_tokens: int | None = None) -> TrainingFiles:
        """Return what belongs to the training files; `num_tokens` is the tokenizer's."""
        return TrainingFiles(
            neg_file=_path(self.neg_file),
            teacher_score_files=tuple(map(Path, self.teacher_score_files)),
            query_file=_path(self.train_query_file),
            corpus_file=_path(self.corpus_file),
            sample_neg_from_topk=self.sample_neg_from_topk,
            wording=Wording(
                query_template=self.query_template,
                doc_template=self.doc_template,
                query_columns=_names(self.query_column_names),
                doc_columns=_names(self.doc_column_names),
                num_tokens=num_tokens,
            ),
        )


def _path(name: str | None) -> Path | None:
    return Path(name) if name else None


def _names(columns: str | None) -> tuple[str, ...]:
    return tuple(each.strip() for each in columns.split(",")) if columns else ()


@dataclass
class RetrieverTrainingArguments(TrainingArguments):
    """The flags of the Hugging Face trainer, and those of the objective."""

    objective: Objective = field(
        default="contrastive",
        metadata={
            "help": "Cross-entropy over the batch, or one of two ways to follow a teacher's "
            "scores: the squared error of margins, or KL over a query's own passages."
        },
    )
    temperature: float = field(
        default=1.0, metadata={"help": "Scores are divided by it; try 0.02 with --normalize."}
    )
    teacher_temp: float = field(
        default=1.0, metadata={"help": "With kl, the teacher's scores are divided by it."}
    )
    contrastive_loss_weight: float = field(
        default=0.0,
        metadata={"help": "With margin_mse or kl, add the contrastive loss times this."},
    )
    negatives_x_device: bool = field(
        default=False,
        metadata={"help": "The contrastive loss takes negatives from the batches of all devices."},
    )

    gc_chunk_size: int = field(
        default=0,
        metadata={
            "help": "Embed so many texts at a time and again for the gradient, so that memory no "
            "longer limits the batch; 0 embeds all at once."
        },
    )
    asyncval: str | None = field(
        default=None,
        metadata={
            "help": "Validate every checkpoint meanwhile: a YAML file with options of `asyncval "
            "watch`, at least query_file, candidate_dir and qrel_file."
        },
    )

    def __post_init__(self) -> None:
        """Settle what our data and a log file need before the Trainer's own checks."""
        for name in ("temperature", "teacher_temp"):
            if getattr(self, name) <= 0:
                raise InputError(f"--{name} is {getattr(self, name)}. It must be above 0.")
        for name in ("contrastive_loss_weight", "gc_chunk_size"):
            if getattr(self, name) < 0:
                raise InputError(f"--{name} is {getattr(self, name)}. It must be 0 or more.")
        for name, (supported, advice) in LIMITED.items():
            if getattr(self, name) != supported:
                raise InputError(f"--{name} is {getattr(self, name)}. {advice}")
        if self.disable_tqdm is None:
            self.disable_tqdm = not sys.stderr.isatty()
        if not torch.accelerator.is_available():
            self.dataloader_pin_memory = False
        if self.ddp_find_unused_parameters is None:
            self.ddp_find_unused_parameters = False  # the only ones, BERT's pooler, are frozen
        # Examples are text, and no column of them is an argument of the model.
        self.remove_unused_columns = False
        super().__post_init__()  # type: ignore[no-untyped-call]
        even_batches: bool = getattr(self.accelerator_config, "even_batches", True)
        if self.negatives_x_device and not even_batches:
            raise InputError(
                "--negatives_x_device needs batches of one size on all devices. Leave even_batches "
                "of --accelerator_config true."
            )


def parse_flags(
    flags: Sequence[str],
) -> tuple[ModelArguments, DataArguments, RetrieverTrainingArguments]:
    """Return the three groups of arguments; argparse exits with code 2 on a wrong flag."""
    groups: Any = (ModelArguments, DataArguments, RetrieverTrainingArguments)
    # Without `usage`, every wrong flag would be answered with all two hundred right ones.
    parser = HfArgumentParser(
        groups,
        usage="python -m trainer train --model_name_or_path MODEL --train_file FILE ... "
        "--output_dir FOLDER [FLAGS]",
    )
    try:
        model, data, training = parser.parse_args_into_dataclasses(list(flags))
    except ValueError as error:
        raise InputError(f"These flags do not go together: {error}") from error
    return model, data, training
