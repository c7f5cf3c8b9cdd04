-- Schema version 2: queues with limits, dependencies, uniqueness, schedules,
-- the clocks of a live attempt, and counts by queue and owner.

ALTER TABLE queue ADD COLUMN draining    INTEGER NOT NULL DEFAULT 0;
ALTER TABLE queue ADD COLUMN rate_count  INTEGER;
ALTER TABLE queue ADD COLUMN rate_us     INTEGER;
-- Until when the rate is used up: the token bucket's one number (`model/rate.rs`).
ALTER TABLE queue ADD COLUMN rate_until  INTEGER NOT NULL DEFAULT 0;
ALTER TABLE queue ADD COLUMN group_limit INTEGER;
-- After a change of the group limit: the last group key that obeys it already.
ALTER TABLE queue ADD COLUMN regroup     TEXT;
-- Removed, and kept for the tasks that are over; the next one brings it back.
ALTER TABLE queue ADD COLUMN gone        INTEGER NOT NULL DEFAULT 0;
ALTER TABLE queue ADD COLUMN hooks       TEXT;

-- The queue of hooks (`model/hook.rs`) has a limit from the start, so that
-- receivers that do not answer cannot take all slots.
INSERT INTO queue (name, concurrency) VALUES ('hooks', 4) ON CONFLICT (name) DO NOTHING;

-- `rank` is the start order with ageing in it (`Task::rank`), lowest first.
ALTER TABLE task ADD COLUMN rank      INTEGER NOT NULL DEFAULT 0;
ALTER TABLE task ADD COLUMN group_key TEXT;
-- 0 while others of its group key are in front of it (`sqlite/queues.rs`).
ALTER TABLE task ADD COLUMN open      INTEGER NOT NULL DEFAULT 1;
ALTER TABLE task ADD COLUMN unique_key TEXT;
ALTER TABLE task ADD COLUMN deadline  INTEGER;
-- The clocks of a live attempt: its time limit, its last sign of life.
ALTER TABLE task ADD COLUMN time_limit INTEGER;
ALTER TABLE task ADD COLUMN beat      INTEGER;
ALTER TABLE task ADD COLUMN paused    INTEGER;
-- Why a scheduled task is not ready, as the number of `rows.rs`.
ALTER TABLE task ADD COLUMN delay     INTEGER;
ALTER TABLE task ADD COLUMN schedule  INTEGER;
ALTER TABLE task ADD COLUMN nominal   INTEGER;
ALTER TABLE task DROP COLUMN left_us;

-- The factor is `AGEING` of `model/task.rs`, in microseconds.
UPDATE task SET rank = due - priority * 300000000;
UPDATE task SET delay = CASE WHEN tries > 0 THEN 1 ELSE 0 END WHERE state = 1;
UPDATE task SET time_limit = wake WHERE state = 3;

DROP INDEX task_ready;
-- The claim: the first entry of a queue and owner is the next of theirs.
CREATE INDEX task_ready ON task (queue, owner, rank, id) WHERE state = 2 AND open = 1;
-- Slots in use, counted and not kept: by queue and by owner.
DROP INDEX task_live;
CREATE INDEX task_live ON task (queue, owner) WHERE state IN (3, 4, 5);
-- Who is next, or in front, of a group key.
CREATE INDEX task_group ON task (queue, group_key, open, rank, id)
    WHERE group_key IS NOT NULL AND state IN (2, 3, 4, 5);
CREATE UNIQUE INDEX task_unique ON task (owner, unique_key)
    WHERE unique_key IS NOT NULL AND state IN (0, 1, 2, 3, 4, 5);
-- Each nominal time of a schedule makes one task.
CREATE UNIQUE INDEX task_nominal ON task (schedule, nominal) WHERE schedule IS NOT NULL;
CREATE INDEX task_of_schedule ON task (schedule, id)
    WHERE schedule IS NOT NULL AND state IN (0, 1, 2, 3, 4, 5);

-- What is removed first: the order of retention.
CREATE INDEX task_ended ON task (ended) WHERE ended IS NOT NULL;

-- Its capture file was removed, or is about to be.
ALTER TABLE attempt ADD COLUMN output_gone INTEGER NOT NULL DEFAULT 0;

-- What a task waits for, as `After` of `model/depend.rs`.
CREATE TABLE edge (
    child  INTEGER NOT NULL REFERENCES task (id) ON DELETE CASCADE,
    parent INTEGER NOT NULL,
    wants  INTEGER NOT NULL,
    met    INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (child, parent)
) STRICT, WITHOUT ROWID;

CREATE INDEX edge_parent ON edge (parent);
CREATE INDEX edge_unmet ON edge (child) WHERE met = 0;

CREATE TABLE schedule (
    id      INTEGER PRIMARY KEY,
    owner   INTEGER NOT NULL,
    name    TEXT    NOT NULL,
    created INTEGER NOT NULL,
    paused  INTEGER NOT NULL DEFAULT 0,
    -- The last nominal time that was dealt with: only later ones count.
    cursor  INTEGER NOT NULL,
    wake    INTEGER,
    -- When and how, and the task it makes, as JSON.
    rule    TEXT    NOT NULL,
    task    TEXT    NOT NULL,
    UNIQUE (owner, name)
) STRICT;

CREATE INDEX schedule_wake ON schedule (wake) WHERE wake IS NOT NULL AND paused = 0;

ALTER TABLE event ADD COLUMN owner INTEGER NOT NULL DEFAULT 0;
-- What the kind alone does not say, as JSON.
ALTER TABLE event ADD COLUMN data  TEXT;
ALTER TABLE event ADD COLUMN queue INTEGER NOT NULL DEFAULT 0;
UPDATE event SET owner = coalesce((SELECT owner FROM task WHERE id = event.task), 0),
    queue = coalesce((SELECT queue FROM task WHERE id = event.task), 0);

-- How far the wall clock was ahead of the time since boot, in microseconds: one
-- row, by which a clock that was set is noticed.
CREATE TABLE clock (
    id   INTEGER PRIMARY KEY CHECK (id = 1),
    boot TEXT    NOT NULL,
    lead INTEGER NOT NULL
) STRICT;

-- Tasks in each state, by queue and owner, and the numbers given out so far:
-- one row each, one page for all that one commit changes. `what` is a state's
-- number, or 100 for the last task, 101 for the last event, 102 for the last
-- schedule, and 103 for the bytes of output of attempts that are over.
CREATE TABLE book (
    what   INTEGER NOT NULL,
    queue  INTEGER NOT NULL,
    owner  INTEGER NOT NULL,
    number INTEGER NOT NULL,
    PRIMARY KEY (what, queue, owner)
) STRICT, WITHOUT ROWID;

INSERT INTO book (what, queue, owner, number)
    SELECT state, queue, owner, count(*) FROM task GROUP BY state, queue, owner;
INSERT INTO book (what, queue, owner, number)
    SELECT CASE what WHEN 'task' THEN 100 ELSE 101 END, 0, 0, number FROM given;
INSERT INTO book (what, queue, owner, number)
    SELECT 103, 0, 0, coalesce(sum(output_kept), 0) FROM attempt WHERE outcome IS NOT NULL;
DROP TABLE tally;
DROP TABLE given;
