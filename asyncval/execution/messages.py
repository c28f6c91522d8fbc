"""What a daemon and its evaluation process say to each other: one JSON object a line.

The daemon sends a `WorkerSetup` for each lane, in one line, and then one job at a time. The
process answers with `ready` or `refused`, and for each job with `progress` and one of `done` and
`failed`.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from asyncval.core.types import (
    Checkpoint,
    Dtype,
    EncoderOptions,
    Job,
    Result,
    SearchBackend,
    TextForm,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class CorpusSetup:
    """The files of a corpus, in reading order, and the digest of their content."""

    files: list[str]
    digest: str


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerSetup:
    """Everything that an evaluation process needs to know before its first job.

    `corpora` is by name; `query_corpora` names that of each query file.
    """

    query_names: list[str]
    query_files: list[str]
    qrel_files: list[str]
    qrel_digests: list[str]
    query_digests: list[str]
    query_corpora: list[str]
    corpora: dict[str, CorpusSetup]
    query_form: TextForm
    passage_form: TextForm
    measures: list[str]
    depth: int
    options: EncoderOptions
    dtype: Dtype
    batch_size: int | None
    queries_at_once: int | None
    search_backend: SearchBackend
    cache_dir: str
    cache_max_bytes: int | None
    output_dir: str | None
    write_run: str
    write_embeddings: bool


def setups_to_json(setups: Mapping[str, WorkerSetup]) -> str:
    """Return the setups of all lanes, by name, as one line."""
    return json.dumps({lane: asdict(setup) for lane, setup in setups.items()})


def setups_from_json(line: str) -> dict[str, WorkerSetup]:
    """Read what `setups_to_json` wrote."""
    return {lane: _setup(values) for lane, values in json.loads(line).items()}


def _setup(values: dict[str, Any]) -> WorkerSetup:
    corpora = {name: CorpusSetup(**each) for name, each in values["corpora"].items()}
    own = {
        "corpora": corpora,
        "options": EncoderOptions(**values["options"]),
        "query_form": _form(values["query_form"]),
        "passage_form": _form(values["passage_form"]),
    }
    return WorkerSetup(**{**values, **own})


def _form(values: dict[str, Any]) -> TextForm:
    return TextForm(**{**values, "columns": tuple(values["columns"])})


def job_to_json(job: Job) -> str:
    """Return a job as one line."""
    checkpoint = job.checkpoint
    return json.dumps(
        {
            "id": job.id,
            "lane": job.lane,
            "attempts": job.attempts,
            "shrink": job.shrink,
            "dimension": job.dimension,
            "path": str(checkpoint.path),
            "step": checkpoint.step,
            "layout": checkpoint.layout,
            "fingerprint": checkpoint.fingerprint,
            "pin": str(checkpoint.pin) if checkpoint.pin else None,
        }
    )


def job_from_json(line: str) -> Job:
    """Read what `job_to_json` wrote."""
    values = json.loads(line)
    own = {name: values.pop(name) for name in ("id", "lane", "attempts", "shrink", "dimension")}
    pin = Path(values["pin"]) if values["pin"] else None
    checkpoint = Checkpoint(**{**values, "path": Path(values["path"]), "pin": pin})
    return Job(checkpoint=checkpoint, **own)


def result_to_values(result: Result) -> dict[str, Any]:
    """Return a result as plain values."""
    return asdict(result)


def result_from_values(values: Mapping[str, Any]) -> Result:
    """Read what `result_to_values` wrote."""
    return Result(**{**values, "warnings": tuple(values["warnings"])})
