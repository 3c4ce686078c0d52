-- Events in a table with row ids: to find a row in one without, SQLite reads whole rows on the way (its index is the
-- table), and frames may be long.

CREATE TABLE events_by_row (
    session_id  TEXT NOT NULL REFERENCES sessions (id) ON DELETE CASCADE,
    seq         INTEGER NOT NULL,
    audience    INTEGER NOT NULL,
    has_links   BOOLEAN NOT NULL,
    frame       TEXT NOT NULL,
    PRIMARY KEY (session_id, seq)
);
INSERT INTO events_by_row SELECT session_id, seq, audience, has_links, frame FROM events ORDER BY session_id, seq;
DROP TABLE events;
ALTER TABLE events_by_row RENAME TO events;
