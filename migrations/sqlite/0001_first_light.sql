-- Ids are text (`sess_…`), times are Unix milliseconds: the same statements run on Postgres.

CREATE TABLE settings (
    name  TEXT PRIMARY KEY,
    value TEXT NOT NULL
);

CREATE TABLE api_tokens (
    id           TEXT PRIMARY KEY,
    token_hash   BLOB NOT NULL UNIQUE CHECK (length(token_hash) = 32),
    hint         TEXT NOT NULL,
    user_id      TEXT NOT NULL,
    role         TEXT,
    name         TEXT,
    created_at   INTEGER NOT NULL,
    expires_at   INTEGER,
    revoked_at   INTEGER
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
    last_seq       INTEGER NOT NULL,
    input_tokens   INTEGER NOT NULL DEFAULT 0,
    output_tokens  INTEGER NOT NULL DEFAULT 0,
    cost_usd       REAL NOT NULL DEFAULT 0,
    owner_node     TEXT NOT NULL,
    epoch          INTEGER NOT NULL,
    lease_until    INTEGER NOT NULL,
    created_at     INTEGER NOT NULL,
    updated_at     INTEGER NOT NULL
);
CREATE INDEX sessions_user ON sessions (user_id, id);
CREATE INDEX sessions_owner ON sessions (owner_node) WHERE lease_until > 0;

CREATE TABLE tasks (
    id             TEXT PRIMARY KEY,
    session_id     TEXT NOT NULL REFERENCES sessions (id) ON DELETE CASCADE,
    user_id        TEXT NOT NULL,
    state          TEXT NOT NULL,
    mode           TEXT NOT NULL,
    priority       INTEGER NOT NULL,
    prompt         TEXT NOT NULL,
    options        TEXT NOT NULL,
    prompt_seq     INTEGER NOT NULL,
    result_text    TEXT,
    stop_reason    TEXT,
    error          TEXT,
    retryable      BOOLEAN,
    input_tokens   INTEGER NOT NULL DEFAULT 0,
    output_tokens  INTEGER NOT NULL DEFAULT 0,
    cost_usd       REAL NOT NULL DEFAULT 0,
    created_at     INTEGER NOT NULL,
    started_at     INTEGER,
    ended_at       INTEGER
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
    asked_at     INTEGER NOT NULL,
    answered_at  INTEGER
);
CREATE INDEX questions_task ON questions (task_id, id);
CREATE INDEX questions_session ON questions (session_id);

CREATE TABLE idempotency_keys (
    user_id     TEXT NOT NULL,
    key         TEXT NOT NULL,
    body_hash   TEXT NOT NULL,
    session_id  TEXT NOT NULL,
    task_id     TEXT NOT NULL,
    created_at  INTEGER NOT NULL,
    PRIMARY KEY (user_id, key)
);
CREATE INDEX idempotency_keys_age ON idempotency_keys (created_at);

CREATE TABLE events (
    session_id  TEXT NOT NULL REFERENCES sessions (id) ON DELETE CASCADE,
    seq         INTEGER NOT NULL,
    audience    INTEGER NOT NULL,
    has_links   BOOLEAN NOT NULL,
    frame       TEXT NOT NULL,
    PRIMARY KEY (session_id, seq)
) WITHOUT ROWID;
