-- Where a session's run stands in what its agent said: committed with the events that came of it.

ALTER TABLE sessions ADD COLUMN spool_id TEXT;
ALTER TABLE sessions ADD COLUMN spool_record INTEGER NOT NULL DEFAULT 0;
ALTER TABLE sessions ADD COLUMN run_state TEXT;
CREATE INDEX sessions_container ON sessions (container_id) WHERE status = 'active';
