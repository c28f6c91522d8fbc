"""Training data for the trainer: drawn the same way for the same seed, and made into batches."""

import logging
import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import Dataset, Sampler
from transformers import BatchEncoding, PreTrainedTokenizerBase

from trainer.errors import InputError
from trainer.examples import Demands, Sample
from trainer.formats import FORMATS
from trainer.judgements import Judgements
from trainer.lines import key_of
from trainer.sources import TrainingFiles, open_source
from trainer.tokenizer import SpecialTokens
from trainer.wording import Content

logger = logging.getLogger("trainer")

DATA_SUFFIXES = (".json", ".jsonl", ".tsv", ".txt")


class TrainingSet(Dataset[Sample]):
    """The examples of all files; an item's key is (epoch, index), and its draw follows from it."""

    def __init__(
        self,
        paths: Iterable[str],
        *,
        demands: Demands,
        seed: int,
        data_format: str = "auto",
        files: TrainingFiles | None = None,
    ) -> None:
        """Open and check all files.

        Args:
            paths: of training files, or of folders with nothing but training files.
            demands: on every example.
            seed: of the draws.
            data_format: a name in `FORMATS`, or "auto".
            files: what belongs to the training files.
        """
        self.num_passages = demands.num_passages
        self.seed = seed
        self.sources = [
            open_source(
                path,
                table=FORMATS,
                name=data_format,
                files=files or TrainingFiles(),
                demands=demands,
            )
            for path in _files(paths)
        ]
        if not len(self):
            names = ", ".join(source.where for source in self.sources)
            raise InputError(f"{names}: no training example in it. Check --train_file.")
        short = sum(source.num_short for source in self.sources)
        if short:
            logger.warning(
                "%d of %d examples have fewer than %d negatives: theirs are drawn more than once.",
                short,
                len(self),
                self.num_passages - 1,
            )

    def __len__(self) -> int:
        return sum(len(source) for source in self.sources)

    def __getitem__(self, key: tuple[int, int]) -> Sample:
        epoch, index = key
        generator = random.Random(f"{self.seed} {epoch} {index}")
        for source in self.sources:
            if index < len(source):
                return source.sample(index, num_passages=self.num_passages, generator=generator)
            index -= len(source)
        raise IndexError(key)


def _files(paths: Iterable[str]) -> Iterator[Path]:
    for name in paths:
        path = Path(name)
        if not path.is_dir():
            yield path
            continue
        inside = sorted(
            each
            for each in path.iterdir()
            if Path(each.name.removesuffix(".gz")).suffix in DATA_SUFFIXES
        )
        if not inside:
            raise InputError(f"The folder {name!r} has no training file. Check --train_file.")
        yield from inside


class EpochSampler(Sampler[tuple[int, int]]):
    """Shuffle the examples anew in each epoch and send the epoch along with each index.

    The epoch travels in the key, so a data-loader worker that outlives an epoch, or a run that
    resumes in the middle of one, cannot have a stale copy of it.
    """

    def __init__(self, num_examples: int, *, seed: int) -> None:
        self.num_examples = num_examples
        self.seed = seed
        self.epoch = 0

    def __len__(self) -> int:
        return self.num_examples

    def __iter__(self) -> Iterator[tuple[int, int]]:
        epoch = self.epoch
        generator = torch.Generator().manual_seed(self.seed + epoch)
        order = torch.randperm(self.num_examples, generator=generator)
        return ((epoch, int(index)) for index in order.numpy())


@dataclass(frozen=True, slots=True, kw_only=True)
class Collator:
    """Make a batch of a list of samples."""

    tokenizer: PreTrainedTokenizerBase
    q_max_len: int
    p_max_len: int
    query_prefix: str = ""
    passage_prefix: str = ""
    judgements: Judgements | None = None
    special: SpecialTokens = field(init=False)

    def __post_init__(self) -> None:
        """Find out what surrounds token ids."""
        object.__setattr__(self, "special", SpecialTokens.of(self.tokenizer))

    def __call__(self, samples: Sequence[Sample]) -> dict[str, Any]:
        """Return what `BiEncoder.forward` takes, and what is known of it.

        Returns:
            `query` [B, Tq] and `passage` [B * n, Tp], each padded to its longest text; if there
            are scores, `teacher` [B, n]; if there are judgements, `relevant` [B, R] and
            `passage_keys` [B * n].
        """
        passages = [each for sample in samples for each in sample.passages]  # B * n
        batch: dict[str, Any] = {
            "query": self._tokens(
                [sample.query for sample in samples], self.query_prefix, self.q_max_len
            ),
            "passage": self._tokens(
                [each.text for each in passages], self.passage_prefix, self.p_max_len
            ),
        }
        scores = [each.score for each in passages if each.score is not None]
        if len(scores) == len(passages):
            batch["teacher"] = torch.tensor(scores).view(len(samples), -1)
        if self.judgements is not None:
            batch["relevant"] = self.judgements.of(sample.query_id for sample in samples)
            batch["passage_keys"] = torch.tensor([key_of(str(each.id)) for each in passages])
        return batch

    def check(self, sample: Sample) -> None:
        """Refuse token ids that this tokenizer or these flags cannot do anything right with."""
        texts = [
            (sample.query, self.query_prefix),
            *((each.text, self.passage_prefix) for each in sample.passages),
        ]
        for ids, prefix in texts:
            if not isinstance(ids, tuple):
                continue
            if prefix:
                raise InputError(
                    "The training data has token ids, and a prefix is text. Leave out "
                    "--query_prefix and --passage_prefix, or train on texts."
                )
            if self.special.are_in(ids):
                raise InputError(
                    f"The training data has token ids with special tokens in them ({ids[0]} ... "
                    f"{ids[-1]}), which would be added again. Tokenise it without."
                )

    def _tokens(self, texts: Sequence[Content | None], prefix: str, length: int) -> BatchEncoding:
        if any(isinstance(each, tuple) for each in texts):
            return self._padded([self._ids(each, prefix, length) for each in texts])
        tokens: BatchEncoding = self.tokenizer(
            [prefix + str(each) for each in texts],
            max_length=length,
            truncation=True,
            padding=True,
            return_tensors="pt",
        )
        return tokens

    def _ids(self, text: Content | None, prefix: str, length: int) -> list[int]:
        if isinstance(text, tuple):
            return self.special.around(text, max_length=length)
        ids: list[int] = self.tokenizer(prefix + str(text), max_length=length, truncation=True)[
            "input_ids"
        ]
        return ids

    def _padded(self, rows: Sequence[Sequence[int]]) -> BatchEncoding:
        longest = max(map(len, rows))
        pad = self.tokenizer.pad_token_id
        return BatchEncoding(
            {
                "input_ids": torch.tensor([[*row, *[pad] * (longest - len(row))] for row in rows]),
                "attention_mask": torch.tensor(
                    [[1] * len(row) + [0] * (longest - len(row)) for row in rows]
                ),
            }
        )
