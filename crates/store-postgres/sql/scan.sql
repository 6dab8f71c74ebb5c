-- The head, whose row has no key, and a page of records: one statement, so one snapshot.
-- One record beyond the page's bytes comes along to tell that there are more.
WITH t AS MATERIALIZED (SELECT {now} AS now)
SELECT NULL::bytea AS key, NULL::int8 AS written, NULL::bytea AS value,
    t.now, {fingerprint} AS fingerprint, h.life, h.incarnation, h.revision, h.fence, h.wake,
    h.bytes, h.known_from, h.streams::text AS streams
FROM t
LEFT JOIN {schema}.heads h ON h.tenant = $2::text AND h.kind = $3::text AND h.id = $4::bytea
UNION ALL
SELECT p.key, p.revision, p.value, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL
FROM (
    SELECT c.*, sum(c.size) OVER (ORDER BY c.key) - c.size AS before
    FROM (
        SELECT r.key, r.revision, r.value, octet_length(r.key) + octet_length(r.value) AS size
        FROM {schema}.records r, t
        WHERE r.tenant = $2::text AND r.kind = $3::text AND r.id = $4::bytea
            AND r.key >= $5::bytea AND ($6::bytea IS NULL OR r.key < $6::bytea)
            AND r.value IS NOT NULL AND (r.expires IS NULL OR r.expires > t.now)
        ORDER BY r.key
        LIMIT $7::int8
    ) c
) p
WHERE p.before <= $8::int8
