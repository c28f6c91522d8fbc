"""Training data: checked once, read lazily, sampled the same way for the same seed."""

import gzip
import os
import random
import shutil
import tempfile
import weakref
from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import Dataset, Sampler
from transformers import BatchEncoding, PreTrainedTokenizerBase

from trainer.errors import InputError
from trainer.examples import Demands, Example, Sample, parse_example
from trainer.judgements import Judgements, passage_key

GZIP_MAGIC = b"\x1f\x8b"


class ExampleFile:
    """Random access to the examples of one file; only two integers per line stay in memory."""

    def __init__(self, path: Path, *, demands: Demands) -> None:
        """Index and check every line, so that no training dies of a bad one hours later."""
        self.name = str(path)
        if not path.is_file():
            raise InputError(f"Training file {self.name!r} does not exist. Check --train_file.")
        self._plain = _uncompressed(path, owner=self)
        self._descriptor: int | None = None
        self._starts, self._lengths = array("q"), array("q")
        start = 0
        with self._plain.open("rb") as lines:
            for number, line in enumerate(lines, start=1):
                if line.strip():
                    self._check(line, number, demands)
                    self._starts.append(start)
                    self._lengths.append(len(line))
                start += len(line)

    def __len__(self) -> int:
        return len(self._starts)

    def __getitem__(self, index: int) -> Example:
        if self._descriptor is None:
            self._descriptor = os.open(self._plain, os.O_RDONLY)
        # pread has no shared file position, so forked workers cannot disturb each other.
        return parse_example(os.pread(self._descriptor, self._lengths[index], self._starts[index]))

    def __getstate__(self) -> dict[str, Any]:
        """Leave the open file behind: a worker that was spawned opens its own."""
        return {**self.__dict__, "_descriptor": None}

    def _check(self, line: bytes, number: int, demands: Demands) -> None:
        where = f"Training file {self.name!r}, line {number}"
        try:
            example = parse_example(line)
        except ValueError as error:
            raise InputError(
                f'{where}: {error}. Each line needs "query" and "positive", "positives" or '
                '"positive_passages", or a scored list.'
            ) from error
        try:
            demands.check(example)
        except ValueError as error:
            raise InputError(f"{where}: {error}.") from error


def _uncompressed(path: Path, *, owner: object) -> Path:
    """Return a file that can be read at any offset: `path`, or a temporary copy without gzip."""
    with path.open("rb") as file:
        if file.read(2) != GZIP_MAGIC:
            return path
    handle, name = tempfile.mkstemp(prefix="trainer-", suffix=".jsonl")
    weakref.finalize(owner, _remove, Path(name), os.getpid())
    try:
        with gzip.open(path) as packed, os.fdopen(handle, "wb") as plain:
            shutil.copyfileobj(packed, plain)
    except (OSError, EOFError) as error:
        raise InputError(
            f"Training file {str(path)!r} is a broken gzip file: {error}. Write it anew."
        ) from error
    return Path(name)


def _remove(path: Path, owner_pid: int) -> None:
    # A forked worker inherits the finalizer, but the file belongs to its parent.
    if os.getpid() == owner_pid:
        path.unlink(missing_ok=True)


class TrainingSet(Dataset[Sample]):
    """The examples of all files; an item's key is (epoch, index), and its draw follows from it."""

    def __init__(self, paths: Iterable[str], *, demands: Demands, seed: int) -> None:
        self.num_passages = demands.num_passages
        self.seed = seed
        self.files = [ExampleFile(Path(path), demands=demands) for path in paths]
        if not len(self):
            names = ", ".join(repr(file.name) for file in self.files)
            raise InputError(f"No training example in {names}. Each line should hold one.")

    def __len__(self) -> int:
        return sum(len(file) for file in self.files)

    def __getitem__(self, key: tuple[int, int]) -> Sample:
        epoch, index = key
        generator = random.Random(f"{self.seed} {epoch} {index}")
        return self._example(index).sample(num_passages=self.num_passages, generator=generator)

    def _example(self, index: int) -> Example:
        for file in self.files:
            if index < len(file):
                return file[index]
            index -= len(file)
        raise IndexError(index)


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
        generator = torch.Generator().manual_seed(self.seed + self.epoch)
        order = torch.randperm(self.num_examples, generator=generator).tolist()
        return ((self.epoch, index) for index in order)


@dataclass(frozen=True, slots=True, kw_only=True)
class Collator:
    """Make a batch of a list of samples."""

    tokenizer: PreTrainedTokenizerBase
    q_max_len: int
    p_max_len: int
    query_prefix: str = ""
    passage_prefix: str = ""
    judgements: Judgements | None = None

    def __call__(self, samples: Sequence[Sample]) -> dict[str, Any]:
        """Return what `BiEncoder.forward` takes, and what is known of it.

        Returns:
            `query` [B, Tq] and `passage` [B * n, Tp], each padded to its longest text; if there
            are scores, `teacher` [B, n]; if there are judgements, `relevant` [B, R] and
            `passage_keys` [B * n].
        """
        queries = [self.query_prefix + sample.query for sample in samples]  # B
        passages = [each for sample in samples for each in sample.passages]  # B * n
        batch: dict[str, Any] = {
            "query": self._tokens(queries, self.q_max_len),
            "passage": self._tokens(
                [self.passage_prefix + each.text for each in passages], self.p_max_len
            ),
        }
        scores = [each.score for each in passages if each.score is not None]
        if len(scores) == len(passages):
            batch["teacher"] = torch.tensor(scores).view(len(samples), -1)
        if self.judgements is not None:
            batch["relevant"] = self.judgements.of(sample.query_id for sample in samples)
            batch["passage_keys"] = torch.tensor([passage_key(each.id) for each in passages])
        return batch

    def _tokens(self, texts: list[str], max_length: int) -> BatchEncoding:
        tokens: BatchEncoding = self.tokenizer(
            texts, max_length=max_length, truncation=True, padding=True, return_tensors="pt"
        )
        return tokens
