"""JSON lines that name passages by their ids: Tevatron since version 2.

    query_id, query | query_text, positive_document_ids, negative_document_ids [, scores]

The passages are those of `--corpus_file`; a query without a text is one of `--train_query_file`.
`positive_ids` and `negative_ids` say the same, and scores are of the positives, then the negatives.
"""

from functools import partial
from pathlib import Path
from typing import Any

from trainer.examples import Demands, Example, Passage
from trainer.formats.json_texts import list_of, number_of, with_scores
from trainer.sources import LineExamples, NamedTexts, Source, TrainingFiles
from trainer.texts import id_of, json_object
from trainer.wording import QUERY_KEYS, Wording

POSITIVES = ("positive_document_ids", "positive_ids")
NEGATIVES = ("negative_document_ids", "negative_ids")
ADVICE = f'Each line needs "query_id", "{POSITIVES[0]}" and "{NEGATIVES[0]}".'


def recognises(first: str) -> bool:
    """Say whether a file that begins with this line is of this form."""
    return first.lstrip().startswith("{") and any(f'"{key}"' in first for key in POSITIVES)


def open_source(path: Path, *, files: TrainingFiles, demands: Demands) -> Source:
    """Index and check a file and the texts that it names."""
    files.refuse_beside_examples(path)
    parse = partial(parse_example, wording=files.wording)
    texts = NamedTexts(files, needs_queries=False)
    return LineExamples(path, parse=parse, demands=demands, texts=texts, advice=ADVICE)


def parse_example(line: str, *, wording: Wording) -> Example:
    """Read one line.

    Raises:
        ValueError: with what is wrong in words that follow `'file', line 3: `.
    """
    row = json_object(line)
    if "query_id" not in row:
        raise ValueError('no "query_id"')
    positives, negatives = _ids(row, POSITIVES), _ids(row, NEGATIVES)
    if not positives:
        raise ValueError(f'no "{POSITIVES[0]}"')
    passages = [Passage(None, id=each) for each in [*positives, *negatives]]
    if "scores" in row:
        passages = with_scores(passages, [number_of(each) for each in list_of(row, "scores")])
    return Example(
        query=wording.query(row) if any(key in row for key in QUERY_KEYS) else None,
        positives=passages[: len(positives)],
        negatives=passages[len(positives) :],
        query_id=id_of(row, "query_id"),
    )


def _ids(row: dict[str, Any], keys: tuple[str, str]) -> list[str]:
    key = keys[1] if keys[1] in row else keys[0]
    values = list_of(row, key)
    return [id_of({key: value}, key) for value in values]
