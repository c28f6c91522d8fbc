"""The ledger: what was found, what is queued, what came of it. The only truth.

SQLite in WAL mode with `synchronous=FULL`: what was recorded survives a crash and a power
loss. One process writes, which holds the output folder's lock; others may read.
"""

import json
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from asyncval.core.errors import OutputUnavailable
from asyncval.core.ports import Clock
from asyncval.core.types import Checkpoint, Job, Result, State, Validation
from asyncval.ledger.schema import migrate

FILE_NAME = "ledger.sqlite"
SELECT = """
    SELECT v.id, v.path, v.step, v.layout, v.fingerprint, v.state, v.reason, v.attempts,
           v.found_at, v.finished_at, r.metrics, r.seconds, r.num_texts, r.warnings,
           r.queue_length, r.lag_steps
    FROM validations v LEFT JOIN results r ON r.validation = v.id
"""
BY_STEP = " ORDER BY v.step IS NULL, v.step, v.id"


class Ledger:
    """The record of one output folder.

    Args:
        folder: Where `ledger.sqlite` is, or will be.
        clock: Gives the times that are recorded.
        read_only: Never write; the ledger must exist.

    Raises:
        OutputUnavailable: It cannot be opened, or is not there and must only be read.
    """

    def __init__(self, folder: Path, *, clock: Clock, read_only: bool = False) -> None:
        self._clock = clock
        path = folder / FILE_NAME
        if read_only and not path.is_file():
            raise OutputUnavailable(
                f"There is no ledger in {str(folder)!r}: give the --output_dir of an "
                "`asyncval watch`."
            )
        try:
            self._db = sqlite3.connect(path, isolation_level=None)
            self._db.execute("PRAGMA busy_timeout = 10000")
            if not read_only:
                self._db.execute("PRAGMA journal_mode = WAL")
                self._db.execute("PRAGMA synchronous = FULL")
                migrate(self._db)
        except (sqlite3.Error, ValueError) as error:
            raise OutputUnavailable(f"The ledger {str(path)!r} cannot be used: {error}.") from error

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield self._db
        except BaseException:
            self._db.execute("ROLLBACK")
            raise
        self._db.execute("COMMIT")

    # Plans

    def use_plan(self, digest: str, description: Mapping[str, Any]) -> None:
        """Note that this plan is the one that validations run under from now on."""
        with self._transaction() as db:
            db.execute(
                "INSERT INTO plans VALUES (?, ?, ?) "
                "ON CONFLICT (digest) DO UPDATE SET used_at = excluded.used_at",
                (digest, json.dumps(description), self._clock.now()),
            )

    def newest_plan(self) -> str | None:
        """Return the digest of the plan that was used last, None if there was none."""
        row = self._db.execute("SELECT digest FROM plans ORDER BY used_at DESC LIMIT 1").fetchone()
        return row[0] if row else None

    # Queue

    def enqueue(
        self, checkpoint: Checkpoint, *, plan: str, folder_state: str, problem: str = ""
    ) -> bool:
        """Queue a checkpoint unless the same content is known; say whether it was new.

        What was queued or failed under the same path with other content is superseded.

        Args:
            checkpoint: What was found.
            plan: The plan's digest.
            folder_state: The state of its folder, to know it again without reading it.
            problem: Why it cannot be evaluated: it is recorded as failed at once.
        """
        path, now = str(checkpoint.path), self._clock.now()
        with self._transaction() as db:
            new = db.execute(
                "INSERT INTO validations (plan, path, step, layout, fingerprint, folder_state, "
                "state, reason, found_at, finished_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?) "
                "ON CONFLICT DO NOTHING",
                (
                    plan,
                    path,
                    checkpoint.step,
                    checkpoint.layout,
                    checkpoint.fingerprint,
                    folder_state,
                    State.FAILED if problem else State.QUEUED,
                    problem,
                    now,
                    now if problem else None,
                ),
            ).rowcount
            if new:
                db.execute(
                    "UPDATE validations SET state = ?, finished_at = ?, "
                    "reason = 'The checkpoint was written again.' "
                    "WHERE plan = ? AND path = ? AND fingerprint != ? AND state IN (?, ?)",
                    (
                        State.SUPERSEDED,
                        now,
                        plan,
                        path,
                        checkpoint.fingerprint,
                        State.QUEUED,
                        State.FAILED,
                    ),
                )
            else:
                db.execute(
                    "UPDATE validations SET folder_state = ? "
                    "WHERE plan = ? AND path = ? AND fingerprint = ?",
                    (folder_state, plan, path, checkpoint.fingerprint),
                )
        return bool(new)

    def folder_states(self, *, plan: str) -> dict[str, str]:
        """Return the last known state of every checkpoint folder, by its path."""
        rows = self._db.execute(
            "SELECT path, folder_state FROM validations WHERE plan = ? ORDER BY id", (plan,)
        )
        return dict(rows.fetchall())

    def claim(self, *, plan: str) -> Job | None:
        """Take the queued checkpoint with the lowest step, or None if nothing waits."""
        with self._transaction() as db:
            row = db.execute(
                f"{SELECT} WHERE v.plan = ? AND v.state = ? {BY_STEP} LIMIT 1",
                (plan, State.QUEUED),
            ).fetchone()
            if row is None:
                return None
            found = _to_validation(row)
            db.execute(
                "UPDATE validations SET state = ?, attempts = attempts + 1 WHERE id = ?",
                (State.RUNNING, found.id),
            )
        return Job(id=found.id, checkpoint=found.checkpoint, attempts=found.attempts + 1)

    def requeue(self, job_id: int) -> None:
        """Put a job back that was not finished through no fault of its own."""
        with self._transaction() as db:
            db.execute(
                "UPDATE validations SET state = ?, attempts = attempts - 1 "
                "WHERE id = ? AND state = ?",
                (State.QUEUED, job_id, State.RUNNING),
            )

    def retry(self, job_id: int) -> None:
        """Put a job back whose attempt failed; the attempt counts."""
        with self._transaction() as db:
            db.execute(
                "UPDATE validations SET state = ? WHERE id = ? AND state = ?",
                (State.QUEUED, job_id, State.RUNNING),
            )

    def requeue_running(self, *, plan: str) -> int:
        """Put all back that an earlier process left running; return how many."""
        with self._transaction() as db:
            return db.execute(
                "UPDATE validations SET state = ? WHERE plan = ? AND state = ?",
                (State.QUEUED, plan, State.RUNNING),
            ).rowcount

    def finish(self, job_id: int, result: Result) -> None:
        """Record a result and that its job is done, in one transaction."""
        with self._transaction() as db:
            db.execute(
                "UPDATE validations SET state = ?, finished_at = ? WHERE id = ? AND state = ?",
                (State.DONE, self._clock.now(), job_id, State.RUNNING),
            )
            waiting, newest = db.execute(
                "SELECT COUNT(CASE WHEN o.state IN (?, ?) THEN 1 END), MAX(o.step) "
                "FROM validations v JOIN validations o ON o.plan = v.plan WHERE v.id = ?",
                (State.QUEUED, State.RUNNING, job_id),
            ).fetchone()
            (step,) = db.execute("SELECT step FROM validations WHERE id = ?", (job_id,)).fetchone()
            db.execute(
                "INSERT INTO results VALUES (?, ?, ?, ?, ?, ?, ?)",
                (
                    job_id,
                    json.dumps(dict(result.metrics)),
                    json.dumps(dict(result.seconds)),
                    result.num_texts,
                    json.dumps(result.warnings),
                    waiting,
                    (newest or 0) - (step or 0),
                ),
            )

    def fail(self, job_id: int, reason: str) -> None:
        """Record that a job cannot be done, and why."""
        with self._transaction() as db:
            db.execute(
                "UPDATE validations SET state = ?, reason = ?, finished_at = ? "
                "WHERE id = ? AND state = ?",
                (State.FAILED, reason, self._clock.now(), job_id, State.RUNNING),
            )

    # Reading

    def validations(self, *, plan: str) -> list[Validation]:
        """Return all rows of a plan, ascending by step."""
        rows = self._db.execute(f"{SELECT} WHERE v.plan = ? {BY_STEP}", (plan,)).fetchall()
        return [_to_validation(row) for row in rows]

    # Reporters

    def undelivered(self, reporter: str, *, plan: str) -> set[int]:
        """Return the ids of the results that a reporter has not shown yet."""
        rows = self._db.execute(
            "SELECT v.id FROM validations v JOIN results r ON r.validation = v.id "
            "WHERE v.plan = ? AND v.id NOT IN "
            "(SELECT validation FROM deliveries WHERE reporter = ?)",
            (plan, reporter),
        )
        return {row[0] for row in rows}

    def mark_delivered(self, reporter: str, ids: Sequence[int]) -> None:
        """Note that a reporter has shown these results."""
        with self._transaction() as db:
            db.executemany(
                "INSERT OR IGNORE INTO deliveries VALUES (?, ?)", [(reporter, each) for each in ids]
            )


def _to_validation(row: Sequence[Any]) -> Validation:
    metrics, seconds, num_texts, warnings, queue_length, lag_steps = row[10:]
    result = None
    if metrics is not None:
        result = Result(
            metrics=json.loads(metrics),
            seconds=json.loads(seconds),
            num_texts=num_texts,
            warnings=tuple(json.loads(warnings)),
        )
    return Validation(
        id=row[0],
        checkpoint=Checkpoint(path=Path(row[1]), step=row[2], layout=row[3], fingerprint=row[4]),
        state=State(row[5]),
        reason=row[6],
        attempts=row[7],
        found_at=row[8],
        finished_at=row[9],
        result=result,
        queue_length=queue_length or 0,
        lag_steps=lag_steps or 0,
    )
