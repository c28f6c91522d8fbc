"""What must hold after a schedule, whatever happened in it."""

import json
import os
import re
import sqlite3
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import Any

import numpy as np

from asyncval.checkpoints.folder import fingerprint
from asyncval.checkpoints.pins import DIGITS, MARK
from asyncval.core.types import NOT_VALIDATED
from tests.chaos.runner import Generation, Outcome, workers_of
from tests.reliability.saving import order

WHOLE_SECONDS = 0.2
"""How long a checkpoint must be whole, while a daemon scans, to be promised a validation."""
ATTEMPTS = 3
ORPHAN_SECONDS = 3.0
Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What a schedule came to."""

    seed: int
    counts: Mapping[str, int]
    violations: tuple[str, ...]
    seconds: float = 0.0


def examine_outcome(outcome: Outcome) -> Report:
    """Check everything and count what there was."""
    rows = read_rows(outcome.output)
    promised = [each for each in outcome.generations if is_promised(each, outcome)]
    violations = [
        *_end(outcome, rows),
        *_once(outcome, rows),
        *_promises(outcome, promised, rows),
        *_numbers(outcome, rows),
        *_reasons(outcome, rows),
        *_exports(outcome, shown(rows)),
        *_best(outcome, rows),
        *_leftovers(outcome),
    ]
    states = Counter(str(row["state"]) for row in rows)
    counts = {
        f"with the {outcome.evaluator} evaluator": 1,
        f"of {outcome.schedule.kind}": 1,
        "checkpoints saved": sum(each.whole_at is not None for each in outcome.generations),
        "checkpoints left torn": sum(each.whole_at is None for each in outcome.generations),
        "whole for long enough": len(promised),
        **{f"rows {state}": number for state, number in sorted(states.items())},
        "kills of the daemon": len(outcome.lives) - 1,
        "kills of a worker": outcome.num_worker_kills,
        "torn exports": outcome.num_torn_exports,
        "recreated roots": outcome.schedule.count("recreate root"),
        "full disks": outcome.schedule.count("fill disk"),
    }
    return Report(seed=outcome.schedule.seed, counts=counts, violations=tuple(violations))


def read_rows(output: Path) -> list[Row]:
    """Return everything that the ledger has, in the order in which it was found."""
    database = sqlite3.connect(output / "ledger.sqlite")
    database.row_factory = sqlite3.Row
    try:
        rows = database.execute(
            "SELECT v.*, r.metrics FROM validations v "
            "LEFT JOIN results r ON r.validation = v.id ORDER BY v.id"
        ).fetchall()
    finally:
        database.close()
    return [dict(row) for row in rows]


def is_promised(generation: Generation, outcome: Outcome) -> bool:
    """Say whether a daemon scanned for long enough while a checkpoint was whole."""
    if generation.whole_at is None:
        return False
    for life in outcome.lives:
        if life.scans_from is None:
            continue
        end = min(life.until or inf, generation.ended_at or inf)
        if end - max(life.scans_from, generation.whole_at) >= WHOLE_SECONDS:
            return True
    return False


def shown(rows: list[Row]) -> list[Row]:
    """Return the newest result of each checkpoint, ascending by step."""
    newest = {row["path"]: row for row in rows if row["state"] == "done"}
    return sorted(newest.values(), key=lambda row: row["step"])


def _end(outcome: Outcome, rows: list[Row]) -> Iterator[str]:
    expected = 4 if any(row["state"] in NOT_VALIDATED for row in rows) else 0
    if outcome.exit_code != expected:
        yield f"the last daemon ended with {outcome.exit_code} instead of {expected}"
    for life in outcome.lives:
        if life.ended_with is not None:
            yield f"a daemon ended by itself with {life.ended_with}"
    if "Traceback" in outcome.log and not outcome.schedule.count("fill disk"):
        yield "there is a traceback in the log"


def _promises(outcome: Outcome, promised: list[Generation], rows: list[Row]) -> Iterator[str]:
    by_content = {(row["path"], row["fingerprint"]): row for row in rows}
    for each in promised:
        row = by_content.get((str(each.path), each.source.fingerprint))
        if row is None and _is_written_over(each, outcome) and _was_killed_on_a_full_disk(outcome):
            continue  # what was kept of it shared its files, and there was nowhere to say so
        if row is None:
            yield f"{each.path.name} was whole for long enough and has no row"
        elif row["state"] in ("queued", "running"):
            yield f"{each.path.name} is still {row['state']}"
        elif row["state"] != "done" and not _is_excused(each, row, outcome):
            yield f"{each.path.name} is {row['state']}: {row['reason']}"


def _is_excused(generation: Generation, row: Row, outcome: Outcome) -> bool:
    """Say whether a whole checkpoint has a true reason to be without a result."""
    if row["state"] == "superseded":
        return _is_written_over(generation, outcome)
    if row["state"] == "failed":
        return "signal 9" in row["reason"] and outcome.num_worker_kills >= ATTEMPTS
    return False


def _is_written_over(generation: Generation, outcome: Outcome) -> bool:
    place = outcome.generations.index(generation)
    return any(each.path == generation.path for each in outcome.generations[place + 1 :])


def _was_killed_on_a_full_disk(outcome: Outcome) -> bool:
    return outcome.schedule.count("fill disk") > 0 and len(outcome.lives) > 1


def _once(outcome: Outcome, rows: list[Row]) -> Iterator[str]:
    """Look for results that were measured and recorded twice."""
    done = Counter(Path(row["path"]).name for row in rows if row["state"] == "done")
    told = Counter(re.findall(r"(checkpoint-\d+): RR@10", outcome.log))
    for name, number in told.items():
        if number > done[name]:
            yield f"{name} was told {number} times, and has {done[name]} results"


def _numbers(outcome: Outcome, rows: list[Row]) -> Iterator[str]:
    saved = {(str(each.path), each.source.fingerprint): each for each in outcome.generations}
    for row in rows:
        name = Path(row["path"]).name
        if row["state"] != "done":
            if row["metrics"] is not None:
                yield f"{name} is {row['state']} and has numbers"
            continue
        generation = saved.get((row["path"], row["fingerprint"]))
        torn = any(str(e.path) == row["path"] and e.whole_at is None for e in outcome.generations)
        if generation is None and torn and row["reason"]:
            continue  # a trainer died in the middle of it, which nothing but that reason tells
        if generation is None:
            yield f"{name} was validated with content that nobody saved"
            continue
        source = generation.source
        expected = source.light if outcome.evaluator == "light" else source.real
        if json.loads(row["metrics"]) != expected:
            yield f"{name} has {row['metrics']}, undisturbed {dict(expected)}"


def _reasons(outcome: Outcome, rows: list[Row]) -> Iterator[str]:
    for row in rows:
        state, name = row["state"], Path(row["path"]).name
        if state == "done":
            continue
        of_path = [each for each in outcome.generations if str(each.path) == row["path"]]
        torn = any(each.whole_at is None for each in of_path)
        brief = any(not is_promised(each, outcome) and each.ended_at for each in of_path)
        is_true = {
            "lost": torn or brief,
            "broken": torn,
            "superseded": len(of_path) > 1,
            "failed": torn or any(_is_excused(each, row, outcome) for each in of_path),
        }
        if not is_true.get(state, False) or not row["reason"]:
            yield f"{name} is {state} without a true reason: {row['reason']}"


def _exports(outcome: Outcome, results: list[Row]) -> Iterator[str]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    lines = (outcome.output / "results.jsonl").read_text(encoding="utf-8").splitlines()
    exported = [json.loads(line) for line in lines]
    wanted = [(row["path"], row["fingerprint"], json.loads(row["metrics"])) for row in results]
    if [(each["path"], each["fingerprint"], each["metrics"]) for each in exported] != wanted:
        yield f"results.jsonl has the steps {[each['step'] for each in exported]}"
    values = [
        (metrics["RR@10"], -row["step"]) for row, (*_, metrics) in zip(results, wanted, strict=True)
    ]
    best = outcome.output / "best.json"
    named = json.loads(best.read_text(encoding="utf-8")) if best.exists() else None
    if (named and (named["value"], -named["step"])) != max(values, default=None):
        yield f"best.json names {named and named['step']}"
    events = EventAccumulator(str(outcome.output / "tensorboard" / "asyncval"))
    events.Reload()
    for measure in ("RR@10", "nDCG@10"):
        tag = f"eval/{measure}"
        points = events.Scalars(tag) if tag in events.Tags()["scalars"] else []
        expected = [
            (row["step"], np.float32(json.loads(row["metrics"])[measure])) for row in results
        ]
        if [(point.step, np.float32(point.value)) for point in points] != expected:
            yield f"TensorBoard has {tag} at {[point.step for point in points]}"


def _best(outcome: Outcome, rows: list[Row]) -> Iterator[str]:
    """See whether the best checkpoint is kept, and no other."""
    results = shown(rows)
    kept, link = outcome.output / "kept", outcome.output / "best"
    there = list(kept.glob("*"))
    if not results:
        if there or link.is_symlink():
            yield f"{there} is kept without a result"
        return
    best = max(results, key=lambda row: (json.loads(row["metrics"])["RR@10"], -row["step"]))
    path, value = Path(best["path"]), json.loads(best["metrics"])["RR@10"]
    saves = [each for each in outcome.generations if each.path == path]
    digests = [each.source.fingerprint for each in saves]
    was_rewritten = best["fingerprint"] not in digests[-1:] or len(saves) > 1
    better = [  # content that was overwritten since, and was better
        row["fingerprint"][:DIGITS]
        for row in rows
        if row["metrics"] and json.loads(row["metrics"])["RR@10"] > value
    ]
    if not link.is_dir():  # another one may be kept in its place
        if not was_rewritten and not better:  # under the names that were kept
            yield f"{path.name} is the best and is not kept"
        return
    names = [each.relative_to(link).as_posix() for each in link.rglob("*") if each.is_file()]
    others = [each for each in there if each != link.resolve()]
    is_right = all(each.name.split(MARK)[1] in better for each in others)
    if fingerprint(link, names) != best["fingerprint"] or not is_right:
        yield f"{path.name} is the best, and {there} is kept"


def _leftovers(outcome: Outcome) -> Iterator[str]:
    for path in (*outcome.output.rglob("*"), *outcome.folder.glob(".*")):
        is_pin = path.parent.name == "pins" or "pins" in path.name
        if "partial" in path.name or path.name.startswith(".tmp") or is_pin:
            yield f"{path.relative_to(outcome.folder)} was left behind"
    kind = outcome.schedule.kind
    ours = {*order(outcome.pool.sources[kind][0].path), ".tmpAbCdEf", "2_Dense/.tmpAbCdEf"}
    for path in outcome.root.rglob("*"):
        name = path.relative_to(outcome.root).as_posix().partition("/")[2]
        if path.is_file() and name not in ours:
            yield f"{path.relative_to(outcome.folder)} was put into the watched folder"
    deadline = time.monotonic() + ORPHAN_SECONDS
    pids = [life.pid for life in outcome.lives]
    while time.monotonic() < deadline and any(map(workers_of, pids)):
        time.sleep(0.05)
    for pid in pids:
        for worker in workers_of(pid):
            yield f"process {worker} of the daemon {pid} still runs"
            os.kill(worker, 9)
