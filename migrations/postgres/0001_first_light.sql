-- Ids are text (`sess_…`), times are Unix milliseconds: the same statements run on SQLite.

CREATE TABLE settings (
    name  TEXT PRIMARY KEY,
    value TEXT NOT NULL
);

CREATE TABLE api_tokens (
    id           TEXT PRIMARY KEY,
    token_hash   BYTEA NOT NULL UNIQUE CHECK (octet_length(token_hash) = 32),
    hint         TEXT NOT NULL,
    user_id      TEXT NOT NULL,
    role         TEXT,
    name         TEXT,
    created_at   BIGINT NOT NULL,
    expires_at   BIGINT,
    revoked_at   BIGINT
);
CREATE INDEX api_tokens_user ON api_tokens (user_id, id);

CREATE TABLE sessions (
    id             TEXT PRIMARY KEY,
    user_id        TEXT NOT NULL,
    profile_id     TEXT NOT NULL,
    mode           TEXT NOT NULL,
    title          TEXT,
    status         TEXT NOT NULL,
    container_id   TEXT,
    last_seq       BIGINT NOT NULL,
    input_tokens   BIGINT NOT NULL DEFAULT 0,
    output_tokens  BIGINT NOT NULL DEFAULT 0,
    cost_usd       DOUBLE PRECISION NOT NULL DEFAULT 0,
    owner_node     TEXT NOT NULL,
    epoch          BIGINT NOT NULL,
    lease_until    BIGINT NOT NULL,
    created_at     BIGINT NOT NULL,
    updated_at     BIGINT NOT NULL
);
CREATE INDEX sessions_user ON sessions (user_id, id);
CREATE INDEX sessions_owner ON sessions (owner_node) WHERE lease_until > 0;

CREATE TABLE tasks (
    id             TEXT PRIMARY KEY,
    session_id     TEXT NOT NULL REFERENCES sessions (id) ON DELETE CASCADE,
    user_id        TEXT NOT NULL,
    state          TEXT NOT NULL,
    mode           TEXT NOT NULL,
    priority       BIGINT NOT NULL,
    prompt         TEXT NOT NULL,
    options        TEXT NOT NULL,
    prompt_seq     BIGINT NOT NULL,
    result_text    TEXT,
    stop_reason    TEXT,
    error          TEXT,
    retryable      BOOLEAN,
    input_tokens   BIGINT NOT NULL DEFAULT 0,
    output_tokens  BIGINT NOT NULL DEFAULT 0,
    cost_usd       DOUBLE PRECISION NOT NULL DEFAULT 0,
    created_at     BIGINT NOT NULL,
    started_at     BIGINT,
    ended_at       BIGINT
);
CREATE UNIQUE INDEX tasks_one_at_a_time ON tasks (session_id)
    WHERE state IN ('starting', 'running', 'awaiting_answer');
CREATE INDEX tasks_session ON tasks (session_id, id);
CREATE INDEX tasks_user ON tasks (user_id, id);
CREATE INDEX tasks_open ON tasks (session_id)
    WHERE state IN ('queued', 'starting', 'running', 'awaiting_answer');

CREATE TABLE questions (
    id           TEXT PRIMARY KEY,
    session_id   TEXT NOT NULL REFERENCES sessions (id) ON DELETE CASCADE,
    task_id      TEXT NOT NULL,
    questions    TEXT NOT NULL,
    answer       TEXT,
    asked_at     BIGINT NOT NULL,
    answered_at  BIGINT
);
CREATE INDEX questions_task ON questions (task_id, id);
CREATE INDEX questions_session ON questions (session_id);

CREATE TABLE idempotency_keys (
    user_id     TEXT NOT NULL,
    key         TEXT NOT NULL,
    body_hash   TEXT NOT NULL,
    session_id  TEXT NOT NULL,
    task_id     TEXT NOT NULL,
    created_at  BIGINT NOT NULL,
    PRIMARY KEY (user_id, key)
);
CREATE INDEX idempotency_keys_age ON idempotency_keys (created_at);

CREATE TABLE events (
    session_id  TEXT NOT NULL REFERENCES sessions (id) ON DELETE CASCADE,
    seq         BIGINT NOT NULL,
    audience    SMALLINT NOT NULL,
    has_links   BOOLEAN NOT NULL,
    frame       TEXT NOT NULL,
    PRIMARY KEY (session_id, seq)
);
