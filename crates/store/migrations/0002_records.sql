-- The second form: a step that a task's attempt has done is a row of its own. What came of it stands
-- in the log, once; `position` is that event's. Rows of tasks that had records are folded anew.
CREATE TABLE records (
    task     BLOB NOT NULL,
    key      TEXT NOT NULL,
    version  INTEGER NOT NULL,
    position INTEGER,
    body     TEXT,
    PRIMARY KEY (task, key)
) STRICT, WITHOUT ROWID;
