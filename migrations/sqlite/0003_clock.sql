-- The one clock that all gateways share, in Unix milliseconds: leases are told by it.

CREATE VIEW clock AS SELECT CAST(unixepoch('subsec') * 1000 AS INTEGER) AS now;
