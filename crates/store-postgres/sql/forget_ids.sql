DELETE FROM {schema}.commit_ids c
USING (
    SELECT tenant, kind, id, commit_id FROM {schema}.commit_ids
    WHERE at <= (SELECT {now}) - $2::int8
    ORDER BY at
    LIMIT $3::int8
    FOR UPDATE SKIP LOCKED
) old
WHERE c.tenant = old.tenant AND c.kind = old.kind AND c.id = old.id
    AND c.commit_id = old.commit_id
