"""Where training examples come from: which files there are, and what every form of them offers."""

import random
from array import array
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

from trainer.errors import InputError
from trainer.examples import Demands, Example, Sample
from trainer.lines import LineFile
from trainer.texts import Texts, missing, open_texts
from trainer.wording import Wording


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingFiles:
    """The files that a training is told of, beside the training file itself."""

    neg_file: Path | None = None
    teacher_score_files: tuple[Path, ...] = ()
    query_file: Path | None = None
    corpus_file: Path | None = None
    sample_neg_from_topk: int | None = None
    wording: Wording = field(default_factory=Wording)

    def refuse_beside_examples(self, path: Path) -> None:
        """Refuse what only judgements can have beside them, for a training file of another form."""
        only_beside_judgements = {
            "--neg_file": self.neg_file,
            "--teacher_score_files": self.teacher_score_files,
            "--sample_neg_from_topk": self.sample_neg_from_topk,
        }
        for flag, value in only_beside_judgements.items():
            if value:
                raise InputError(
                    f"{flag} goes with judgements, but the lines of training file {str(path)!r} "
                    "are whole examples. Leave it out, or give judgements with --train_qrels."
                )


class Source(Protocol):
    """Examples by number, of which any process may draw any at any time.

    `num_short` of them have fewer negatives than are asked for.
    """

    where: str
    num_short: int

    def __len__(self) -> int: ...

    def sample(self, index: int, *, num_passages: int, generator: random.Random) -> Sample:
        """Draw from an example; all texts of the sample are there."""
        ...


class NamedTexts:
    """The texts of the queries and passages that training files name by their ids."""

    def __init__(self, files: TrainingFiles, *, needs_queries: bool) -> None:
        """Index `--corpus_file` and, if there is one, `--train_query_file`."""
        wording = files.wording
        if files.corpus_file is None or (needs_queries and files.query_file is None):
            wanted = "--corpus_file" if files.corpus_file is None else "--train_query_file"
            raise InputError(
                f"The training data names texts by their ids. Give {wanted} a file that has them."
            )
        self.queries: Texts | None = None
        if files.query_file is not None:
            self.queries = open_texts(
                files.query_file,
                option="--train_query_file",
                kind="Query file",
                word=wording.named_query,
                columns=wording.query_columns,
                num_tokens=wording.num_tokens,
            )
        self.corpus: Texts = open_texts(
            files.corpus_file,
            option="--corpus_file",
            kind="Corpus",
            word=wording.passage,
            columns=wording.doc_columns,
            num_tokens=wording.num_tokens,
        )

    def check(self, example: Example) -> None:
        """Raise ValueError, in words that follow `'file', line 3: `, where a text is missing."""
        if example.query is None and self.queries is None:
            raise ValueError('no "query". Add it or give --train_query_file')
        if example.query is None and self.queries is not None:
            unknown = missing([str(example.query_id)], self.queries)
            if unknown is not None:
                raise ValueError(f"the query {unknown!r} is not in {_lower(self.queries.where)}")
        ids = [str(each.id) for each in [*example.positives, *example.negatives]]
        unknown = missing(ids, self.corpus)
        if unknown is not None:
            raise ValueError(f"the passage {unknown!r} is not in {_lower(self.corpus.where)}")

    def fill(self, sample: Sample) -> Sample:
        """Look the texts up."""
        query = sample.query
        if query is None:
            assert self.queries is not None  # `check` saw to it
            query = self.queries[str(sample.query_id)]
        passages = [each._replace(text=self.corpus[str(each.id)]) for each in sample.passages]
        return Sample(query, passages, sample.query_id)


def _lower(where: str) -> str:
    return where[0].lower() + where[1:]


class LineExamples:
    """One example a line; only two integers per line stay in memory."""

    def __init__(
        self,
        path: Path,
        *,
        parse: Callable[[str], Example],
        demands: Demands,
        texts: NamedTexts | None = None,
        advice: str = "",
    ) -> None:
        """Index and check every line, so that no training dies of a bad one hours later.

        Args:
            path: of the file.
            parse: reads a line; raises ValueError with words that follow `'file', line 3: `.
            demands: on every example.
            texts: of what the lines name by ids.
            advice: a sentence on what a line needs, where one cannot be read.
        """
        self._lines = LineFile(path, option="--train_file", kind="Training file")
        self.where = self._lines.where
        self.num_short = 0
        self._parse, self._texts = parse, texts
        self._starts, self._lengths = array("q"), array("q")
        for number, start, line in self._lines:
            try:
                example = parse(line.decode())
            except ValueError as error:
                problem = f"{self.where}, line {number}: {error}."
                raise InputError(f"{problem} {advice}".strip()) from error
            try:
                demands.check(example)
                if texts is not None:
                    texts.check(example)
            except ValueError as error:
                raise InputError(f"{self.where}, line {number}: {error}.") from error
            self.num_short += demands.is_short(example)
            self._starts.append(start)
            self._lengths.append(len(line))

    def __len__(self) -> int:
        return len(self._starts)

    def sample(self, index: int, *, num_passages: int, generator: random.Random) -> Sample:
        """Draw from the example of a line."""
        line = self._lines.read(self._starts[index], self._lengths[index])
        example = self._parse(line.decode())
        sample = example.sample(num_passages=num_passages, generator=generator)
        return sample if self._texts is None else self._texts.fill(sample)


def open_source(
    path: Path, *, table: dict[str, str], name: str, files: TrainingFiles, demands: Demands
) -> Source:
    """Open a file by the form that it has.

    Args:
        path: of the training file.
        table: name of a form to its module, which has `recognises` and `open_source`.
        name: one of them, "auto" for the first that recognises the file, or a module.
        files: what belongs to it.
        demands: on every example.
    """
    module: Any = None
    if name != "auto":
        with suppress(ImportError):
            module = import_module(table.get(name, name))
        if not hasattr(module, "open_source"):
            raise InputError(
                f"--train_format {name!r} is not known. Use auto, {', '.join(table)}, or a module "
                "of your own with `open_source`."
            )
    else:
        first = LineFile(path, option="--train_file", kind="Training file").first()
        for place in table.values():
            module = import_module(place)
            if module.recognises(first):
                break
    source: Source = module.open_source(path, files=files, demands=demands)
    return source
