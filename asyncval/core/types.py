"""The values that pass between the parts.

Axes: Q queries, P passages, D dimensions, K depth, B batch, T tokens.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

if TYPE_CHECKING:
    from asyncval.core.ports import Encoder

Pooling = Literal["cls", "mean", "max", "mean_sqrt_len", "weightedmean", "last"]
Similarity = Literal["ip", "cos"]
Precision = Literal["fp32", "fp16", "bf16"]
Dtype = Literal["auto", "fp32", "fp16", "bf16"]
"""The precision that was asked for; `auto` is the fastest that the device is good at."""
SearchBackend = Literal["auto", "faiss", "torch"]
PinMethod = Literal["auto", "reflink", "hardlink", "copy", "none"]
RunType = Literal["auto", "trec", "msmarco", "score", "retromae"]
WriteRun = Literal["trec", "msmarco", "none"]
Judgements = Mapping[str, Mapping[str, int]]
"""Query id to passage id to grade; a grade of 1 or more is relevant."""


class Record(NamedTuple):
    """A query or a passage as its file has it: its fields by their names.

    `raw` is the line that it stood in, with its line end, and empty where that says nothing
    by itself. `path` and `number` are where: the file, and the line or row from 1.
    """

    values: Mapping[str, Any]
    path: Path
    number: int
    raw: bytes = b""

    @property
    def place(self) -> str:
        """Where it stands, as messages say it."""
        return f"{str(self.path)!r}, {'line' if self.raw else 'row'} {self.number}"


@dataclass(frozen=True, slots=True, kw_only=True)
class TextForm:
    """How the queries, or the passages, of a user's files are to be read.

    `format` is a name of the table of formats, `package.module:Name`, or `auto`, which goes by
    the file. `columns` names the fields of TSV. `template` says how fields become one text,
    with `<column>` where one goes, or is the name of a preset; None joins title and text by a
    space, as BEIR does.
    """

    is_query: bool = False
    format: str = "auto"
    columns: tuple[str, ...] = ()
    template: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Text:
    """A query or a passage; `text` is a string, or token ids without special tokens."""

    id: str
    text: str | tuple[int, ...]
    title: str = ""

    @property
    def content(self) -> str | tuple[int, ...]:
        """What is encoded: title and text joined by one space, as BEIR joins them."""
        if isinstance(self.text, str) and self.title:
            return f"{self.title} {self.text}".strip()
        return self.text


@dataclass(frozen=True, slots=True, kw_only=True)
class EncoderOptions:
    """What a user says of the encoder; None: what the checkpoint says, or the default.

    `layout` is a layout's name, or `auto`; `base_model` is the folder of the model that an
    adapter changes. The maximum lengths are in tokens, special tokens included. The templates are
    those that the texts are made by.
    """

    layout: str = "auto"
    base_model: str | None = None
    pooling: Pooling | None = None
    normalize: bool | None = None
    similarity: Similarity | None = None
    query_prefix: str | None = None
    passage_prefix: str | None = None
    q_max_len: int | None = None
    p_max_len: int | None = None
    append_eos: bool | None = None
    query_template: str | None = None
    doc_template: str | None = None
    tokenizer: str | None = None
    trust_remote_code: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """How a tower wants its texts to become tokens.

    `tokenizer_folder` has the tokenizer, None where the checkpoint carries none.
    `max_length` is the largest number of tokens that the model can take, `trained_length` the one
    that it was trained with, None where the checkpoint does not say. `trained_template` made the
    texts of its training, None where none did.
    """

    tokenizer_folder: Path | None
    max_length: int | None = None
    trained_length: int | None = None
    trained_template: str | None = None
    prefix: str = ""
    lower_case: bool = False
    special_tokens: bool = True
    """Whether the tokenizer adds its special tokens."""
    append_eos: bool = False
    """Whether the end-of-text token follows whatever the tokenizer gives."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedCheckpoint:
    """An encoder, and how it wants queries and passages to be read.

    `assumed` is what neither the checkpoint nor a flag said: one sentence each.
    """

    encoder: "Encoder"
    queries: Reading
    passages: Reading
    assumed: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class QuerySet:
    """Queries of one file, in its order, and the judgements for them.

    `corpus` is the name of the corpus that they are asked of, empty where there is only one.
    `digest` is that of the queries.
    """

    name: str
    path: Path
    qrels_path: Path
    queries: tuple[Text, ...]
    judgements: Judgements
    corpus: str = ""
    digest: str = ""

    @property
    def judged(self) -> tuple[str, ...]:
        """The ids of the queries that the mean goes over: in the file, and judged."""
        return tuple(query.id for query in self.queries if query.id in self.judgements)


@dataclass(frozen=True, slots=True, kw_only=True)
class Retrieved:
    """One line of a run file.

    `rank` counts from 1. Exactly one of `rank` and `score` may be missing (None).
    """

    query_id: str
    passage_id: str
    rank: int | None
    score: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """A folder that a trainer finished writing.

    `fingerprint` is a digest of the content of its model files: two checkpoints with the
    same fingerprint are the same model. `step` is None where nothing tells it. `pin` is the
    folder that keeps its files readable, None where only `path` has them.
    """

    path: Path
    step: int | None
    layout: str
    fingerprint: str = ""
    pin: Path | None = None

    @property
    def name(self) -> str:
        """The folder's own name."""
        return self.path.name

    @property
    def location(self) -> Path:
        """Where its files are to be read."""
        return self.pin or self.path


class State(StrEnum):
    """Where a validation stands."""

    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"  # the evaluation could not be done
    LOST = "lost"  # it was deleted before it could be kept
    BROKEN = "broken"  # it was never whole, and nobody writes it any more
    BLOCKED = "blocked"  # its files may not be read
    SKIPPED = "skipped"  # given up to stay within a limit
    SUPERSEDED = "superseded"  # the folder has other content now


NOT_VALIDATED = (State.FAILED, State.LOST, State.BROKEN, State.BLOCKED, State.SKIPPED)
"""The states in which a checkpoint stays without a result; each has its reason."""


MAIN = "main"
ANCHOR = "anchor"


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One checkpoint that waits for its validation under one plan."""

    id: int
    checkpoint: Checkpoint
    attempts: int = 0
    shrink: int = 0
    """How often the batch size was divided because memory ran out."""
    lane: str = MAIN
    """Whose queue it comes from."""
    dimension: int | None = None
    """The dimension of the vectors of the checkpoints before, None where there were none."""
    pin_state: str = ""
    """The state of its files when they were kept."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What the validation of one checkpoint gave.

    `metrics` maps a measure (`RR@10`), or `<query set>/<measure>` where there are several
    query sets, to its mean. `seconds` is by phase, `total` included. `speed` has
    `tokens_per_second` of encoding, `padding`, by which share padding made the tokens more, and
    `of_floor`, the share of the machine's best rate. `dimension` is that of the vectors.
    """

    metrics: Mapping[str, float]
    dimension: int = 0
    seconds: Mapping[str, float] = field(default_factory=dict)
    speed: Mapping[str, float] = field(default_factory=dict)
    num_texts: int = 0
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Validation:
    """A row of the ledger: a checkpoint, the state of its validation, and what came of it.

    Times are seconds since the epoch. `queue_length` and `lag_steps` are how many
    checkpoints waited, and how far the newest one was ahead, when the result was recorded.
    """

    id: int
    checkpoint: Checkpoint
    state: State
    reason: str = ""
    attempts: int = 0
    found_at: float = 0.0
    finished_at: float | None = None
    result: Result | None = None
    queue_length: int = 0
    lag_steps: int = 0
    sighting: int = 0
    """Highest for the content that stood in its folder last, where there were several."""
    derived: Mapping[str, float] = field(default_factory=dict)
    """What follows from this and other results, by the name that reporters show it under."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far a running validation is; `total` is 0 where it is not known."""

    phase: str
    done: int = 0
    total: int = 0
