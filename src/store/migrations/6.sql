-- Schema version 6: calls of language models.

-- How an account stands with a model, as JSON, by the name of both.
CREATE TABLE gauge (
    name  TEXT PRIMARY KEY,
    state TEXT NOT NULL
) STRICT, WITHOUT ROWID;

-- What each call may cost, and what it did. Money is in millionths. A row
-- outlives its task, because limits of a day and a month go by it. What is
-- relayed is made by the daemon for an attempt, which may want many; other
-- calls are an attempt's own, one for each.
CREATE TABLE call (
    id         INTEGER PRIMARY KEY,
    task       INTEGER NOT NULL,
    number     INTEGER NOT NULL,
    relayed    INTEGER NOT NULL,
    owner      INTEGER NOT NULL,
    model      TEXT    NOT NULL,
    gauge      TEXT    NOT NULL,
    at         INTEGER NOT NULL,
    input_max  INTEGER NOT NULL,
    output_max INTEGER NOT NULL,
    cost_max   INTEGER,
    ended      INTEGER,
    how        TEXT,
    input      INTEGER,
    output     INTEGER,
    cost       INTEGER
) STRICT;

CREATE INDEX call_attempt ON call (task, number);

CREATE INDEX call_open ON call (gauge) WHERE ended IS NULL;
CREATE INDEX call_at ON call (at);
