-- Sequences never come again, so what lies below a trim can go at any time.
WITH some AS MATERIALIZED (
    SELECT tenant, kind, id, stream, until FROM {schema}.trimmed
    LIMIT 1
    FOR UPDATE SKIP LOCKED
), gone AS (
    DELETE FROM {schema}.entries e
    USING (
        SELECT e.tenant, e.kind, e.id, e.stream, e.sequence
        FROM {schema}.entries e JOIN some s USING (tenant, kind, id, stream)
        WHERE e.sequence < s.until
        ORDER BY e.sequence
        LIMIT $1::int8
    ) old
    WHERE e.tenant = old.tenant AND e.kind = old.kind AND e.id = old.id
        AND e.stream = old.stream AND e.sequence = old.sequence
    RETURNING 1
), done AS (
    DELETE FROM {schema}.trimmed d USING some s
    WHERE d.tenant = s.tenant AND d.kind = s.kind AND d.id = s.id AND d.stream = s.stream
        AND (SELECT count(*) FROM gone) < $1::int8
)
SELECT count(*) AS gone FROM gone
