"""One line of a training file: which forms there are, and what a draw from one gives.

Each form names its texts and, if a teacher has scored them, the scores:

    query, positive | positives, negatives [, scores]     scores of the positives, then negatives
    query, positive, negative, score                      OpenMatch's pair: the margin
    query, docs | passages, scores                        OpenMatch's and Tevatron's lists: the
                                                          positive is the first
    query, positive_passages, negative_passages           Tevatron: objects with text, and maybe
                                                          title, docid and score

A passage is a string in the forms of the first two lines; anywhere it may be such an object.
"""

import json
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple


class Passage(NamedTuple):
    """A text, and what is known of it."""

    text: str
    score: float | None = None
    id: str | None = None


class Sample(NamedTuple):
    """A query and its n passages, the positive first."""

    query: str
    passages: list[Passage]
    query_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """One line of a training file."""

    query: str
    positives: list[Passage]
    negatives: list[Passage]
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
                'no teacher scores, but --objective asks for them. Give each passage a "score" or '
                'the line "scores"'
            )
        # A teacher's distribution is over different passages: none is drawn twice.
        if self.teacher_scores and len(example.negatives) < self.num_passages - 1:
            raise ValueError(
                f"{len(example.negatives)} negatives, but --train_n_passages {self.num_passages} "
                f"asks for {self.num_passages - 1} with scores of their own. Lower it"
            )
        if self.ids and (example.query_id is None or any(each.id is None for each in passages)):
            raise ValueError(
                'no ids, but --qrels_file asks for them. Give the line a "query_id" and each '
                'passage a "docid"'
            )


def parse_example(line: bytes) -> Example:
    """Read one line of any form.

    Raises:
        ValueError: with what is wrong in words that follow `'file', line 3: `.
    """
    try:
        row = json.loads(line)
    except ValueError as error:
        raise ValueError(f"not JSON ({error})") from error
    if not isinstance(row, dict):
        raise ValueError(f"a {type(row).__name__} where an object should be")
    if not isinstance(row.get("query"), str):
        raise ValueError('no "query" string')
    positives, negatives = _sides(row)
    if not positives:
        raise ValueError('no "positive", "positives", "positive_passages", "passages" or "docs"')
    passages = [_passage(value) for value in [*positives, *negatives]]
    if "scores" in row or "score" in row:
        passages = _with_scores(passages, _line_scores(row))
    scored = sum(passage.score is not None for passage in passages)
    if scored not in (0, len(passages)):
        raise ValueError(f"{scored} of {len(passages)} passages have a score and the rest none")
    return Example(
        query=row["query"],
        positives=passages[: len(positives)],
        negatives=passages[len(positives) :],
        query_id=_id(row, "query_id"),
    )


def _sides(row: dict[str, Any]) -> tuple[list[Any], list[Any]]:
    """Return the positives and the negatives of a line."""
    if "positive_passages" in row:
        return _list(row, "positive_passages"), _list(row, "negative_passages")
    for key in ("docs", "passages"):
        if key in row:
            if "scores" not in row:
                raise ValueError(f'"{key}" without "scores"')
            passages = _list(row, key)
            return passages[:1], passages[1:]
    positives = [row["positive"]] if "positive" in row else _list(row, "positives")
    negatives = [row["negative"]] if "negative" in row else _list(row, "negatives")
    return positives, negatives


def _list(row: dict[str, Any], key: str) -> list[Any]:
    values = row.get(key, [])
    if not isinstance(values, list):
        raise ValueError(f'"{key}" is a {type(values).__name__} and should be a list')
    return values


def _passage(value: Any) -> Passage:  # noqa: ANN401
    """Read a string or an object, whose title and text are joined by one space."""
    if isinstance(value, str):
        return Passage(value)
    if not isinstance(value, dict):
        raise ValueError("a passage that is not a string or an object")
    if not isinstance(value.get("text"), str):
        raise ValueError('a passage without a "text" string')
    score = value.get("score")
    return Passage(
        text=f"{value.get('title') or ''} {value['text']}".strip(),
        score=None if score is None else _number(score),
        id=_id(value, "docid"),
    )


def _line_scores(row: dict[str, Any]) -> list[float]:
    """Return the scores that stand beside the passages."""
    if "scores" in row:
        return [_number(score) for score in _list(row, "scores")]
    if "positive" not in row or "negative" not in row:
        raise ValueError('"score" without "positive" and "negative"')
    # Only the difference is known, and only the difference matters to either objective.
    return [_number(row["score"]), 0.0]


def _with_scores(passages: Sequence[Passage], scores: Sequence[float]) -> list[Passage]:
    if len(scores) != len(passages):
        raise ValueError(f"{len(scores)} scores for {len(passages)} passages")
    return [passage._replace(score=score) for passage, score in zip(passages, scores, strict=True)]


def _number(value: Any) -> float:  # noqa: ANN401
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"the score {value!r} that is not a finite number")
    return float(value)


def _id(row: dict[str, Any], key: str) -> str | None:
    value = row.get(key)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise ValueError(f'the "{key}" {value!r} that is not a string')
    return str(value)
