-- The one clock that all gateways share, in Unix milliseconds: leases are told by it.

CREATE VIEW clock AS SELECT CAST(EXTRACT(EPOCH FROM clock_timestamp()) * 1000 AS BIGINT) AS now;
