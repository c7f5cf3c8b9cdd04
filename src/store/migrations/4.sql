-- Schema version 4: which process and which request each change came from.

ALTER TABLE event ADD COLUMN pid     INTEGER;
ALTER TABLE event ADD COLUMN request TEXT;
