-- The head, whose row has no key, and what changed: one statement, so one snapshot.
WITH t AS MATERIALIZED (SELECT {now} AS now)
SELECT NULL::bytea AS key, NULL::int8 AS written, NULL::bytea AS value, NULL::int8 AS deleted_at,
    t.now, {fingerprint} AS fingerprint, h.life, h.incarnation, h.revision, h.fence, h.wake,
    h.bytes, h.known_from, h.streams::text AS streams
FROM t
LEFT JOIN {schema}.heads h ON h.tenant = $2::text AND h.kind = $3::text AND h.id = $4::bytea
UNION ALL
SELECT r.key, r.revision, CASE WHEN r.expires <= t.now THEN NULL ELSE r.value END, r.deleted_at,
    NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL
FROM {schema}.records r, t
WHERE r.tenant = $2::text AND r.kind = $3::text AND r.id = $4::bytea AND r.revision > $5::int8
