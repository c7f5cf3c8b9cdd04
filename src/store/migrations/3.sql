-- Schema version 3: conditions of indexes say ranges of states.
--
-- A list of more than two values costs a table of its own, made and thrown away
-- at every write of a row, for each index that has one. Queries that use these
-- indexes have to say the same condition in the same words.

DROP INDEX task_live;
CREATE INDEX task_live ON task (queue, owner) WHERE state BETWEEN 3 AND 5;
DROP INDEX task_group;
CREATE INDEX task_group ON task (queue, group_key, open, rank, id)
    WHERE group_key IS NOT NULL AND state BETWEEN 2 AND 5;
DROP INDEX task_unique;
CREATE UNIQUE INDEX task_unique ON task (owner, unique_key)
    WHERE unique_key IS NOT NULL AND state <= 5;
DROP INDEX task_of_schedule;
CREATE INDEX task_of_schedule ON task (schedule, id)
    WHERE schedule IS NOT NULL AND state <= 5;
