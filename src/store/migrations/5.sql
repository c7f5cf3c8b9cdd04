-- Schema version 5: checksums of what was asked for (`sum.rs`), so that a byte
-- that changed on its own is noticed also where the row stays readable. Rows
-- of before have none, and are believed.

ALTER TABLE task ADD COLUMN sum INTEGER;
ALTER TABLE input ADD COLUMN sum INTEGER;
