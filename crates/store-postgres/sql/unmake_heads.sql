DELETE FROM {schema}.heads h
USING unnest($1::text[], $2::text[], $3::bytea[]) AS u (tenant, kind, id)
WHERE h.tenant = u.tenant AND h.kind = u.kind AND h.id = u.id AND h.revision = 0
