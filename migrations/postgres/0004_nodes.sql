-- When each gateway was there last, by the common clock: what one that is gone for good left running, others take away.

CREATE TABLE nodes (
    node    TEXT   NOT NULL PRIMARY KEY,
    seen_at BIGINT NOT NULL
);
