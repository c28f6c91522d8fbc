"""Judgements with negatives and scores beside them: RetroMAE and Disentangled-Retriever.

The training file is a file of judgements, and each query with a relevant passage is an example.
`--neg_file` has its negatives, one query a line:

    qid<TAB>docid,docid,...             Tevatron, OpenMatch, RetroMAE
    qid<TAB>docid docid ...             Disentangled-Retriever
    {"qid": 7, "pos": [...], "neg": {"system": [...]}}      the lists of msmarco-hard-negatives,
                                                            of ids or of {"pid", "ce-score"}

Without it, negatives are drawn from the whole corpus. `--teacher_score_files` has scores. A query
that these files do not have is no example. The texts are those of `--train_query_file` and
`--corpus_file`.
"""

import logging
import random
from array import array
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from trainer.errors import InputError
from trainer.examples import Demands, Example, Passage, Sample
from trainer.formats.json_texts import list_of, number_of
from trainer.judgements import parse_judgement
from trainer.lines import KeyedLines, LineFile
from trainer.sources import NamedTexts, Source, TrainingFiles
from trainer.teachers import Teacher
from trainer.texts import id_of, json_object

logger = logging.getLogger("trainer")
UNLISTED = "--neg_file has no line for them"
UNSCORED = "no relevant passage of theirs has a teacher's score (--teacher_score_files)"


def recognises(first: str) -> bool:
    """Say whether a file that begins with this line is of this form."""
    try:
        parse_judgement(first)
    except ValueError:
        return False
    return not first.lstrip().startswith("{")


def open_source(path: Path, *, files: TrainingFiles, demands: Demands) -> Source:
    """Index and check all files."""
    return JudgedQueries(path, files=files, demands=demands)


class JudgedQueries:
    """One example per query that can be one; only numbers of queries and lines stay in memory."""

    def __init__(self, path: Path, *, files: TrainingFiles, demands: Demands) -> None:
        """Index all files and check every example."""
        file = LineFile(path, option="--train_file", kind="Training file")
        self.where = file.where
        self._relevant = KeyedLines(file, parse_judgement)
        self._texts = NamedTexts(files, needs_queries=True)
        self._negatives: KeyedLines[Lists] | None = None
        if files.neg_file is not None:
            negatives = LineFile(files.neg_file, option="--neg_file", kind="Negatives")
            self._negatives = KeyedLines(negatives, parse_negatives)
        self._teacher = Teacher(files.teacher_score_files) if files.teacher_score_files else None
        self._needs_scores = demands.teacher_scores
        self._depth = files.sample_neg_from_topk
        self.num_short = 0
        if demands.teacher_scores and demands.num_passages > 1 and self._negatives is None:
            raise InputError("A teacher's scores are of given negatives. Give --neg_file.")
        if self._depth is not None and self._negatives is None:
            raise InputError("--sample_neg_from_topk takes the first of --neg_file. Give that too.")
        self._usable = self._checked(demands)

    def __len__(self) -> int:
        return len(self._usable)

    def sample(self, index: int, *, num_passages: int, generator: random.Random) -> Sample:
        """Draw from a query's relevant passages and negatives."""
        example = self._example(self._usable[index])
        if self._negatives is None and num_passages > 1:
            known = {each.id for each in example.positives}
            corpus = self._texts.corpus
            # As many more are drawn as may have to be left out.
            drawn = generator.sample(range(len(corpus)), num_passages - 1 + len(known))
            ids = [each for each in map(corpus.text_id, drawn) if each not in known]
            negatives = [Passage(None, id=each) for each in ids[: num_passages - 1]]
            positive = generator.choice(example.positives)
            return self._texts.fill(Sample(None, [positive, *negatives], example.query_id))
        return self._texts.fill(example.sample(num_passages=num_passages, generator=generator))

    def _checked(self, demands: Demands) -> "array[int]":
        """Check all queries, and return the numbers of those that the other files know."""
        usable = array("q")
        left_out: Counter[str] = Counter()
        first: dict[str, str] = {}
        total = len(self._relevant)
        for index in range(total):
            example = self._example(index)
            reason = self._reason_to_leave_out(example, demands)
            if reason is not None:
                left_out[reason] += 1
                first.setdefault(reason, str(example.query_id))
                continue
            try:
                self._check(example, demands)
            except ValueError as error:
                raise InputError(f"{self.where}, query {example.query_id!r}: {error}.") from error
            usable.append(index)
        if left_out and not usable:
            raise InputError(
                f"{self.where}: none of the {total} judged queries can be trained on: "
                f"{' or '.join(left_out)}, for example {next(iter(first.values()))!r}. Do the "
                "files belong together?"
            )
        for reason, number in left_out.items():
            logger.warning(
                "%d of %d judged queries are left out: %s, for example %r.",
                number,
                total,
                reason,
                first[reason],
            )
        return usable

    def _reason_to_leave_out(self, example: Example, demands: Demands) -> str | None:
        """Return why a query is no example, where the other files do not have it."""
        negatives = self._negatives if demands.num_passages > 1 else None
        if negatives is not None and str(example.query_id) not in negatives:
            return UNLISTED
        return None if example.positives else UNSCORED

    def _example(self, index: int) -> Example:
        """Return all that is known of a query; what is relevant to it is no negative."""
        query_id = self._relevant.key(index)
        relevant = [each for ids in self._relevant.find(query_id) for each in ids]
        negatives: dict[str, Passage] = {}
        scores: dict[str | None, float | None] = {}
        for scored, found in self._negatives.find(query_id) if self._negatives else ():
            negatives |= {str(each.id): each for each in found if str(each.id) not in negatives}
            scores |= {each.id: each.score for each in scored}
        for each in relevant:
            negatives.pop(each, None)
        positives = [Passage(None, score=scores.get(each), id=each) for each in relevant]
        return Example(
            query=None,
            positives=self._scored(query_id, positives),
            negatives=self._scored(query_id, list(negatives.values())[: self._depth]),
            query_id=query_id,
        )

    def _scored(self, query_id: str, passages: list[Passage]) -> list[Passage]:
        """Add the teacher's scores; where they are asked for, leave out what has none."""
        if self._teacher is not None:
            scores = self._teacher.scores(query_id, [str(each.id) for each in passages])
            passages = [
                each._replace(score=score) for each, score in zip(passages, scores, strict=True)
            ]
        if self._needs_scores:
            return [each for each in passages if each.score is not None]
        return passages

    def _check(self, example: Example, demands: Demands) -> None:
        if self._negatives is None:
            if len(self._texts.corpus) < demands.num_passages - 1 + len(example.positives):
                raise ValueError("the corpus has too few passages to draw negatives from")
        else:
            demands.check(example)
            self.num_short += demands.is_short(example)
        self._texts.check(example)


Lists = tuple[Sequence[Passage], Sequence[Passage]]
"""Positives, if only for their scores, and negatives."""


def parse_negatives(line: str) -> tuple[str, Lists]:
    """Read a line of `--neg_file`.

    Raises:
        ValueError: with what is wrong in words that follow `'file', line 3: `.
    """
    if line.lstrip().startswith("{"):
        row = json_object(line)
        if "qid" not in row or not isinstance(row.get("neg"), dict):
            raise ValueError('no "qid", or no "neg" with the lists of one or more systems')
        lists = [_entries(row["neg"], system) for system in row["neg"]]
        return id_of(row, "qid"), (_entries(row, "pos"), [each for some in lists for each in some])
    query_id, _, rest = line.strip().partition("\t")
    ids = rest.split(",") if "," in rest else rest.split()
    if not rest:
        raise ValueError(f"{line.strip()!r} is no query, tab and ids of passages")
    return query_id, ((), [Passage(None, id=each.strip()) for each in ids if each.strip()])


def _entries(row: dict[str, Any], key: str) -> list[Passage]:
    entries: Iterable[Any] = list_of(row, key)
    passages = []
    for entry in entries:
        if isinstance(entry, dict) and "pid" in entry:
            score = entry.get("ce-score")
            score = None if score is None else number_of(score)
            passages.append(Passage(None, score=score, id=id_of(entry, "pid")))
        else:
            passages.append(Passage(None, id=id_of({key: entry}, key)))
    return passages
