-- The first form of the store. Rows are the fold of events; `events` is the truth.

-- One row per commit: the events of one transaction, one JSON document a line. Keyed by the position
-- of its first event, append-only. `hash` is the chain's value after its last event.
CREATE TABLE events (
    first INTEGER PRIMARY KEY,
    count INTEGER NOT NULL,
    hash  BLOB NOT NULL,
    body  BLOB NOT NULL
) STRICT;

-- `applied`: rows reflect at least the events up to this position; recovery folds the rest.
CREATE TABLE meta (
    key   TEXT PRIMARY KEY,
    value INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
INSERT INTO meta (key, value) VALUES ('applied', 0);

-- `version`: the row reflects the events up to this position. `hot`: what the ready queues and
-- timers keep in memory about a task that has not ended, so that opening reads an index and no
-- task. A body of NULL is a row that is gone (the version must outlive it until `applied` passes).
CREATE TABLE tasks (
    id      BLOB PRIMARY KEY,
    version INTEGER NOT NULL,
    status  TEXT,
    kind    TEXT,
    worker  TEXT,
    hot     BLOB,
    body    TEXT
) STRICT, WITHOUT ROWID;
CREATE INDEX tasks_hot ON tasks (id, hot) WHERE hot IS NOT NULL;
CREATE INDEX tasks_failed ON tasks (id) WHERE status = 'failed';

CREATE TABLE runs (
    id      BLOB PRIMARY KEY,
    version INTEGER NOT NULL,
    status  TEXT,
    due     INTEGER,
    body    TEXT
) STRICT, WITHOUT ROWID;

CREATE TABLE entries (
    id      BLOB PRIMARY KEY,
    version INTEGER NOT NULL,
    run     BLOB,
    due     INTEGER,
    body    TEXT
) STRICT, WITHOUT ROWID;
CREATE INDEX entries_run ON entries (run, id);

CREATE TABLE messages (
    id      BLOB PRIMARY KEY,
    version INTEGER NOT NULL,
    due     INTEGER,
    body    TEXT
) STRICT, WITHOUT ROWID;

-- Workers, queues, pools, concurrency keys, idempotency keys, board counts, statistics.
CREATE TABLE others (
    kind    TEXT NOT NULL,
    id      TEXT NOT NULL,
    version INTEGER NOT NULL,
    due     INTEGER,
    body    TEXT,
    PRIMARY KEY (kind, id)
) STRICT, WITHOUT ROWID;
