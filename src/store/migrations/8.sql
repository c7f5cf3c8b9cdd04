-- Schema version 8: agents.

-- What is asked of an agent, and where each of its instances stands, first to
-- last: both as JSON. Numbers are never given out again.
CREATE TABLE agent (
    id      INTEGER PRIMARY KEY AUTOINCREMENT,
    owner   INTEGER NOT NULL,
    name    TEXT    NOT NULL,
    created INTEGER NOT NULL,
    removed INTEGER NOT NULL DEFAULT 0,
    plan    TEXT    NOT NULL,
    UNIQUE (owner, name)
) STRICT;

CREATE TABLE life (
    agent    INTEGER NOT NULL REFERENCES agent (id) ON DELETE CASCADE,
    instance INTEGER NOT NULL,
    state    TEXT    NOT NULL,
    PRIMARY KEY (agent, instance)
) STRICT, WITHOUT ROWID;
