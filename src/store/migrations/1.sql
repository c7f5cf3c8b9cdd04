-- Schema version 1. States and stop causes are stored as the numbers of
-- `rows.rs`, outcomes as JSON; times are microseconds since the epoch.

CREATE TABLE queue (
    id          INTEGER PRIMARY KEY,
    name        TEXT    NOT NULL UNIQUE,
    concurrency INTEGER,
    paused      INTEGER NOT NULL DEFAULT 0
) STRICT;

CREATE TABLE task (
    id            INTEGER PRIMARY KEY,
    state         INTEGER NOT NULL,
    queue         INTEGER NOT NULL REFERENCES queue (id),
    priority      INTEGER NOT NULL,
    owner         INTEGER NOT NULL,
    created       INTEGER NOT NULL,
    due           INTEGER NOT NULL,
    wake          INTEGER,
    left_us       INTEGER,
    attempt       INTEGER NOT NULL DEFAULT 0,
    tries         INTEGER NOT NULL DEFAULT 0,
    stop          INTEGER,
    ended         INTEGER,
    outcome       TEXT,
    interruptions TEXT,
    name          TEXT,
    labels        TEXT,
    key           TEXT,
    body_hash     BLOB,
    spec          TEXT    NOT NULL
) STRICT;

-- The claim: the best ready task of a queue is the first entry.
CREATE INDEX task_ready ON task (queue, priority DESC, due, id) WHERE state = 2;
-- Every timer there is; the next deadline is the first entry.
CREATE INDEX task_wake ON task (wake) WHERE wake IS NOT NULL;
-- Slots in use, counted and not kept.
CREATE INDEX task_live ON task (queue) WHERE state IN (3, 4, 5);
CREATE UNIQUE INDEX task_key ON task (owner, key) WHERE key IS NOT NULL;

-- Apart from the task, because only a launch reads it.
CREATE TABLE input (
    task INTEGER PRIMARY KEY REFERENCES task (id) ON DELETE CASCADE,
    data BLOB NOT NULL
) STRICT;

CREATE TABLE attempt (
    task           INTEGER NOT NULL REFERENCES task (id) ON DELETE CASCADE,
    number         INTEGER NOT NULL,
    runner         TEXT    NOT NULL,
    boot           TEXT    NOT NULL,
    claimed        INTEGER NOT NULL,
    started        INTEGER,
    pid            INTEGER,
    uid            INTEGER,
    user           TEXT,
    cgroup         TEXT,
    ended          INTEGER,
    outcome        TEXT,
    cpu_us         INTEGER,
    memory_peak    INTEGER,
    output_kept    INTEGER NOT NULL DEFAULT 0,
    output_dropped INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (task, number)
) STRICT, WITHOUT ROWID;

CREATE INDEX attempt_live ON attempt (task) WHERE outcome IS NULL;

CREATE TABLE event (
    seq     INTEGER PRIMARY KEY,
    at      INTEGER NOT NULL,
    task    INTEGER NOT NULL,
    attempt INTEGER NOT NULL,
    kind    TEXT    NOT NULL,
    actor   INTEGER
) STRICT;

-- Tasks in each state, changed in the transaction that changes the tasks, so
-- that start-up and status never have to count a million rows.
CREATE TABLE tally (
    state INTEGER PRIMARY KEY,
    tasks INTEGER NOT NULL
) STRICT;

-- Numbers given out so far, so that none is given twice, not even when the
-- rows that had the last ones are gone.
CREATE TABLE given (
    what   TEXT PRIMARY KEY,
    number INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

INSERT INTO given (what, number) VALUES ('task', 0), ('event', 0);
