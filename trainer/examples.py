"""What a training example is, what is demanded of it, and what a draw from one gives."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from trainer.wording import Content


class Passage(NamedTuple):
    """A text, and what is known of it; an id alone stands for a text of the corpus."""

    text: Content | None
    score: float | None = None
    id: str | None = None


class Sample(NamedTuple):
    """A query and its n passages, the positive first."""

    query: Content | None
    passages: list[Passage]
    query_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """A query with its positives and negatives."""

    query: Content | None
    positives: Sequence[Passage]
    negatives: Sequence[Passage]
    query_id: str | None = None

    def sample(self, *, num_passages: int, generator: random.Random) -> Sample:
        """Draw one positive and `num_passages - 1` negatives, with replacement only if too few."""
        positive = generator.choice(self.positives)
        num_negatives = num_passages - 1
        if num_negatives <= len(self.negatives):
            negatives = generator.sample(self.negatives, num_negatives)
        else:
            negatives = generator.choices(self.negatives, k=num_negatives)
        return Sample(self.query, [positive, *negatives], self.query_id)


@dataclass(frozen=True, slots=True, kw_only=True)
class Demands:
    """What every example must offer, which depends on the flags."""

    num_passages: int = 1
    teacher_scores: bool = False
    ids: bool = False

    def is_short(self, example: Example) -> bool:
        """Say whether negatives of an example have to be drawn more than once."""
        return len(example.negatives) < self.num_passages - 1

    def check(self, example: Example) -> None:
        """Raise ValueError in words that follow `'file', line 3: `."""
        passages = [*example.positives, *example.negatives]
        if self.num_passages > 1 and not example.negatives:
            raise ValueError(
                f"no negatives, but --train_n_passages {self.num_passages} asks for "
                f"{self.num_passages - 1}. Add negatives or use --train_n_passages 1 to train "
                "with in-batch negatives only"
            )
        if self.teacher_scores and passages[0].score is None:
            raise ValueError(
                'no teacher scores, but --objective asks for them. Give each passage a "score", '
                'the line "scores", or --teacher_score_files'
            )
        # A teacher's distribution is over different passages: none is drawn twice.
        if self.teacher_scores and self.is_short(example):
            raise ValueError(
                f"{len(example.negatives)} negatives, but --train_n_passages {self.num_passages} "
                f"asks for {self.num_passages - 1} with scores of their own. Lower it"
            )
        if self.ids and (example.query_id is None or any(each.id is None for each in passages)):
            raise ValueError(
                'no ids, but --qrels_file asks for them. Give the line a "query_id" and each '
                'passage a "docid"'
            )
