SELECT r.value, r.revision
FROM {schema}.records r
WHERE r.tenant = $2::text AND r.kind = $3::text AND r.id = $4::bytea AND r.key = $5::bytea
    AND r.value IS NOT NULL AND (r.expires IS NULL OR r.expires > {now})
