"""The ledger's tables: numbered steps, each in one transaction with the note that it ran."""

import sqlite3

STEPS = (
    """
    CREATE TABLE validations (
        id INTEGER PRIMARY KEY,
        plan TEXT NOT NULL,
        path TEXT NOT NULL,
        step INTEGER,
        layout TEXT NOT NULL,
        fingerprint TEXT NOT NULL,
        folder_state TEXT NOT NULL,
        pin TEXT,
        pin_state TEXT NOT NULL DEFAULT '',
        state TEXT NOT NULL,
        reason TEXT NOT NULL DEFAULT '',
        attempts INTEGER NOT NULL DEFAULT 0,
        shrink INTEGER NOT NULL DEFAULT 0,
        not_before REAL NOT NULL DEFAULT 0,
        found_at REAL NOT NULL,
        finished_at REAL,
        UNIQUE (plan, path, fingerprint)
    );
    CREATE INDEX validations_by_state ON validations (plan, state, step);
    CREATE TABLE results (
        validation INTEGER PRIMARY KEY REFERENCES validations (id),
        metrics TEXT NOT NULL,
        seconds TEXT NOT NULL,
        num_texts INTEGER NOT NULL,
        dimension INTEGER NOT NULL,
        warnings TEXT NOT NULL,
        queue_length INTEGER NOT NULL,
        lag_steps INTEGER NOT NULL
    );
    CREATE TABLE deliveries (
        reporter TEXT NOT NULL,
        validation INTEGER NOT NULL REFERENCES results (validation),
        PRIMARY KEY (reporter, validation)
    );
    CREATE TABLE plans (
        digest TEXT PRIMARY KEY,
        description TEXT NOT NULL,
        used_at REAL NOT NULL
    );
    """,
    """
    ALTER TABLE validations ADD COLUMN sighting INTEGER NOT NULL DEFAULT 0;
    """,
    """
    ALTER TABLE results ADD COLUMN speed TEXT NOT NULL DEFAULT '{}';
    """,
)


def require_newest(connection: sqlite3.Connection) -> None:
    """See to it that a ledger can be read as it is.

    Raises:
        ValueError: Another version wrote it.
    """
    (done,) = connection.execute("PRAGMA user_version").fetchone()
    if done != len(STEPS):
        raise ValueError(
            f"it has the form {done}, and this version reads {len(STEPS)}, which a start of "
            "`asyncval watch` makes of an older one"
        )


def migrate(connection: sqlite3.Connection) -> None:
    """Bring a ledger to the newest form.

    Raises:
        ValueError: It was written by a newer version.
    """
    (done,) = connection.execute("PRAGMA user_version").fetchone()
    if done > len(STEPS):
        raise ValueError(f"it has the form {done}, and this version knows {len(STEPS)}")
    for number, step in enumerate(STEPS[done:], start=done + 1):
        connection.executescript(f"BEGIN; {step} PRAGMA user_version = {number}; COMMIT;")
