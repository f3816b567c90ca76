-- The third form: a row of the log takes transactions until its page is full, and the last of them is
-- cut there. `body` has their lines; `count` and `hash` are as they were before, of all that begin in
-- the row. `skip`: bytes at the beginning of `body` that belong to the transaction before. `ends`: of
-- each transaction that begins in the row, but the last, how many events and how many bytes it has
-- (four bytes each, the lowest first) and the chain's value after it. A row of an earlier form is one
-- whole transaction, and stays as it is.
ALTER TABLE events ADD COLUMN skip INTEGER NOT NULL DEFAULT 0;
ALTER TABLE events ADD COLUMN ends BLOB NOT NULL DEFAULT x'';
