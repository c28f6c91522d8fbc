"""GPL's lines of four fields: query, positive, negative, and the margin of a teacher's scores.

    qid<TAB>docid<TAB>docid<TAB>3.25

The texts are those of `--train_query_file` and `--corpus_file`.
"""

from pathlib import Path

from trainer.examples import Demands, Example, Passage
from trainer.formats.json_texts import number_of
from trainer.sources import LineExamples, NamedTexts, Source, TrainingFiles

ADVICE = "Each line needs query, positive, negative and margin with tabs between them."


def recognises(first: str) -> bool:
    """Say whether a file that begins with this line is of this form."""
    fields = first.rstrip("\r\n").split("\t")
    # Judgements may have four fields too, of which the last is a whole number.
    return len(fields) == 4 and not fields[3].lstrip("-").isdecimal()


def open_source(path: Path, *, files: TrainingFiles, demands: Demands) -> Source:
    """Index and check a file and the texts that it names."""
    files.refuse_beside_examples(path)
    texts = NamedTexts(files, needs_queries=True)
    return LineExamples(path, parse=parse_example, demands=demands, texts=texts, advice=ADVICE)


def parse_example(line: str) -> Example:
    """Read one line.

    Raises:
        ValueError: with what is wrong in words that follow `'file', line 3: `.
    """
    fields = line.rstrip("\r\n").split("\t")
    if len(fields) != 4:
        raise ValueError(f"{len(fields)} fields between tabs")
    # Only the difference is known, and only the difference matters.
    return Example(
        query=None,
        positives=[Passage(None, id=fields[1], score=_margin(fields))],
        negatives=[Passage(None, id=fields[2], score=0.0)],
        query_id=fields[0],
    )


def _margin(fields: list[str]) -> float:
    try:
        margin = float(fields[3])
    except ValueError:
        raise ValueError(f"the margin {fields[3]!r} that is not a number") from None
    return number_of(margin)
