-- Where a session's run stands in what its agent said: committed with the events that came of it.

ALTER TABLE sessions ADD COLUMN spool_id text;
ALTER TABLE sessions ADD COLUMN spool_record bigint NOT NULL DEFAULT 0;
ALTER TABLE sessions ADD COLUMN run_state text;
CREATE INDEX sessions_container ON sessions (container_id) WHERE status = 'active';
