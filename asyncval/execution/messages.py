"""What a daemon and its evaluation process say to each other: one JSON object a line.

The daemon sends one `WorkerSetup`, then one job at a time. The process answers with
`ready` or `refused`, and for each job with `progress` and one of `done` and `failed`.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from asyncval.core.types import Checkpoint, EncoderOptions, Job, Result


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerSetup:
    """Everything that an evaluation process needs to know before its first job."""

    query_files: list[str]
    qrel_files: list[str]
    passage_files: list[str]
    query_digests: list[str]
    corpus_digest: str
    measures: list[str]
    depth: int
    options: EncoderOptions
    fp16: bool
    bf16: bool
    batch_size: int | None
    queries_at_once: int | None
    cache_dir: str
    output_dir: str | None
    write_run: str
    write_embeddings: bool

    def to_json(self) -> str:
        """Return the setup as one line."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, line: str) -> "WorkerSetup":
        """Read what `to_json` wrote."""
        values = json.loads(line)
        return cls(**{**values, "options": EncoderOptions(**values["options"])})


def job_to_json(job: Job) -> str:
    """Return a job as one line."""
    checkpoint = job.checkpoint
    return json.dumps(
        {
            "id": job.id,
            "attempts": job.attempts,
            "shrink": job.shrink,
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
    numbers = {name: values.pop(name) for name in ("id", "attempts", "shrink")}
    pin = Path(values["pin"]) if values["pin"] else None
    checkpoint = Checkpoint(**{**values, "path": Path(values["path"]), "pin": pin})
    return Job(checkpoint=checkpoint, **numbers)


def result_to_values(result: Result) -> dict[str, Any]:
    """Return a result as plain values."""
    return asdict(result)


def result_from_values(values: Mapping[str, Any]) -> Result:
    """Read what `result_to_values` wrote."""
    return Result(**{**values, "warnings": tuple(values["warnings"])})
