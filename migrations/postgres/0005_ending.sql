-- Why a session is to be closed, once what it lived in has gone: known before that, so that it happens after a crash too.

ALTER TABLE sessions ADD COLUMN ending TEXT;
CREATE INDEX sessions_ending ON sessions (id) WHERE ending IS NOT NULL AND status = 'active';
