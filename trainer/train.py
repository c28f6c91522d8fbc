"""Train a dense retriever: flags in, checkpoints out. Read it from `main` upwards.

Saving, rotation, resuming, mixed precision, distributed runs and logging are the Hugging Face
trainer's; the data, the model, the loss and the layout of a checkpoint are ours.
"""

import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from torch.utils.data import Dataset
from transformers import (
    PreTrainedTokenizerBase,
    PrinterCallback,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
    set_seed,
)
from transformers.utils.logging import disable_progress_bar

from trainer.arguments import (
    DataArguments,
    ModelArguments,
    RetrieverTrainingArguments,
    parse_flags,
)
from trainer.beside import validation_beside
from trainer.checkpoint import (
    TextSettings,
    check_start,
    load_projection,
    load_weights,
    save_checkpoint,
)
from trainer.data import Collator, EpochSampler, TrainingSet
from trainer.errors import InputError
from trainer.examples import Demands, Sample
from trainer.gathering import gather
from trainer.judgements import Judgements, known_relevant
from trainer.losses import contrastive_loss, kl_loss, margin_mse_loss
from trainer.model import BiEncoder, Tower, add_lora, check_lengths, load_transformer
from trainer.tokenizer import load_tokenizer
from trainer.wording import as_prefix

logger = logging.getLogger("trainer")


class RetrieverTrainer(Trainer):
    """The Hugging Face trainer with our loss, our sampling and our checkpoint layout."""

    args: RetrieverTrainingArguments
    model: BiEncoder
    processing_class: PreTrainedTokenizerBase

    def __init__(self, *, train_dataset: TrainingSet, texts: TextSettings, **rest: Any) -> None:  # noqa: ANN401
        super().__init__(train_dataset=train_dataset, **rest)
        self.texts = texts
        seed = self.args.seed if self.args.data_seed is None else self.args.data_seed
        self.sampler = EpochSampler(len(train_dataset), seed=seed)
        self.add_callback(EpochKeeper(self.sampler))
        self.remove_callback(PrinterCallback)
        if self.args.disable_tqdm:
            self.add_callback(ProgressLines())

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:  # noqa: ANN401
        """Embed the batch and score it by the objective that the flags name."""
        # Several GPUs of one process split plain dicts only, by the first axis: that of queries.
        query = dict(inputs["query"])  # [B, T]
        num_queries = len(query["input_ids"])
        passage = {
            name: tokens.unflatten(0, (num_queries, -1))  # [B, n, T]
            for name, tokens in inputs["passage"].items()
        }
        queries, passages = model(query=query, passage=passage)
        loss = self.batch_loss(queries, passages, inputs)
        return (loss, (queries, passages)) if return_outputs else loss

    def batch_loss(self, queries: Tensor, passages: Tensor, batch: Mapping[str, Any]) -> Tensor:
        """Return the loss of [B, D] queries and [B * n, D] passages of a collator's batch."""
        args = self.args
        if args.objective == "contrastive":
            return self.in_batch_loss(queries, passages, batch)
        teacher = batch["teacher"]  # [B, n]; every line was checked for it
        if args.objective == "kl":
            loss = kl_loss(
                queries,
                passages,
                teacher,
                temperature=args.temperature,
                teacher_temperature=args.teacher_temp,
            )
        else:
            loss = margin_mse_loss(queries, passages, teacher, temperature=args.temperature)
        if args.contrastive_loss_weight:
            loss = loss + args.contrastive_loss_weight * self.in_batch_loss(
                queries, passages, batch
            )
        return loss

    def in_batch_loss(self, queries: Tensor, passages: Tensor, batch: Mapping[str, Any]) -> Tensor:
        """Return the contrastive loss, of this process's batch or of those of all W."""
        share = gather if self.args.negatives_x_device else lambda local: local
        excluded = None
        if "relevant" in batch:
            excluded = known_relevant(share(batch["relevant"]), share(batch["passage_keys"]))
        return contrastive_loss(
            share(queries),  # [W * B, D]
            share(passages),  # [W * B * n, D]
            temperature=self.args.temperature,
            excluded=excluded,
        )

    def _get_train_sampler(self, train_dataset: Dataset[Sample] | None = None) -> EpochSampler:
        """Replace the trainer's sampler, whose indices know no epoch."""
        return self.sampler

    def _save(
        self, output_dir: str | None = None, state_dict: Mapping[str, Tensor] | None = None
    ) -> None:
        """Write the model; within a checkpoint the trainer writes its own state after this."""
        if not self.args.should_save:
            return
        folder = Path(output_dir or str(self.args.output_dir))
        # Where a checkpoint is written over, the old one is whole no more.
        (folder / "trainer_state.json").unlink(missing_ok=True)
        save_checkpoint(
            folder,
            model=self.model,
            tokenizer=self.processing_class,
            texts=self.texts,
            weights=state_dict,  # gathered from the wrapped bi-encoder, if it was
        )

    def _load_from_checkpoint(
        self, resume_from_checkpoint: str, model: nn.Module | None = None
    ) -> None:
        """Load our layout into the bi-encoder."""
        load_weights(Path(resume_from_checkpoint), model=self.model, texts=self.texts)


class EpochKeeper(TrainerCallback):
    """Tell the sampler which epoch begins.

    Accelerate's own hook, `set_epoch`, does not reach a sampler behind the wrappers of a
    distributed or a resumed run.
    """

    def __init__(self, sampler: EpochSampler) -> None:
        self.sampler = sampler

    def on_epoch_begin(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **_: Any,  # noqa: ANN401
    ) -> None:
        """Set the epoch before the data loader starts on it."""
        self.sampler.epoch = int(state.epoch or 0)


class ProgressLines(TrainerCallback):
    """One plain line per logging step, where no terminal shows a progress bar."""

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: Mapping[str, float] | None = None,
        **_: Any,  # noqa: ANN401
    ) -> None:
        """Log the loss of the last steps."""
        if state.is_world_process_zero and logs and "loss" in logs:
            loss, rate = logs["loss"], logs.get("learning_rate", 0.0)
            logger.info(
                "Step %d of %d: loss %.4f, rate %.2g",
                state.global_step,
                state.max_steps,
                loss,
                rate,
            )


def checkpoint_to_resume(args: RetrieverTrainingArguments) -> str | None:
    """Return the folder that `--resume_from_checkpoint` names; `true` means the last one."""
    wanted = args.resume_from_checkpoint
    if wanted is None or wanted.lower() == "false":
        return None
    if wanted.lower() == "true":
        output_dir = Path(str(args.output_dir))
        # The trainer writes its state last: a folder without it is of a save that was cut short.
        whole = {
            int(path.parent.name.removeprefix("checkpoint-")): path.parent
            for path in output_dir.glob("checkpoint-*/trainer_state.json")
            if path.parent.name.removeprefix("checkpoint-").isdecimal()
        }
        if not whole:
            raise InputError(
                f"No checkpoint to resume from in {str(output_dir)!r}. Leave out "
                "--resume_from_checkpoint to start afresh."
            )
        return str(whole[max(whole)])
    if not (Path(wanted) / "trainer_state.json").is_file():
        raise InputError(
            f"Checkpoint {wanted!r} has no trainer_state.json. Give --resume_from_checkpoint a "
            "complete checkpoint folder, or true for the last one in --output_dir."
        )
    return wanted


def build_trainer(
    model_args: ModelArguments, data_args: DataArguments, training_args: RetrieverTrainingArguments
) -> RetrieverTrainer:
    """Put data, tokenizer, model and trainer together."""
    if training_args.objective != "contrastive" and data_args.train_n_passages < 2:
        raise InputError(
            f"--objective {training_args.objective} compares passages of one query. Use "
            "--train_n_passages 2 or more."
        )
    set_seed(training_args.seed)
    demands = Demands(
        num_passages=data_args.train_n_passages,
        teacher_scores=training_args.objective != "contrastive",
        ids=data_args.qrels_file is not None,
    )
    has_prefix = bool(data_args.query_prefix or data_args.passage_prefix)
    if model_args.pooling == "decoder" and has_prefix:
        raise InputError(
            "--query_prefix and --passage_prefix do not go with --pooling decoder: OpenMatch's "
            "layout, which such a checkpoint has, has no place for them. Put them into the texts."
        )
    start = Path(model_args.model_name_or_path)
    check_start(start)
    transformer = load_transformer(
        model_args.model_name_or_path, decoder=model_args.pooling == "decoder"
    )
    check_lengths(transformer.config, q_max_len=data_args.q_max_len, p_max_len=data_args.p_max_len)
    if model_args.lora:
        add_lora(
            transformer,
            rank=model_args.lora_r,
            alpha=model_args.lora_alpha,
            dropout=model_args.lora_dropout,
            target_modules=model_args.lora_target_modules,
        )
    tower = Tower(
        transformer,
        pooling=model_args.pooling,
        projection_dim=model_args.projection_dim,
        normalize=model_args.normalize,
        chunk_size=training_args.gc_chunk_size,
    )
    load_projection(start, tower=tower)
    tokenizer = load_tokenizer(
        model_args.tokenizer_name_or_path or model_args.model_name_or_path,
        append_eos=model_args.append_eos_token,
    )
    train_dataset = TrainingSet(
        [data_args.train_qrels] if data_args.train_qrels else data_args.train_file,
        demands=demands,
        seed=training_args.seed,
        data_format="qrels" if data_args.train_qrels else data_args.train_format,
        files=data_args.training_files(num_tokens=len(tokenizer)),
    )
    collator = Collator(
        tokenizer=tokenizer,
        q_max_len=data_args.q_max_len,
        p_max_len=data_args.p_max_len,
        query_prefix=data_args.query_prefix,
        passage_prefix=data_args.passage_prefix,
        judgements=Judgements(Path(data_args.qrels_file)) if data_args.qrels_file else None,
    )
    collator.check(train_dataset[0, 0])
    return RetrieverTrainer(
        model=BiEncoder(tower, untied=model_args.untie_encoder),
        args=training_args,
        train_dataset=train_dataset,
        data_collator=collator,
        processing_class=tokenizer,
        texts=text_settings(data_args),
    )


def text_settings(data_args: DataArguments) -> TextSettings:
    """Return what a checkpoint says of its texts; a template that only puts words first is one."""
    prefix = as_prefix(data_args.query_template)
    return TextSettings(
        q_max_len=data_args.q_max_len,
        p_max_len=data_args.p_max_len,
        query_prefix=data_args.query_prefix + (prefix or ""),
        passage_prefix=data_args.passage_prefix,
        query_template=data_args.query_template if prefix is None else None,
        doc_template=data_args.doc_template,
    )


def main(flags: Sequence[str]) -> None:
    """Train, and leave the final model in `--output_dir` beside the checkpoints."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s")
    model_args, data_args, training_args = parse_flags(flags)
    disable_progress_bar()  # type: ignore[no-untyped-call]  # of loading and saving, not of training
    if training_args.dataloader_num_workers:
        # Workers are forked, and a tokenizer's threads do not survive that: it would wait for ever.
        os.environ["TOKENIZERS_PARALLELISM"] = "false"
    resume_from = checkpoint_to_resume(training_args)
    trainer = build_trainer(model_args, data_args, training_args)
    with validation_beside(
        training_args.asyncval, training_dir=Path(str(training_args.output_dir))
    ):
        trainer.train(resume_from_checkpoint=resume_from)
        trainer.save_model()
