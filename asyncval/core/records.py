"""A validation as the commands and `results.jsonl` print it, and which rows are current. Pure."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from math import inf
from typing import Any

from asyncval.core.types import State, Validation

NEVER_WHOLE = (State.SUPERSEDED, State.LOST, State.BROKEN, State.BLOCKED)


def as_record(validation: Validation) -> dict[str, Any]:
    """Return a row as plain values.

    `seconds` is what the validation took, None where there was none; `metrics` is empty
    where nothing was measured.
    """
    result = validation.result
    return {
        "step": validation.checkpoint.step,
        "checkpoint": validation.checkpoint.name,
        "status": str(validation.state),
        "metrics": dict(result.metrics) if result else {},
        "seconds": round(result.seconds["total"], 3) if result else None,
        "reason": validation.reason,
        "warnings": list(result.warnings) if result else [],
        "path": str(validation.checkpoint.path),
        "fingerprint": validation.checkpoint.fingerprint,
        "finished_at": validation.finished_at,
        "phases": {name: round(each, 3) for name, each in result.seconds.items()} if result else {},
        "speed": {name: round(each, 4) for name, each in result.speed.items()} if result else {},
    }


def current(validations: Iterable[Validation]) -> list[Validation]:
    """Return the newest row of every checkpoint folder, ascending by step.

    A folder that was written again has a row for each content. What never was a whole
    checkpoint, as the rest of one that is being deleted, does not hide one that was.
    """
    newest: dict[str, Validation] = {}
    for each in sorted(validations, key=lambda v: (v.state not in NEVER_WHOLE, v.sighting, v.id)):
        newest[str(each.checkpoint.path)] = each
    return sorted(
        newest.values(),
        key=lambda v: (v.checkpoint.step is None, v.checkpoint.step or 0, v.id),
    )


def with_result(validations: Iterable[Validation]) -> list[Validation]:
    """Return those that are done, newest row of each folder, ascending by step."""
    done = [each for each in validations if each.state is State.DONE]
    return current(done)


def first_open_step(validations: Iterable[Validation]) -> float:
    """Return the lowest step that waits or runs, infinite where none does."""
    still_open = (v for v in validations if v.state in (State.QUEUED, State.RUNNING))
    return min((v.checkpoint.step or 0 for v in still_open), default=inf)


def first_measure(validations: Iterable[Validation]) -> str:
    """Return the measure that decides which is best: the first; empty without a result."""
    done = with_result(validations)
    return next(iter(done[-1].result.metrics), "") if done and done[-1].result else ""


def best_first(validations: Iterable[Validation], measure: str) -> list[Validation]:
    """Return those with a value of a measure, the highest first, the earliest step among equals."""
    values = [(v, v.result.metrics.get(measure)) for v in with_result(validations) if v.result]
    known = [(v, value) for v, value in values if value is not None]
    return [v for v, _ in sorted(known, key=lambda pair: -pair[1])]


def best_of(validations: Iterable[Validation], measure: str) -> Validation | None:
    """Return the first of `best_first`, None where there is none."""
    return next(iter(best_first(validations, measure)), None)


def plan_digest(description: Mapping[str, Any]) -> str:
    """Return a digest of everything that a result depends on besides the checkpoint."""
    text = json.dumps(description, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:32]
