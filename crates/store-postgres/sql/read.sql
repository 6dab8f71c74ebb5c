-- The head, whose row has no sequence, and a page of entries: one statement, so one snapshot.
SELECT NULL::int8 AS sequence, NULL::int8 AS written, NULL::bytea AS value,
    {now} AS now, {fingerprint} AS fingerprint, h.life, h.incarnation, h.revision, h.fence,
    h.wake, h.bytes, h.known_from, h.streams::text AS streams
FROM (SELECT 1) one
LEFT JOIN {schema}.heads h ON h.tenant = $2::text AND h.kind = $3::text AND h.id = $4::bytea
UNION ALL
SELECT p.sequence, p.revision, p.value, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL
FROM (
    SELECT c.*, sum(c.size) OVER (ORDER BY c.sequence) - c.size AS before
    FROM (
        SELECT e.sequence, e.revision, e.value, octet_length(e.value) AS size
        FROM {schema}.entries e
        WHERE e.tenant = $2::text AND e.kind = $3::text AND e.id = $4::bytea
            AND e.stream = $5::text AND e.sequence >= $6::int8
        ORDER BY e.sequence
        LIMIT $7::int8
    ) c
) p
WHERE p.before <= $8::int8
