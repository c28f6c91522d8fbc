"""JSON lines with texts in them: Tevatron's, OpenMatch's and our own.

    query, positive | positives, negatives [, scores]     scores of the positives, then negatives
    query, positive, negative, score                      OpenMatch's pair: the margin
    query, docs | passages, scores                        OpenMatch's and Tevatron's lists: the
                                                          positive is the first
    query, positive_passages, negative_passages           Tevatron: objects with text, and maybe
                                                          title, docid and score

A text is a string or a list of token ids without special tokens; a passage may also be an object
like Tevatron's.
"""

import math
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from trainer.examples import Demands, Example, Passage
from trainer.sources import LineExamples, Source, TrainingFiles
from trainer.texts import id_of, json_object
from trainer.wording import Wording

ADVICE = (
    'Each line needs "query" and "positive", "positives" or "positive_passages", or a scored list.'
)


def recognises(first: str) -> bool:
    """Say whether a file that begins with this line is of this form."""
    return first.lstrip().startswith("{")


def open_source(path: Path, *, files: TrainingFiles, demands: Demands) -> Source:
    """Index and check a file."""
    files.refuse_beside_examples(path)
    parse = partial(parse_example, wording=files.wording)
    return LineExamples(path, parse=parse, demands=demands, advice=ADVICE)


def parse_example(line: str, *, wording: Wording) -> Example:
    """Read one line.

    Raises:
        ValueError: with what is wrong in words that follow `'file', line 3: `.
    """
    row = json_object(line)
    query = wording.query(row)
    positives, negatives = _sides(row)
    if not positives:
        raise ValueError('no "positive", "positives", "positive_passages", "passages" or "docs"')
    passages = [_passage(value, wording) for value in [*positives, *negatives]]
    if "scores" in row or "score" in row:
        passages = with_scores(passages, _line_scores(row))
    scored = sum(passage.score is not None for passage in passages)
    if scored not in (0, len(passages)):
        raise ValueError(f"{scored} of {len(passages)} passages have a score and the rest none")
    return Example(
        query=query,
        positives=passages[: len(positives)],
        negatives=passages[len(positives) :],
        query_id=None if row.get("query_id") is None else id_of(row, "query_id"),
    )


def _sides(row: dict[str, Any]) -> tuple[list[Any], list[Any]]:
    """Return the positives and the negatives of a line."""
    if "positive_passages" in row:
        return list_of(row, "positive_passages"), list_of(row, "negative_passages")
    for key in ("docs", "passages"):
        if key in row:
            if "scores" not in row:
                raise ValueError(f'"{key}" without "scores"')
            passages = list_of(row, key)
            return passages[:1], passages[1:]
    positives = [row["positive"]] if "positive" in row else list_of(row, "positives")
    negatives = [row["negative"]] if "negative" in row else list_of(row, "negatives")
    return positives, negatives


def list_of(row: dict[str, Any], key: str) -> list[Any]:
    """Return the list of a field; none is an empty one."""
    values = row.get(key, [])
    if not isinstance(values, list):
        raise ValueError(f'"{key}" is a {type(values).__name__} and should be a list')
    return values


def _passage(value: Any, wording: Wording) -> Passage:  # noqa: ANN401
    """Read a string, token ids or an object."""
    if isinstance(value, str) or (value and isinstance(value, list)):
        value = {"text": value}
    if not isinstance(value, dict):
        raise ValueError("a passage that is not a string, a list of token ids or an object")
    score = value.get("score")
    return Passage(
        text=wording.passage(value),
        score=None if score is None else number_of(score),
        id=None if value.get("docid") is None else id_of(value, "docid"),
    )


def _line_scores(row: dict[str, Any]) -> list[float]:
    """Return the scores that stand beside the passages."""
    if "scores" in row:
        return [number_of(score) for score in list_of(row, "scores")]
    if "positive" not in row or "negative" not in row:
        raise ValueError('"score" without "positive" and "negative"')
    # Only the difference is known, and only the difference matters to either objective.
    return [number_of(row["score"]), 0.0]


def with_scores(passages: Sequence[Passage], scores: Sequence[float]) -> list[Passage]:
    """Give each passage its teacher's score."""
    if len(scores) != len(passages):
        raise ValueError(f"{len(scores)} scores for {len(passages)} passages")
    return [passage._replace(score=score) for passage, score in zip(passages, scores, strict=True)]


def number_of(value: object) -> float:
    """Return a finite number."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"the score {value!r} that is not a finite number")
    return float(value)
