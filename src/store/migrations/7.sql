-- Schema version 7: budgets.

-- What has been spent of a budget and what is held for calls on their way, by
-- the name of both and, where it is of a day, of that. It is what the calls of
-- that time come to, kept beside them so that nobody has to add up. Days count
-- from the first call under this version on. A batch has its limits here: they
-- can be raised while it is at work.
CREATE TABLE purse (
    name        TEXT PRIMARY KEY,
    tokens      INTEGER NOT NULL DEFAULT 0,
    cost        INTEGER NOT NULL DEFAULT 0,
    tokens_held INTEGER NOT NULL DEFAULT 0,
    cost_held   INTEGER NOT NULL DEFAULT 0,
    tokens_cap  INTEGER,
    cost_cap    INTEGER,
    lasts       INTEGER NOT NULL,
    touched     INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE INDEX purse_touched ON purse (touched);

-- Tokens that are held for a call, beside `cost_max`, and the names of the
-- purses that they are held in, a line each. Calls of before hold nothing.
ALTER TABLE call ADD COLUMN held INTEGER NOT NULL DEFAULT 0;
ALTER TABLE call ADD COLUMN purses TEXT NOT NULL DEFAULT '';
