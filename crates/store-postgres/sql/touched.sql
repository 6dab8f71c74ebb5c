-- Heads that transactions changed which the snapshot of the last poll may not have seen, and
-- where to go on from. It may repeat, and loses nothing: below its xmin all had ended.
SELECT pg_snapshot_xmin(pg_current_snapshot())::text AS xmin, {fingerprint} AS fingerprint,
    NULL::text AS tenant, NULL::text AS kind, NULL::bytea AS id
UNION ALL
SELECT NULL, NULL, tenant, kind, id FROM {schema}.heads WHERE xid >= ($1::text)::xid8
