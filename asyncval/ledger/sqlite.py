"""The ledger: what was found, what is queued, what came of it. The only truth.

SQLite in WAL mode with `synchronous=FULL`, or, where memory cannot be shared with the disk, with
a rollback journal and `synchronous=EXTRA`: what was recorded survives a crash and a power loss.
One process writes, which holds the output folder's lock; others may read.
"""

import json
import shutil
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from asyncval.core.errors import OutputUnavailable
from asyncval.core.ports import Clock
from asyncval.core.types import MAIN, Checkpoint, Job, Result, State, Validation
from asyncval.ledger.schema import migrate, require_newest

FILE_NAME = "ledger.sqlite"
SELECT = """
    SELECT v.id, v.path, v.step, v.layout, v.fingerprint, v.state, v.reason, v.attempts,
           v.found_at, v.finished_at, r.metrics, r.seconds, r.num_texts, r.warnings,
           r.queue_length, r.lag_steps, v.pin, r.dimension, v.sighting, r.speed
    FROM validations v LEFT JOIN results r ON r.validation = v.id
"""
SUPERSEDE = """
    UPDATE validations
    SET state = 'superseded', reason = 'The checkpoint was written again.', finished_at = :now
    WHERE plan = :plan AND path = :path AND fingerprint != :fingerprint
    AND (state IN ('failed', 'lost', 'broken', 'blocked', 'skipped')
         OR state = 'queued' AND :state = 'queued')
"""
KEEP_NEWER = """
    UPDATE validations SET pin = :pin, pin_state = :pin_state,
        reason = CASE WHEN :reason = '' THEN '' ELSE reason END
    WHERE plan = :plan AND path = :path AND fingerprint = :fingerprint
    AND state IN ('queued', 'running', 'done') AND :state = 'queued'
"""
REVIVE = """
    UPDATE validations SET state = :state, reason = :reason, attempts = 0, shrink = 0,
        not_before = 0, finished_at = NULL, layout = :layout, pin = :pin, pin_state = :pin_state,
        folder_state = :folder_state
    WHERE plan = :plan AND path = :path AND fingerprint = :fingerprint
    AND state IN ('lost', 'broken', 'blocked', 'superseded')
"""
CORRECT = """
    UPDATE validations SET state = :state, reason = :reason, finished_at = :now
    WHERE plan = :plan AND path = :path AND fingerprint = :fingerprint AND :state != 'queued'
    AND state NOT IN ('queued', 'running', 'done') AND (state, reason) != (:state, :reason)
"""
SEE_AGAIN = """
    UPDATE validations SET sighting = 1 + (
        SELECT MAX(sighting) FROM validations WHERE plan = :plan AND path = :path
    ) WHERE plan = :plan AND path = :path AND fingerprint = :fingerprint
"""
BY_STEP = " ORDER BY v.step IS NULL, v.step, v.id"
LEAST_BYTES = 1 << 20
"""With less space than this, an error of the ledger is for want of space."""
MOST_DELAY = 60.0
"""The most seconds that a job waits; one that would wait longer is of a clock that was set back."""


class Ledger:
    """The record of one output folder.

    Args:
        folder: Where `ledger.sqlite` is, or will be.
        clock: Gives the times that are recorded.
        lane: The lane that its jobs belong to.
        is_remote: Whether the folder is on a network file system, where WAL does not work
            (https://www.sqlite.org/wal.html).
        must_exist: Refuse to make a new one.

    Raises:
        OutputUnavailable: It cannot be opened, or is not there and must not be made.
    """

    def __init__(
        self,
        folder: Path,
        *,
        clock: Clock,
        lane: str = MAIN,
        is_remote: bool = False,
        must_exist: bool = False,
    ) -> None:
        self._clock = clock
        self._lane = lane
        self._read: tuple[tuple[str, int, int], list[Validation]] | None = None
        path = folder / FILE_NAME
        if must_exist and not path.is_file():
            raise OutputUnavailable(
                f"There is no ledger in {str(folder)!r}: give the --output_dir of an "
                "`asyncval watch`."
            )
        try:
            self._db = sqlite3.connect(path, isolation_level=None)
            self._db.execute("PRAGMA busy_timeout = 10000")
            self._db.execute(f"PRAGMA synchronous = {'EXTRA' if is_remote else 'FULL'}")
            if not must_exist:
                self._db.execute(f"PRAGMA journal_mode = {'DELETE' if is_remote else 'WAL'}")
                migrate(self._db)
            require_newest(self._db)
        except (sqlite3.Error, ValueError) as error:
            full = (
                " (no space is left there)" if shutil.disk_usage(folder).free < LEAST_BYTES else ""
            )
            raise OutputUnavailable(
                f"The ledger {str(path)!r} cannot be used: {error}{full}."
            ) from error

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield self._db
            self._db.execute("COMMIT")
        except BaseException:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise

    # Plans

    def use_plan(self, digest: str, description: Mapping[str, Any]) -> None:
        """Note that this plan is the one that validations run under from now on.

        Raises:
            OutputUnavailable: It cannot be written.
        """
        try:
            with self._transaction() as db:
                db.execute(
                    "INSERT INTO plans VALUES "
                    "(?, ?, max(?, (SELECT coalesce(max(used_at), 0) + 1e-3 FROM plans))) "
                    "ON CONFLICT (digest) DO UPDATE SET used_at = excluded.used_at",
                    (digest, json.dumps(description), self._clock.now()),
                )
        except sqlite3.OperationalError as error:
            raise OutputUnavailable(f"The ledger cannot be written: {error}.") from error

    def newest_plan(self) -> str | None:
        """Return the digest of the plan that was used last, None if there was none."""
        row = self._db.execute("SELECT digest FROM plans ORDER BY used_at DESC LIMIT 1").fetchone()
        return row[0] if row else None

    def plan_description(self, digest: str) -> dict[str, Any]:
        """Return what `use_plan` noted of a plan, empty where it is not known."""
        row = self._db.execute("SELECT description FROM plans WHERE digest = ?", (digest,))
        found = row.fetchone()
        return json.loads(found[0]) if found else {}

    def count_of_others(self, plan: str) -> int:
        """Return how many checkpoints have a result under other plans."""
        row = self._db.execute(
            "SELECT count(*) FROM validations WHERE plan != ? AND state = ?", (plan, State.DONE)
        )
        return int(row.fetchone()[0])

    def retire_other_plans(self, plan: str) -> None:
        """Take what is open under other plans off the queue: nobody works on it any more."""
        with self._transaction() as db:
            db.execute(
                "UPDATE validations SET state = ?, reason = 'Another plan is in force.', "
                "finished_at = ? WHERE plan != ? AND state IN (?, ?)",
                (State.SUPERSEDED, self._clock.now(), plan, State.QUEUED, State.RUNNING),
            )

    # Queue

    def enqueue(
        self,
        checkpoint: Checkpoint,
        *,
        plan: str,
        folder_state: str,
        pin_state: str = "",
        fate: State = State.QUEUED,
        reason: str = "",
    ) -> bool:
        """Queue a checkpoint unless the same content is known; say whether it was new.

        What stayed without a result under the same path with other content is superseded, and
        what waits is, by content that is whole: what was kept of it is not lost with its folder.
        What was lost, broken, blocked or superseded before is queued again, and what is found
        again without being whole has the state and the reason that it has now. Content that is
        saved again while it is open is evaluated from what was kept of it last. A result of
        content that stood there before and came back is the folder's result again, and shown anew.

        Args:
            checkpoint: What was found.
            plan: The plan's digest.
            folder_state: The state of its folder, to know it again without reading it.
            pin_state: The state of the files that are to be evaluated.
            fate: The state to record: queued, or why it cannot be evaluated.
            reason: What the state does not say; of what is queued, what speaks against it.
        """
        values = {
            "plan": plan,
            "path": str(checkpoint.path),
            "step": checkpoint.step,
            "layout": checkpoint.layout,
            "fingerprint": checkpoint.fingerprint,
            "folder_state": folder_state,
            "pin": str(checkpoint.pin) if checkpoint.pin else None,
            "pin_state": pin_state,
            "state": fate,
            "reason": _plain(reason),
            "now": self._clock.now(),
            "finished_at": None if fate is State.QUEUED else self._clock.now(),
        }
        with self._transaction() as db:
            is_new = self._insert(db, values) or self._revive(db, values)
            db.execute(SUPERSEDE, values)
            if not is_new:
                db.execute(
                    "UPDATE validations SET folder_state = :folder_state WHERE plan = :plan "
                    "AND path = :path AND fingerprint = :fingerprint",
                    values,
                )
                db.execute(KEEP_NEWER, values)
            self._see(db, values)
        return is_new

    def _see(self, db: sqlite3.Connection, values: Mapping[str, Any]) -> None:
        """Note that this content is the one that stands in its folder now."""
        newest = db.execute(
            "SELECT fingerprint FROM validations WHERE plan = :plan AND path = :path "
            "ORDER BY sighting DESC, id DESC LIMIT 1",
            values,
        ).fetchone()
        if newest[0] != values["fingerprint"]:
            db.execute(SEE_AGAIN, values)
            db.execute(
                "DELETE FROM deliveries WHERE validation IN (SELECT id FROM validations "
                "WHERE plan = :plan AND path = :path AND fingerprint = :fingerprint)",
                values,
            )

    def _insert(self, db: sqlite3.Connection, values: Mapping[str, Any]) -> bool:
        return bool(
            db.execute(
                "INSERT INTO validations (plan, path, step, layout, fingerprint, folder_state, "
                "pin, pin_state, state, reason, found_at, finished_at) VALUES (:plan, :path, "
                ":step, :layout, :fingerprint, :folder_state, :pin, :pin_state, :state, :reason, "
                ":now, :finished_at) ON CONFLICT DO NOTHING",
                values,
            ).rowcount
        )

    def _revive(self, db: sqlite3.Connection, values: Mapping[str, Any]) -> bool:
        """Bring a row that has no result, and waits for none, to what was found now."""
        statement = REVIVE if values["state"] is State.QUEUED else CORRECT
        return bool(db.execute(statement, values).rowcount)

    def folder_states(self, *, plan: str) -> dict[str, str]:
        """Return the state of every checkpoint folder when it was taken last, by its path."""
        rows = self._db.execute(
            "SELECT path, folder_state FROM validations WHERE plan = ? AND pin_state != '' "
            "AND state NOT IN (?, ?) ORDER BY id",
            (plan, State.SUPERSEDED, State.LOST),
        )
        return dict(rows.fetchall())

    def claim(self, *, plan: str, last_step: float = float("inf")) -> Job | None:
        """Take the queued checkpoint with the lowest step whose time has come, or None.

        Two contents of one folder are never evaluated at a time: their files have one name.

        Args:
            plan: The plan's digest.
            last_step: The highest step that may be taken.
        """
        now = self._clock.now()
        with self._transaction() as db:
            row = db.execute(
                f"{SELECT} WHERE v.plan = ? AND v.state = ? AND coalesce(v.step, 0) <= ? "
                "AND NOT (v.not_before > ? AND v.not_before <= ?) AND v.path NOT IN "
                f"(SELECT path FROM validations WHERE plan = ? AND state = ?) {BY_STEP} LIMIT 1",
                (plan, State.QUEUED, last_step, now, now + MOST_DELAY, plan, State.RUNNING),
            ).fetchone()
            if row is None:
                return None
            found = _to_validation(row)
            shrink, pin_state = db.execute(
                "UPDATE validations SET state = ?, attempts = attempts + 1 WHERE id = ? "
                "RETURNING shrink, pin_state",
                (State.RUNNING, found.id),
            ).fetchone()
            before = db.execute(
                "SELECT r.dimension FROM results r JOIN validations v ON v.id = r.validation "
                "WHERE v.plan = ? LIMIT 1",
                (plan,),
            ).fetchone()
        return Job(
            id=found.id,
            checkpoint=found.checkpoint,
            attempts=found.attempts + 1,
            shrink=shrink,
            lane=self._lane,
            dimension=before[0] if before else None,
            pin_state=pin_state,
        )

    def requeue(self, job_id: int, *, delay_seconds: float = 0.0) -> None:
        """Put a job back that was not finished through no fault of its own."""
        with self._transaction() as db:
            db.execute(
                "UPDATE validations SET state = ?, attempts = attempts - 1, not_before = ? "
                "WHERE id = ? AND state = ?",
                (State.QUEUED, self._clock.now() + delay_seconds, job_id, State.RUNNING),
            )

    def retry(self, job_id: int, *, delay_seconds: float = 0.0, shrink: bool = False) -> None:
        """Put a job back whose attempt failed; the attempt counts, but for smaller batches.

        Args:
            job_id: The job.
            delay_seconds: How long it must wait.
            shrink: Whether the next attempt is to use smaller batches.
        """
        with self._transaction() as db:
            db.execute(
                "UPDATE validations SET state = ?, not_before = ?, shrink = shrink + ?, "
                "attempts = attempts - ? WHERE id = ? AND state = ?",
                (
                    State.QUEUED,
                    self._clock.now() + delay_seconds,
                    int(shrink),
                    int(shrink),
                    job_id,
                    State.RUNNING,
                ),
            )

    def retry_failed(self, *, plan: str) -> int:
        """Queue everything anew that failed or was skipped; return how many."""
        with self._transaction() as db:
            return db.execute(
                "UPDATE validations SET state = ?, reason = '', attempts = 0, shrink = 0, "
                "not_before = 0, finished_at = NULL WHERE plan = ? AND state IN (?, ?)",
                (State.QUEUED, plan, State.FAILED, State.SKIPPED),
            ).rowcount

    def requeue_running(self, *, plan: str) -> int:
        """Put all back that an earlier process left running; return how many."""
        with self._transaction() as db:
            return db.execute(
                "UPDATE validations SET state = ?, attempts = max(attempts - 1, 0) "
                "WHERE plan = ? AND state = ?",
                (State.QUEUED, plan, State.RUNNING),
            ).rowcount

    def finish(self, job_id: int, result: Result) -> None:
        """Record a result and that its job is done, in one transaction; a second time nothing."""
        with self._transaction() as db:
            finished = db.execute(
                "UPDATE validations SET state = ?, finished_at = ? WHERE id = ? AND state = ?",
                (State.DONE, self._clock.now(), job_id, State.RUNNING),
            )
            if not finished.rowcount:
                return
            waiting, newest = db.execute(
                "SELECT COUNT(CASE WHEN o.state IN (?, ?) THEN 1 END), MAX(o.step) "
                "FROM validations v JOIN validations o ON o.plan = v.plan WHERE v.id = ?",
                (State.QUEUED, State.RUNNING, job_id),
            ).fetchone()
            (step,) = db.execute("SELECT step FROM validations WHERE id = ?", (job_id,)).fetchone()
            db.execute(
                "INSERT INTO results VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    job_id,
                    json.dumps(dict(result.metrics)),
                    json.dumps(dict(result.seconds)),
                    result.num_texts,
                    result.dimension,
                    json.dumps(result.warnings),
                    waiting,
                    (newest or 0) - (step or 0),
                    json.dumps(dict(result.speed)),
                ),
            )

    def close_without_result(self, job_id: int, state: State, reason: str) -> None:
        """Record that a job that is queued or running will have no result, and why."""
        with self._transaction() as db:
            db.execute(
                "UPDATE validations SET state = ?, reason = ?, finished_at = ? "
                "WHERE id = ? AND state IN (?, ?)",
                (state, _plain(reason), self._clock.now(), job_id, State.QUEUED, State.RUNNING),
            )

    # Reading

    def validations(self, *, plan: str) -> list[Validation]:
        """Return all rows of a plan, ascending by step; read anew only after a change."""
        (others,) = self._db.execute("PRAGMA data_version").fetchone()
        state = (plan, others, self._db.total_changes)
        if self._read is None or self._read[0] != state:
            rows = self._db.execute(f"{SELECT} WHERE v.plan = ? {BY_STEP}", (plan,)).fetchall()
            self._read = state, [_to_validation(row) for row in rows]
        return list(self._read[1])

    def pins(self) -> dict[int, Path]:
        """Return the pin of every open job, of all plans, by its id, the lowest step first."""
        rows = self._db.execute(
            "SELECT id, pin FROM validations WHERE pin IS NOT NULL "
            "AND state IN (?, ?) ORDER BY step IS NULL, step, id",
            (State.QUEUED, State.RUNNING),
        )
        return {number: Path(pin) for number, pin in rows}

    def recorded_pins(self) -> set[Path]:
        """Return the pin of every job, also of those that ended, of all plans."""
        rows = self._db.execute("SELECT DISTINCT pin FROM validations WHERE pin IS NOT NULL")
        return {Path(pin) for (pin,) in rows}

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


def _plain(reason: str) -> str:
    """Return a reason as a database can hold it: file names may be no UTF-8."""
    return reason.encode("utf-8", "backslashreplace").decode()


def _to_validation(row: Sequence[Any]) -> Validation:
    metrics, seconds, num_texts, warnings, queue_length, lag_steps, *rest = row[10:]
    pin, dimension, sighting, speed = rest
    result = None
    if metrics is not None:
        result = Result(
            metrics=json.loads(metrics),
            seconds=json.loads(seconds),
            speed=json.loads(speed),
            num_texts=num_texts,
            dimension=dimension,
            warnings=tuple(json.loads(warnings)),
        )
    return Validation(
        id=row[0],
        checkpoint=Checkpoint(
            path=Path(row[1]),
            step=row[2],
            layout=row[3],
            fingerprint=row[4],
            pin=Path(pin) if pin else None,
        ),
        state=State(row[5]),
        reason=row[6],
        attempts=row[7],
        found_at=row[8],
        finished_at=row[9],
        result=result,
        queue_length=queue_length or 0,
        lag_steps=lag_steps or 0,
        sighting=sighting,
    )
