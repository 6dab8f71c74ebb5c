-- Under the lock of the heads, in their order; those that are being written wait for next time.
WITH old AS MATERIALIZED (
    SELECT DISTINCT tenant, kind, id FROM (
        SELECT tenant, kind, id FROM {schema}.records
        WHERE deleted_at <= (SELECT {now}) - $2::int8
        ORDER BY deleted_at
        LIMIT $3::int8
    ) some
), locked AS MATERIALIZED (
    SELECT h.tenant, h.kind, h.id FROM {schema}.heads h JOIN old USING (tenant, kind, id)
    ORDER BY h.tenant, h.kind, h.id
    FOR UPDATE OF h SKIP LOCKED
), gone AS (
    DELETE FROM {schema}.records r USING locked l
    WHERE r.tenant = l.tenant AND r.kind = l.kind AND r.id = l.id
        AND r.deleted_at <= (SELECT {now}) - $2::int8
    RETURNING r.tenant, r.kind, r.id, r.revision
)
UPDATE {schema}.heads h SET known_from = greatest(h.known_from, g.revision)
FROM (SELECT tenant, kind, id, max(revision) AS revision FROM gone GROUP BY 1, 2, 3) g
WHERE h.tenant = g.tenant AND h.kind = g.kind AND h.id = g.id
